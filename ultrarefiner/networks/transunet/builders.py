"""Builders of TransUNet and MicroSegNet: the numbers live here. They open no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from torch import nn

from ultrarefiner.networks.transunet.decoder import CascadedDecoder
from ultrarefiner.networks.transunet.encoder import VisionTransformer
from ultrarefiner.networks.transunet.model import STRIDE, TransUNet
from ultrarefiner.networks.transunet.stem import ResNetV2Stem

Size = Literal["r50_vit_b16", "vit_b16", "r50_vit_l16", "tiny"]


@dataclass(frozen=True)
class TransUNetSize:
    """The numbers of one size of TransUNet.

    Attributes:
        width: channels of a token.
        depth: transformer blocks.
        heads: attention heads.
        hidden: channels inside a block's linear layers.
        stem_width: channels after the stem's first convolution; 0 for no stem.
        stem_units: bottlenecks of the stem's stages.
        stem_groups: of its group normalisations.
        bridge: channels into the decoder.
        stages: channels out of its stages.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    stem_width: int = 64
    stem_units: tuple[int, int, int] = (3, 4, 9)
    stem_groups: int = 32
    bridge: int = 512
    stages: tuple[int, int, int, int] = (256, 128, 64, 16)


SIZES = {
    "r50_vit_b16": TransUNetSize(),
    "vit_b16": TransUNetSize(stem_width=0),
    "r50_vit_l16": TransUNetSize(width=1024, depth=24, heads=16, hidden=4096),
    "tiny": TransUNetSize(64, 2, 4, 128, 16, (1, 1, 1), 8, 64, (48, 32, 24, 16)),
}


def build_transunet(
    size: Size = "r50_vit_b16",
    *,
    classes: int = 1,
    image_size: int | Sequence[int] = 224,
    deep_supervision: bool = False,
    dropout: float = 0.1,
) -> TransUNet:
    """Build TransUNet with random weights; `ultrarefiner.load_weights` fills it.

    Args:
        size: "r50_vit_b16" is the published default (105.3 million parameters); "vit_b16" has no stem and no skips;
            "r50_vit_l16" has the large transformer; "tiny" (0.4 million) is for tests, examples and laptops.
        classes: channels of logits. 1 is one lesion. The published networks have 2, background and lesion under a
            softmax: wrap such a network in `ForegroundLogits` to read it as one lesion.
        image_size: side of the images, or (height, width), multiples of 16. It sizes the position embeddings;
            images of other sizes get them interpolated.
        deep_supervision: whether to add heads at 1/8, 1/4 and 1/2; the network then returns `MultiScaleLogits`.
        dropout: share of activations that training sets to 0 in the transformer.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: an unknown size, a side that is no multiple of 16, no class, or a dropout outside of [0, 1).

    Example:
        >>> import torch
        >>> build_transunet("tiny", image_size=64)(torch.rand(2, 1, 64, 96)).shape
        torch.Size([2, 1, 64, 96])

    Chen et al., "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation", arXiv 2102.04306.
    """
    numbers = _numbers(size)
    height, width = _checked(image_size, classes, dropout)
    stem = None
    if numbers.stem_width:
        stem = ResNetV2Stem(width=numbers.stem_width, units=numbers.stem_units, groups=numbers.stem_groups)
    decoder = CascadedDecoder(
        numbers.width,
        bridge=numbers.bridge,
        stages=numbers.stages,
        skips=() if stem is None else stem.skip_channels,
    )
    heads = [nn.Conv2d(channels, classes, 3, padding=1) for channels in numbers.stages]
    return TransUNet(
        stem=stem,
        encoder=VisionTransformer(
            3 if stem is None else stem.channels,
            patch=STRIDE if stem is None else 1,
            grid=(height // STRIDE, width // STRIDE),
            width=numbers.width,
            depth=numbers.depth,
            heads=numbers.heads,
            hidden=numbers.hidden,
            dropout=dropout,
        ),
        decoder=decoder,
        head=heads[-1],
        side_heads=nn.ModuleList(heads[:-1]) if deep_supervision else None,
        name=size,
    )


def build_microsegnet(
    size: Size = "r50_vit_b16", *, image_size: int | Sequence[int] = 224, dropout: float = 0.1
) -> TransUNet:
    """Build MicroSegNet with random weights: TransUNet for one class, with deep supervision at 1/8, 1/4 and 1/2.

    Args:
        size: as for `build_transunet`; the published network is "r50_vit_b16".
        image_size: side of the images, or (height, width), multiples of 16.
        dropout: share of activations that training sets to 0 in the transformer.

    Returns:
        A network that returns `MultiScaleLogits`.

    Raises:
        ValueError: as `build_transunet`.

    Example:
        >>> import torch
        >>> result = build_microsegnet("tiny", image_size=64)(torch.rand(1, 1, 64, 64))
        >>> result.logits.shape, [tuple(side.shape[-2:]) for side in result.side_logits]
        (torch.Size([1, 1, 64, 64]), [(8, 8), (16, 16), (32, 32)])

    Jiang et al., "MicroSegNet: A Deep Learning Approach for Prostate Segmentation on Micro-Ultrasound Images", arXiv
    2305.19956.
    """
    return build_transunet(size, classes=1, image_size=image_size, deep_supervision=True, dropout=dropout)


def _numbers(size: str) -> TransUNetSize:
    if not isinstance(size, str) or size not in SIZES:
        message = f"size must be one of {', '.join(SIZES)}, but it is {size!r}."
        raise ValueError(message)
    return SIZES[size]


def _checked(image_size: Any, classes: Any, dropout: Any) -> tuple[int, int]:
    square = isinstance(image_size, str) or not isinstance(image_size, Sequence)
    sides = (image_size, image_size) if square else tuple(image_size)
    whole = all(isinstance(side, Integral) for side in sides)
    if not whole or len(sides) != 2 or any(int(side) < STRIDE or int(side) % STRIDE for side in sides):
        message = (
            f"image_size must be a multiple of {STRIDE}, or (height, width) of two, but it is {image_size!r}; 224 is "
            "what the published weights saw."
        )
        raise ValueError(message)
    counted = isinstance(classes, Integral) and not isinstance(classes, bool) and int(classes) >= 1
    if not counted or not isinstance(dropout, Real) or not 0 <= float(dropout) < 1:
        message = (
            f"classes must be a whole number from 1 on, dropout in [0, 1), but they are {classes!r} and {dropout!r}."
        )
        raise ValueError(message)
    return int(sides[0]), int(sides[1])
