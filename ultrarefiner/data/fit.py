"""Fit pictures of any shape into a square, and masks back onto the pixels they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
        image: in [0, 1], grey or RGB; right of and below the content it is `PADDING_GREY` in all channels.
        mask: 0 or 1.
        content_size: (height, width) that the picture covers in the frame, from the top left corner.
        original_size: (height, width) of the picture on disk.
        other_mask: what a second annotator drew, 0 or 1; None where there is none.
        coarse_probability: a coarse network's soft mask, predicted or simulated; None where there is none.
        embedding: SAM's embedding of the image, where it was computed before; None where it was not.
    """

    name: str
    image: Float[Tensor, "c s s"]
    mask: Float[Tensor, "1 s s"]
    content_size: tuple[int, int]
    original_size: tuple[int, int]
    other_mask: Float[Tensor, "1 s s"] | None = None
    coarse_probability: Float[Tensor, "1 s s"] | None = None
    embedding: Float[Tensor, "d low_h low_w"] | None = None


@runtime_checkable
class Fit(Protocol):
    """A way into a square and back; `FitToSquare` and `StretchToSquare` are two."""

    @property
    def size(self) -> int:
        """The side of the square, in pixels."""

    def __call__(self, case: Case) -> FittedCase:
        """Fit the image and the masks of a case."""

    def content_size(self, original_size: Sequence[int]) -> tuple[int, int]:
        """(height, width) that a picture of this size covers in the square, from the top left corner."""

    def image(self, image: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """An image in the square.

        Args:
            image: one image or more, in [0, 1].

        Returns:
            Of the square's side s, in [0, 1].
        """

    def mask(self, mask: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """A mask in the square, 0 or 1.

        Args:
            mask: 0 or 1, or a probability.

        Returns:
            Of the square's side s, 0 or 1.
        """

    def restore(self, mask: Float[Tensor, "*batch s s"], original_size: Sequence[int]) -> Float[Tensor, "*batch h w"]:
        """Probabilities or logits in the square, back on the pixels of the picture.

        Args:
            mask: logits or probabilities in the square.
            original_size: (height, width) of the picture.

        Returns:
            The same on the picture's pixels; padding is cut off.
        """


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
        self.size = _checked(size)

    def __call__(self, case: Case) -> FittedCase:
        """Fit the image and the masks of a case."""
        return _fitted(self, case)

    def content_size(self, original_size: Sequence[int]) -> tuple[int, int]:
        """(height, width) that a picture of this size covers in the square; each at least 1."""
        height, width = pad_frame(original_size, self.size).content
        return max(1, height), max(1, width)

    def image(self, image: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """An image in the square, grey around it, by antialiased bilinear interpolation: values stay in their range.

        Args:
            image: one image or more, in [0, 1].

        Returns:
            Of the square's side s, in [0, 1].
        """
        content = self.content_size(image.shape[-2:])
        return _padded(_resize(image, content), self.size, PADDING_GREY)

    def mask(self, mask: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """A mask in the square: 1 where at least half is covered; a lesion under one pixel may vanish.

        Args:
            mask: 0 or 1, or a probability.

        Returns:
            Of the square's side s, 0 or 1.
        """
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
        _check_square(mask, self)
        height, width = self.content_size(original_size)
        return _resize(mask[..., :height, :width], (int(original_size[0]), int(original_size[1])))


class StretchToSquare:
    r"""Scale height and width each to a length, whatever becomes of the proportions, and undo exactly that.

    The whole square is content. Along each axis the map is :math:`x_{square} = x \cdot size / original` in pixel edges.
    Shrinking is antialiased, as in `FitToSquare`. TransUNet and MicroSegNet are trained on such images, at 224.

    Args:
        size: the side of the square, in pixels.

    Raises:
        ValueError: the size is less than 1.

    Example:
        >>> import torch
        >>> stretch = StretchToSquare(64)
        >>> stretch.content_size((300, 500))
        (64, 64)
        >>> square = stretch.mask(torch.ones(1, 300, 500))
        >>> square.sum().item(), stretch.restore(square, (300, 500)).shape
        (4096.0, torch.Size([1, 300, 500]))

    References:
        Chen et al., "TransUNet", arXiv 2102.04306; Jiang et al., "MicroSegNet", arXiv 2305.19956.
    """

    def __init__(self, size: int) -> None:
        self.size = _checked(size)

    def __call__(self, case: Case) -> FittedCase:
        """Stretch the image and the masks of a case."""
        return _fitted(self, case)

    def content_size(self, original_size: Sequence[int]) -> tuple[int, int]:  # noqa: ARG002 - as in `Fit`
        """The square's own (height, width)."""
        return self.size, self.size

    def image(self, image: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """An image in the square, by antialiased bilinear interpolation: values stay in their range.

        Args:
            image: one image or more, in [0, 1].

        Returns:
            Of the square's side s, in [0, 1].
        """
        return _resize(image, (self.size, self.size))

    def mask(self, mask: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c s s"]:
        """A mask in the square: 1 where at least half is covered; a lesion under one pixel may vanish.

        Args:
            mask: 0 or 1, or a probability.

        Returns:
            Of the square's side s, 0 or 1.
        """
        return (_resize(mask, (self.size, self.size)) >= 0.5).to(mask.dtype)

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
        _check_square(mask, self)
        return _resize(mask, (int(original_size[0]), int(original_size[1])))


def as_fit(size: int | Fit) -> Fit:
    """`FitToSquare` for a side in pixels; a fit as it is.

    Example:
        >>> as_fit(64).content_size((300, 500)), as_fit(StretchToSquare(64)).content_size((300, 500))
        ((38, 64), (64, 64))
    """
    return FitToSquare(size) if isinstance(size, int) else size


def _fitted(fit: Fit, case: Case) -> FittedCase:
    original = (case.image.shape[-2], case.image.shape[-1])
    return FittedCase(
        name=case.name,
        image=fit.image(case.image),
        mask=fit.mask(case.mask),
        content_size=fit.content_size(original),
        original_size=original,
        other_mask=None if case.other_mask is None else fit.mask(case.other_mask),
    )


def _checked(size: int) -> int:
    if size < 1:
        message = f"size must be at least 1 pixel, got {size}; give the side of the network's input, for example 256"
        raise ValueError(message)
    return size


def _check_square(mask: Tensor, fit: Fit) -> None:
    if tuple(mask.shape[-2:]) != (fit.size, fit.size):
        message = (
            f"mask must have the size of the square, ({fit.size}, {fit.size}), got {tuple(mask.shape[-2:])}; "
            f"restore what the network made of the fitted image, with the same {type(fit).__name__}"
        )
        raise ValueError(message)


def _padded(picture: Tensor, size: int, value: float) -> Tensor:
    return functional.pad(picture, (0, size - picture.shape[-1], 0, size - picture.shape[-2]), value=value)


def _resize(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(picture.shape[-2:]) == size:
        return picture.to(accumulation_dtype(picture))
    flat = picture.to(accumulation_dtype(picture)).reshape(-1, 1, *picture.shape[-2:])
    resized = functional.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*picture.shape[:-2], *size)
