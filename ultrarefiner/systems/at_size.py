"""A network at a resolution of its own, while the rest of the system keeps the image's."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.coordinates import accumulation_dtype
from ultrarefiner.ops.logits import resize_logits
from ultrarefiner.types import MultiScaleLogits, PromptedSegmentation


class AtSize(nn.Module):
    """Stretch images to a square, run a network there, and bring its logits back to the images' pixels.

    TransUNet, for one, works at 224 pixels. Wrapped in this it is trained alone and inside `UltraRefiner` on one and
    the same path, and SAM still crops from the image at its own resolution.

    Args:
        network: images (b, c, size, size) to logits (b, k, h', w'), or to `MultiScaleLogits` of them.
        size: side of the square.

    Raises:
        ValueError: ``size`` is no positive whole number.

    Example:
        >>> import torch
        >>> from ultrarefiner.systems import AtSize
        >>> AtSize(torch.nn.Conv2d(1, 1, 3, padding=1), 32)(torch.rand(2, 1, 50, 80)).shape
        torch.Size([2, 1, 50, 80])
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        wanted: Any = size
        if not isinstance(wanted, Integral) or int(size) < 1:
            message = f"size must be a whole number of pixels from 1 on, but it is {size!r}."
            raise ValueError(message)
        self.network = network
        self.size = int(size)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"] | MultiScaleLogits:
        """Logits on the images' pixels; the way down is antialiased, the way up bilinear. Side logits stay small.

        Args:
            images: as the network wants them, any sides.

        Returns:
            Logits on the images' pixels.
        """
        answer = self.at_size(images)
        logits = resize_logits(main_logits(answer), images.shape[-2:])
        return replace(answer, logits=logits) if isinstance(answer, MultiScaleLogits) else logits

    def at_size(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k _ _"] | MultiScaleLogits:
        """What the network answers at its own resolution, before the way up: worth storing, as it is small.

        Args:
            images: as the network wants them, any sides.

        Returns:
            Logits at the network's own resolution.
        """
        size = (self.size, self.size)
        wide = images.to(accumulation_dtype(images))
        seen = functional.interpolate(wide, size, mode="bilinear", align_corners=False, antialias=True).to(images.dtype)
        answer: Tensor | MultiScaleLogits = self.network(seen)
        return answer

    def settings(self) -> dict[str, Any]:
        """The network's settings, or its class, and the size."""
        described = getattr(self.network, "settings", None)
        return {"network": type(self.network).__name__ if described is None else described(), "size": self.size}

    def extra_repr(self) -> str:
        """The constructor's number."""
        return f"size={self.size}"


def main_logits(
    answer: Float[Tensor, "b k h w"] | MultiScaleLogits | PromptedSegmentation,
) -> Float[Tensor, "b k h w"]:
    """What everything but a loss uses of a network's answer.

    Example:
        >>> import torch
        >>> main_logits(MultiScaleLogits(torch.zeros(1, 1, 8, 8), (torch.zeros(1, 1, 4, 4),))).shape
        torch.Size([1, 1, 8, 8])
    """
    return answer.logits if isinstance(answer, (MultiScaleLogits, PromptedSegmentation)) else answer
