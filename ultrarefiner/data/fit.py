"""Fit pictures of any shape into a square, and masks back onto the pixels they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.data.cases import Case
from ultrarefiner.ops.coordinates import accumulation_dtype, pad_frame


@dataclass(frozen=True)
class FittedCase:
    """A case in a square frame.

    Attributes:
        name: the case's name.
        image: in [0, 1]; right of and below the content it is `PADDING_GREY`.
        mask: 0 or 1.
        content_size: (height, width) that the picture covers in the frame, from the top left corner.
        original_size: (height, width) of the picture on disk.
    """

    name: str
    image: Float[Tensor, "1 s s"]
    mask: Float[Tensor, "1 s s"]
    content_size: tuple[int, int]
    original_size: tuple[int, int]


PADDING_GREY = 0.449
"""Pads images: the mean of SAM's three mean colours over 255, near 0 after SAM's normalisation."""


class FitToSquare:
    r"""Scale the longest side to a length, pad right and below, and undo exactly that.

    Images are padded with SAM's mean colour as a grey, 0.449: SAM pads *after* normalising, with zeros, and black would
    reach it as -2.1. Masks are padded with 0.

    Along each axis the map is :math:`x_{frame} = x \cdot content / original` in pixel edges, the frame that
    SAM uses (`ultrarefiner.ops.pad_frame`). Shrinking averages over the pixels that are covered
    (antialiased), so that a speckled image loses noise and not detail.

    Args:
        size: the side of the square, in pixels.

    Raises:
        ValueError: the size is less than 1.

    Example:
        >>> import torch
        >>> fit = FitToSquare(64)
        >>> fit.content_size((300, 500))
        (38, 64)
        >>> square = fit.mask(torch.ones(1, 300, 500))
        >>> square.sum().item(), fit.restore(square, (300, 500)).shape
        (2432.0, torch.Size([1, 300, 500]))
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            message = (
                f"size must be at least 1 pixel, got {size}; give the side of the network's input, for example 256"
            )
            raise ValueError(message)
        self.size = size

    def __call__(self, case: Case) -> FittedCase:
        """Fit the image and the mask of a case."""
        original = (case.image.shape[-2], case.image.shape[-1])
        return FittedCase(
            name=case.name,
            image=self.image(case.image),
            mask=self.mask(case.mask),
            content_size=self.content_size(original),
            original_size=original,
        )

    def content_size(self, original_size: Sequence[int]) -> tuple[int, int]:
        """(height, width) that a picture of this size covers in the square; each at least 1."""
        height, width = pad_frame(original_size, self.size).content
        return max(1, height), max(1, width)

    def image(self, image: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """An image in the square, grey around it, by antialiased bilinear interpolation: values stay in their range."""
        content = self.content_size(image.shape[-2:])
        return _padded(_resize(image, content), self.size, PADDING_GREY)

    def mask(self, mask: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """A mask in the square: 1 where at least half is covered; a lesion under one pixel may vanish."""
        scaled = _resize(mask, self.content_size(mask.shape[-2:]))
        return _padded((scaled >= 0.5).to(mask.dtype), self.size, 0.0)

    def restore(self, mask: Float[Tensor, "*batch s s"], original_size: Sequence[int]) -> Float[Tensor, "*batch h w"]:
        """Bring probabilities or logits in the square back onto the pixels of the picture.

        Args:
            mask: of this square; leave it soft, and threshold the result.
            original_size: (height, width) of the picture.

        Returns:
            The mask on the picture's pixels, in float32 or wider, differentiable in the mask.

        Raises:
            ValueError: the mask has another size than the square.
        """
        if tuple(mask.shape[-2:]) != (self.size, self.size):
            message = (
                f"mask must have the size of the square, ({self.size}, {self.size}), got {tuple(mask.shape[-2:])}; "
                "restore what the network made of the fitted image, with the same FitToSquare"
            )
            raise ValueError(message)
        height, width = self.content_size(original_size)
        return _resize(mask[..., :height, :width], (int(original_size[0]), int(original_size[1])))


def _padded(picture: Tensor, size: int, value: float) -> Tensor:
    return functional.pad(picture, (0, size - picture.shape[-1], 0, size - picture.shape[-2]), value=value)


def _resize(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(picture.shape[-2:]) == size:
        return picture.to(accumulation_dtype(picture))
    flat = picture.to(accumulation_dtype(picture)).reshape(-1, 1, *picture.shape[-2:])
    resized = functional.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*picture.shape[:-2], *size)
