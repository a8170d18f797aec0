"""The builder of SegVol: the numbers live here. It opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from torch import nn

from ultrarefiner.networks.segvol.decoder import VolumeMaskDecoder
from ultrarefiner.networks.segvol.encoder import build_volume_encoder
from ultrarefiner.networks.segvol.model import SegVol
from ultrarefiner.networks.segvol.position import PE_ORDERS, PEOrder
from ultrarefiner.networks.segvol.prompt_encoder import VolumePromptEncoder

Size = Literal["base", "tiny"]


@dataclass(frozen=True)
class SegVolSize:
    """The numbers of one size of SegVol.

    Attributes:
        volume_size: (D, H, W) of the input.
        patch: voxels a token, on each axis.
        width: channels of tokens, embedding and prompts.
        depth: blocks of the image encoder.
        heads: its attention heads.
        hidden: channels inside its linear layers.
        decoder_heads: attention heads of the mask decoder.
        decoder_hidden: channels inside its linear layers.
        iou_hidden: channels inside the head that estimates IoU.
        pe_order: in which order of axes prompts are encoded if the builder is not told.
    """

    volume_size: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    hidden: int
    decoder_heads: int
    decoder_hidden: int
    iou_hidden: int
    pe_order: PEOrder


SIZES = {
    "base": SegVolSize((32, 256, 256), (4, 16, 16), 768, 12, 12, 3072, 8, 2048, 256, "legacy"),
    "tiny": SegVolSize((32, 64, 64), (4, 8, 8), 96, 4, 4, 384, 4, 256, 64, "aligned"),
}


def build_segvol(
    size: Size = "base",
    *,
    volume_size: Sequence[int] | None = None,
    pe_order: PEOrder | None = None,
    text_encoder: nn.Module | None = None,
) -> SegVol:
    """Build SegVol with random weights; `ultrarefiner.load_weights` fills it. It needs MONAI.

    Args:
        size: "base" is the published one (117.3 million parameters, volumes of 32 x 256 x 256); "tiny" (1.1 million,
            32 x 64 x 64) is for tests, examples and laptops.
        volume_size: another (D, H, W) of the input, multiples of the patch: (4, 16, 16) for "base", (4, 8, 8) for
            "tiny". Published weights fit the default only.
        pe_order: "legacy" exchanges slices and rows of prompts as the published weights expect; "aligned" is right,
            for training from scratch. None is "legacy" for "base" and "aligned" for "tiny".
        text_encoder: a `SegVolTextEncoder` to be kept and loaded with the network; None for none. A text may also be
            given as an embedding.

    Returns:
        The network, in training mode (which changes nothing: there is no dropout).

    Raises:
        ValueError: an unknown size or order, or a volume that patches do not tile.
        ModuleNotFoundError: MONAI is not installed.

    Example:
        >>> import torch
        >>> network = build_segvol("tiny")
        >>> embedding = network.encode(torch.rand(1, 1, 32, 64, 64))
        >>> point = torch.tensor([[[16.0, 30.0, 40.0]]]), torch.tensor([[1]])
        >>> answer = network.decode(embedding, points=point)
        >>> tuple(embedding.shape), tuple(answer.mask_logits.shape), tuple(answer.iou.shape)
        ((1, 96, 8, 8, 8), (1, 1, 32, 32, 32), (1, 1))

    Du et al., "SegVol: Universal and Interactive Volumetric Medical Image Segmentation", arXiv 2311.13385.
    """
    numbers = _numbers(size)
    order = numbers.pe_order if pe_order is None else pe_order
    if order not in PE_ORDERS:
        message = f"pe_order must be one of {', '.join(PE_ORDERS)}, or None for the size's own, but it is {pe_order!r}."
        raise ValueError(message)
    whole = numbers.volume_size if volume_size is None else _checked(volume_size, numbers.patch)
    return _assembled(numbers, whole, order, text_encoder, size)


def _assembled(
    numbers: SegVolSize, whole: tuple[int, int, int], order: PEOrder, text_encoder: nn.Module | None, name: str
) -> SegVol:
    depth, height, width = (length // step for length, step in zip(whole, numbers.patch, strict=True))
    return SegVol(
        image_encoder=build_volume_encoder(
            volume_size=whole,
            patch=numbers.patch,
            width=numbers.width,
            depth=numbers.depth,
            heads=numbers.heads,
            hidden=numbers.hidden,
        ),
        prompt_encoder=VolumePromptEncoder(numbers.width, volume_size=whole, pe_order=order),
        mask_decoder=VolumeMaskDecoder(
            numbers.width,
            embedding_size=(depth, height, width),
            heads=numbers.decoder_heads,
            hidden=numbers.decoder_hidden,
            iou_hidden=numbers.iou_hidden,
        ),
        patch=numbers.patch,
        text_encoder=text_encoder,
        name=name,
    )


def _numbers(size: Any) -> SegVolSize:
    if not isinstance(size, str) or size not in SIZES:
        message = f"size must be one of {', '.join(SIZES)}, but it is {size!r}."
        raise ValueError(message)
    return SIZES[size]


def _checked(volume_size: Any, patch: tuple[int, int, int]) -> tuple[int, int, int]:
    sides = tuple(volume_size) if isinstance(volume_size, Sequence) and not isinstance(volume_size, str) else ()
    whole = len(sides) == 3 and all(isinstance(side, Integral) for side in sides)
    if not whole or any(int(side) < step or int(side) % step for side, step in zip(sides, patch, strict=True)):
        message = (
            f"volume_size must be (D, H, W), multiples of the patch {patch}, but it is {volume_size!r}; pad or resize "
            "volumes to such a size."
        )
        raise ValueError(message)
    return int(sides[0]), int(sides[1]), int(sides[2])
