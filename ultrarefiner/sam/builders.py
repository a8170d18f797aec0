"""Builders of SAM on segment-anything's own classes: the numbers live here. They open no file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import nn

from ultrarefiner.sam.backbone_encoder import BackboneEncoder
from ultrarefiner.sam.inputs import InputPolicy, MedSAMInput, SAMInput
from ultrarefiner.sam.mobile_encoder import MobileEncoder
from ultrarefiner.sam.model import SAM

PATCH = 16
"""Input pixels an embedding pixel, on each axis."""


@dataclass(frozen=True)
class SAMSize:
    """The numbers of one size of SAM.

    Attributes:
        image_size: side of the input.
        width: channels of the image encoder.
        depth: its transformer blocks.
        heads: its attention heads.
        global_blocks: the blocks with global attention; the others attend in windows.
        window: side of those windows, in patches.
        prompt_width: channels of embeddings and prompts.
        decoder_heads: attention heads of the mask decoder.
        decoder_mlp: hidden width of its MLPs.
    """

    image_size: int
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    prompt_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048


SIZES = {
    "tiny": SAMSize(256, 96, 4, 3, (1, 3), window=7, prompt_width=64, decoder_heads=4, decoder_mlp=256),
    "vit_b": SAMSize(1024, 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SAMSize(1024, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SAMSize(1024, 1280, 32, 16, (7, 15, 23, 31)),
}
"""What `build_sam` builds, by name: SAM's own three, and one to try things with."""

POLICIES: dict[str, Callable[[int], InputPolicy]] = {"sam": SAMInput, "medsam": MedSAMInput}


def build_sam(
    size: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "vit_b",
    *,
    input_policy: Literal["sam", "medsam"] = "sam",
    image_size: int | None = None,
) -> SAM:
    """Build SAM with random weights, in eval mode; `load_weights` fills it.

    Args:
        size: "vit_b", "vit_l" and "vit_h" are segment-anything's own (1024 px); "tiny" (256 px, 0.8 million parameters)
            is for tests, examples and training from scratch.
        input_policy: "sam", or "medsam" for MedSAM's weights. It belongs to the weights: choose it with them.
        image_size: another side of the input, a multiple of 16; official weights fit the default only.

    Returns:
        The model; its state dict has segment-anything's keys.

    Raises:
        ValueError: an unknown size or policy, or a side that is no multiple of 16.

    Example:
        >>> build_sam("tiny").input_policy.size
        256
    """
    if size not in SIZES or input_policy not in POLICIES:
        message = (
            f"build_sam knows the sizes {', '.join(SIZES)} and the input policies {', '.join(POLICIES)}, "
            f"but was asked for {size!r} and {input_policy!r}."
        )
        raise ValueError(message)
    numbers = SIZES[size]
    side = numbers.image_size if image_size is None else image_size
    _check_side(side)
    return _with_organs(_image_encoder(numbers, side), numbers, side, POLICIES[input_policy](side), name=size)


def build_light_sam(
    backbone: str = "tf_efficientnet_lite0",
    *,
    image_size: int = 256,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> SAM:
    """Build SAM with a convolutional backbone of timm's in the place of its ViT, in eval mode, with random weights.

    Prompt encoder and mask decoder are SAM's own. With EfficientNet-Lite0 there are 7.9 million parameters, of which
    the decoder has 4.1.

    Args:
        backbone: a name of timm's, of a network with features at strides 4, 8, 16 and 32.
        image_size: side of the input, a multiple of 32, 256 to 1024 as a rule.
        mean: of the three channels of images in [0, 1], as the backbone's weights want it.
        std: likewise.

    Returns:
        The model. ``load_weights(sam.image_encoder.backbone, efficientnet_lite0_file(), layout="efficientnet_lite0")``
        brings ImageNet weights.

    Raises:
        ValueError: timm has no such backbone, or a side that is no multiple of 32.
        ModuleNotFoundError: timm is not installed.

    Example:
        >>> import torch
        >>> build_light_sam(image_size=128)(torch.rand(1, 1, 100, 80)).shape
        torch.Size([1, 256, 8, 8])

    After Zhang et al., "Faster Segment Anything" (MobileSAM), arXiv 2306.14289.
    """
    if image_size < 2 * PATCH or image_size % (2 * PATCH):
        nearest = max(2 * PATCH, image_size // (2 * PATCH) * 2 * PATCH)
        message = f"image_size must be a multiple of {2 * PATCH}, but it is {image_size}; {nearest} is one."
        raise ValueError(message)
    numbers = SAMSize(image_size, 0, 0, 0, ())
    encoder = BackboneEncoder(backbone, channels=numbers.prompt_width)
    policy = SAMInput(image_size, mean=mean, std=std)
    return _with_organs(encoder, numbers, image_size, policy, name="light")


def build_mobile_sam(*, image_size: int = 1024) -> SAM:
    """Build MobileSAM, a SAM whose image encoder is a TinyViT of 5 million parameters, in eval mode, random weights.

    ``load_weights(sam, "mobile_sam.pt", layout="mobile_sam")`` is to fill it with the published weights. That file was
    not at hand: what is tested is that weights in kornia's MobileSAM, which reads that file, give equal answers here.

    Args:
        image_size: side of the input, a multiple of 16; 1024 for the published weights. They fit other sizes too, as
            TinyViT's attention stays in windows, but were not trained there.

    Returns:
        The model, with SAM's own input policy.

    Raises:
        ValueError: a side that is no multiple of 16.
        ModuleNotFoundError: timm is not installed.

    Example:
        >>> import torch
        >>> build_mobile_sam(image_size=128)(torch.rand(1, 1, 100, 80)).shape
        torch.Size([1, 256, 8, 8])

    After Zhang et al., "Faster Segment Anything" (MobileSAM), arXiv 2306.14289.
    """
    _check_side(image_size)
    numbers = SAMSize(image_size, 0, 0, 0, ())
    encoder = MobileEncoder(channels=numbers.prompt_width)
    return _with_organs(encoder, numbers, image_size, SAMInput(image_size), name="mobile")


def _check_side(side: int) -> None:
    if side < PATCH or side % PATCH:
        message = (
            f"image_size must be a multiple of {PATCH}, but it is {side}; {max(PATCH, side // PATCH * PATCH)} is one."
        )
        raise ValueError(message)


def _with_organs(encoder: nn.Module, numbers: SAMSize, side: int, policy: InputPolicy, *, name: str) -> SAM:
    """An image encoder, and the prompt encoder and mask decoder that go with it."""
    return SAM(
        encoder,
        PromptEncoder(
            embed_dim=numbers.prompt_width,
            image_embedding_size=(side // PATCH, side // PATCH),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2,
                embedding_dim=numbers.prompt_width,
                mlp_dim=numbers.decoder_mlp,
                num_heads=numbers.decoder_heads,
            ),
            transformer_dim=numbers.prompt_width,
            iou_head_depth=3,
            iou_head_hidden_dim=numbers.prompt_width,
        ),
        input_policy=policy,
        name=name,
    ).eval()


def _image_encoder(numbers: SAMSize, side: int) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=side,
        patch_size=PATCH,
        embed_dim=numbers.width,
        depth=numbers.depth,
        num_heads=numbers.heads,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=numbers.global_blocks,
        window_size=numbers.window,
        out_chans=numbers.prompt_width,
    )
