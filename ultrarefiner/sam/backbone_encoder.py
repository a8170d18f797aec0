"""Any timm backbone as SAM's image encoder: features of four strides, on SAM's raster without loss of detail."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32)
STRIDE = 16
"""Input pixels an embedding pixel, on each axis, as in SAM."""


class BackboneEncoder(nn.Module):
    """A convolutional backbone of timm as SAM's image encoder.

    Features finer than SAM's stride of 16 are folded (each 4 x 4 or 2 x 2 block becomes channels), so that borders
    keep their place; those at 32 are brought up bilinearly. All of them together go through SAM's own kind of neck: a
    1 x 1 and a 3 x 3 convolution, each followed by a layer norm over channels.

    It opens no file: its weights are random until `load_weights` fills ``backbone``.

    Args:
        backbone: a name of timm's, of a network with features at strides 4, 8, 16 and 32.
        channels: of the embedding, SAM's 256.

    Raises:
        ValueError: timm has no such backbone, or it has other strides.
        ModuleNotFoundError: timm is not installed.

    Example:
        >>> BackboneEncoder("tf_efficientnet_lite0", channels=32).eval()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 32, 4, 4])

    References:
        Kirillov et al., "Segment Anything", ICCV 2023, for the neck; Zhang et al., "Faster Segment Anything"
        (MobileSAM), arXiv 2306.14289, for a light encoder in ViT's place; github.com/huggingface/pytorch-image-models.
    """

    def __init__(self, backbone: str = "tf_efficientnet_lite0", *, channels: int = 256) -> None:
        super().__init__()
        import timm

        try:
            self.backbone = timm.create_model(backbone, features_only=True, pretrained=False)
            found = dict(
                zip(self.backbone.feature_info.reduction(), self.backbone.feature_info.channels(), strict=True)
            )
            self._order = [self.backbone.feature_info.reduction().index(stride) for stride in STRIDES]
        except (RuntimeError, ValueError, AttributeError, KeyError, TypeError) as error:
            message = (
                f"backbone must be one of timm's with features at strides 4, 8, 16 and 32, but {backbone!r} is not "
                f"({error}); timm.list_models() names all there are."
            )
            raise ValueError(message) from error
        self._channels_last = getattr(self.backbone, "output_fmt", None) == "NHWC"
        made_for = timm.get_pretrained_cfg(backbone)
        self._only_size = tuple(made_for.input_size[-2:]) if made_for and made_for.fixed_input_size else None
        self._told = {"backbone": backbone, "channels": channels}
        folded = sum(found[stride] * max(1, STRIDE // stride) ** 2 for stride in STRIDES)
        self.neck = nn.Sequential(
            nn.Conv2d(folded, channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d low_h low_w"]:
        """Embeddings of what the input policy prepared; sides are multiples of 32.

        Args:
            inputs: what the input policy prepared.

        Returns:
            Embeddings at a sixteenth of the sides.

        Raises:
            ValueError: a side is no multiple of 32, or the backbone was made for one size and this is another.
        """
        height, width = inputs.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            message = (
                f"inputs must have sides that are multiples of {STRIDES[-1]}, but they are {height} x {width}; choose "
                "another image_size."
            )
            raise ValueError(message)
        if self._only_size not in (None, (height, width)):
            message = (
                f"inputs must be {self._only_size[0]} x {self._only_size[1]} for {self._told['backbone']!r}, which is "
                f"built for that size alone, but they are {height} x {width}; build with "
                f"image_size={self._only_size[0]}, or take a backbone that is convolutional."
            )
            raise ValueError(message)
        levels = cast("list[Tensor]", self.backbone(inputs))
        forget_biases(self.backbone)
        if self._channels_last:
            levels = [level.movedim(-1, 1) for level in levels]
        size = (height // STRIDE, width // STRIDE)
        seen = [_on_raster(levels[place], stride, size) for place, stride in zip(self._order, STRIDES, strict=True)]
        embedding: Tensor = self.neck(torch.cat(seen, 1))
        return embedding

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"encoder": "backbone", **self._told}


def forget_biases(backbone: nn.Module) -> None:
    """Clear what timm's networks with attention biases keep of them between two calls in evaluation mode.

    Kept, they would outlive the weights that they were made from (`load_weights` changes those), and the graph of one
    backward pass would be asked for by the next.

    Example:
        >>> forget_biases(nn.Conv2d(1, 1, 3))
    """
    for part in backbone.modules():
        kept = getattr(part, "attention_bias_cache", None)
        if kept:
            kept.clear()


def _on_raster(features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Features of one stride on the embedding's raster."""
    if stride <= STRIDE:
        return functional.pixel_unshuffle(features, STRIDE // stride)
    return functional.interpolate(features, size, mode="bilinear", align_corners=False)
