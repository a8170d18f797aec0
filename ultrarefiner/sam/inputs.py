"""How an image becomes SAM's input, and SAM's masks the image's: one policy for SAM, one for MedSAM.

The two differ in everything: value range, statistics, aspect and padding. Fed with the other's input a SAM still
answers, only worse, so a model carries its policy and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.checks import check_statistics
from ultrarefiner.ops.coordinates import Frame, accumulation_dtype, pad_frame, squash_frame
from ultrarefiner.ops.resample import apply_weights, linear_weights

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@runtime_checkable
class InputPolicy(Protocol):
    """What the library asks of an input policy."""

    size: int

    def frame(self, source: Sequence[int]) -> Frame:
        """Where a picture of ``source`` = (height, width) lies in the input."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the encoder's input.

        Args:
            images: (n, c, h, w), grey or RGB in [0, 1].

        Returns:
            (n, 3, size, size).
        """
        ...

    def restore(self, masks: Tensor, frame: Frame) -> Tensor:
        """Low-resolution masks of the frame to the pixels of its source.

        Args:
            masks: (n, m, low_h, low_w), logits or probabilities.
            frame: of the images' size.

        Returns:
            (n, m, h, w).
        """
        ...

    def settings(self) -> dict[str, Any]:
        """The policy as plain values."""
        ...


class SAMInput(nn.Module):
    """SAM's own input: longest side to ``size``, mean and standard deviation on 0-255, *then* zeros right and below.

    Kirillov et al., "Segment Anything", ICCV 2023 (github.com/facebookresearch/segment-anything).

    Args:
        size: side of the square input, 1024 for the published models.
        mean: of the three channels of images in [0, 1]; SAM's own if not given. Belongs to the encoder's weights.
        std: likewise.

    Raises:
        ValueError: mean or std is not three numbers.

    Example:
        >>> SAMInput(64)(torch.rand(1, 1, 30, 50)).shape
        torch.Size([1, 3, 64, 64])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int = 1024, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        check_statistics(PIXEL_MEAN if mean is None else mean, PIXEL_STD if std is None else std)
        self.size = size
        # Left out where they are SAM's own, as in checkpoints from before there was a choice.
        self._told = {name: [*given] for name, given in (("mean", mean), ("std", std)) if given is not None}
        for name, given, published in (("mean", mean, PIXEL_MEAN), ("std", std, PIXEL_STD)):
            numbers = torch.tensor(published) / 255 if given is None else torch.tensor([*given])
            self.register_buffer(name, numbers.view(3, 1, 1), persistent=False)

    def frame(self, source: Sequence[int]) -> Frame:
        """Where a picture of ``source`` = (height, width) lies in the input."""
        return pad_frame(source, self.size)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 size size"]:
        """Images in [0, 1], grey or RGB, to the encoder's input; padding is 0 after normalising.

        Resized bilinearly with antialiasing.

        Args:
            images: any sides.

        Returns:
            Normalised, in a square.
        """
        height, width = self.frame(images.shape[-2:]).content
        wide = images.to(accumulation_dtype(images))
        resized = functional.interpolate(wide, (height, width), mode="bilinear", align_corners=False, antialias=True)
        normalised = (resized.expand(-1, 3, -1, -1) - self.mean.to(wide.dtype)) / self.std.to(wide.dtype)
        return functional.pad(normalised, (0, self.size - width, 0, self.size - height))

    def restore(self, masks: Float[Tensor, "*batch low_h low_w"], frame: Frame) -> Float[Tensor, "*batch h w"]:
        """Low-resolution masks to the source's pixels: segment-anything's two bilinear steps, as one.

        Up to the full frame, the padding cut off, then to the source's size; the two steps' matrices are multiplied
        first, so that the full-frame mask is never made.

        Args:
            masks: logits or probabilities at a quarter of the frame's side.
            frame: from the same size of image that the policy prepared.

        Returns:
            The same on the source's pixels.
        """
        with torch.autocast(masks.device.type, enabled=False):
            rows, columns = (
                linear_weights(content, source, scale=source / content, like=masks)
                @ linear_weights(low, full, scale=full / low, like=masks)[:content]
                for source, content, full, low in zip(
                    frame.source, frame.content, frame.size, masks.shape[-2:], strict=True
                )
            )
        return apply_weights(masks, rows, columns)

    def settings(self) -> dict[str, Any]:
        """The policy as plain values."""
        return {"policy": "sam", "size": self.size, **self._told}


class TwiceNormalisedInput(SAMInput):
    """`SAMInput`, and the mean taken off and the result divided by the standard deviation once more, on 0-255 again.

    A slip of AutoSAM's published code, kept for weights that were trained with it: SAM sees an almost constant image.

    Example:
        >>> bool(TwiceNormalisedInput(64)(torch.rand(1, 1, 64, 64)).std(dim=(2, 3)).amax() < 0.05)
        True
    """

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 size size"]:
        """Images in [0, 1] to the encoder's input; padding too is normalised the second time.

        Args:
            images: any sides.

        Returns:
            Normalised twice, in a square.
        """
        once = super().forward(images)
        return (once - 255 * self.mean.to(once.dtype)) / (255 * self.std.to(once.dtype))

    def settings(self) -> dict[str, Any]:
        """The policy as plain values."""
        return {"policy": "sam twice", "size": self.size, **self._told}


class MedSAMInput(nn.Module):
    """MedSAM's input: stretched to ``size`` squared (bicubic), each image's own range to [0, 1], no padding.

    Ma et al., "Segment anything in medical images", Nature Communications 2024 (github.com/bowang-lab/MedSAM).

    Args:
        size: side of the square input, 1024 for the published model.

    Example:
        >>> prepared = MedSAMInput(64)(torch.rand(1, 1, 30, 50))
        >>> prepared.shape, prepared.amin().item(), prepared.amax().item()
        (torch.Size([1, 3, 64, 64]), 0.0, 1.0)
    """

    def __init__(self, size: int = 1024) -> None:
        super().__init__()
        self.size = size

    def frame(self, source: Sequence[int]) -> Frame:
        """Where a picture of ``source`` = (height, width) lies in the input."""
        return squash_frame(source, self.size)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 size size"]:
        """Images in [0, 1], grey or RGB, to the encoder's input; without contrast (range under 1e-4) near 0.

        Args:
            images: any sides.

        Returns:
            Normalised, in a square.
        """
        resized = functional.interpolate(
            images.to(accumulation_dtype(images)),
            (self.size, self.size),
            mode="bicubic",
            align_corners=False,
            antialias=True,
        )
        low, high = (reduce(resized, dim=(1, 2, 3), keepdim=True) for reduce in (torch.amin, torch.amax))
        return ((resized - low) / (high - low).clamp(min=1e-4)).expand(-1, 3, -1, -1)

    def restore(self, masks: Float[Tensor, "*batch low_h low_w"], frame: Frame) -> Float[Tensor, "*batch h w"]:
        """Low-resolution masks to the source's pixels in one bilinear step, as MedSAM does.

        Args:
            masks: logits or probabilities at a quarter of the frame's side.
            frame: from the same size of image that the policy prepared.

        Returns:
            The same on the source's pixels.
        """
        rows, columns = (
            linear_weights(low, source, scale=source / low, like=masks)
            for source, low in zip(frame.source, masks.shape[-2:], strict=True)
        )
        return apply_weights(masks, rows, columns)

    def settings(self) -> dict[str, Any]:
        """The policy as plain values."""
        return {"policy": "medsam", "size": self.size}
