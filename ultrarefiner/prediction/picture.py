"""A picture to predict: what a file, an array or a tensor says, as numbers in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.data.channels import in_channels

_DARK = 0.25


@dataclass(frozen=True)
class Picture:
    """One picture as it was read.

    Attributes:
        name: of the file without its ending; of one of several pictures in a file, with "_slice012" or "_frame012".
        image: in [0, 1], one channel (grey) or three (RGB).
        spacing: (row, column) size of a pixel in mm; None where the file does not say.
        notes: sentences on what was done to the numbers, or is odd about them.
    """

    name: str
    image: Float[Tensor, "c h w"]
    spacing: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[-2], self.image.shape[-1]


def as_image(image: Any, *, colour: bool = False) -> Float[Tensor, "c h w"]:
    r"""A tensor, an array or an open picture as an image in [0, 1].

    Whole numbers are divided by the largest that their type can hold (255, 65535); floating point must lie in [0, 1]
    already. Colours become their luminance :math:`0.299 R + 0.587 G + 0.114 B` unless they are wanted; what is
    transparent is laid over black.

    Args:
        image: a tensor (c, h, w) or (h, w); an array (h, w) or (h, w, c), or what NumPy makes one of, such as a Pillow
            picture. c is 1, 3 (RGB) or, of an array, 2 or 4 (the last is opacity).
        colour: whether to keep red, green and blue; a grey image then has three equal channels.

    Returns:
        float32, one channel, or three with ``colour``.

    Raises:
        ValueError: another shape or type, no pixel, or numbers outside [0, 1].

    Example:
        >>> as_image(np.full((2, 3), 51, np.uint8))
        tensor([[[0.2000, 0.2000, 0.2000],
                 [0.2000, 0.2000, 0.2000]]])
        >>> as_image(torch.rand(3, 4, 4)).shape, as_image(torch.rand(4, 4), colour=True).shape
        (torch.Size([1, 4, 4]), torch.Size([3, 4, 4]))
    """
    if isinstance(image, Tensor):
        stored = image.detach().cpu()
        stored = stored.movedim(0, -1) if stored.ndim == 3 else stored
        numbers = (stored.float() if stored.dtype in (torch.float16, torch.bfloat16) else stored).numpy()
        channels: tuple[int, ...] = (1, 3)
    else:
        numbers = np.asarray(image)
        channels = (1, 2, 3, 4)
    numbers = numbers[:, :, None] if numbers.ndim == 2 else numbers
    if numbers.ndim != 3 or numbers.shape[2] not in channels or numbers.size == 0:
        message = (
            "image must be a tensor (1 or 3, h, w), an array (h, w) or (h, w, 1 to 4), or a file's path, but its shape "
            f"is {tuple(np.shape(image))}; give one image at a time, its channels first in a tensor and last in an "
            "array."
        )
        raise ValueError(message)
    scaled = _unit(numbers)
    if scaled.shape[2] in (2, 4):
        scaled = scaled[:, :, :-1] * scaled[:, :, -1:]
    return in_channels(scaled, colour=colour)


def stretched(image: Float[Tensor, "c h w"], *, stretch: bool) -> tuple[Float[Tensor, "c h w"], tuple[str, ...]]:
    """A note on an image that uses little of its range; divided by its largest number where that is wanted.

    Ultrasound of 12 bits in a file of 16 is the common case: its largest number is 4095 of 65535, and a network sees
    black.

    Args:
        image: in [0, 1].
        stretch: whether to divide it by its largest number.

    Returns:
        The image, and the notes.

    Example:
        >>> stretched(torch.tensor([[[0.0, 0.0625]]]), stretch=True)
        (tensor([[[0., 1.]]]), ('divided by its largest number, 0.062 of the range',))
    """
    low, high = (float(number) for number in image.aminmax())
    if low == high:
        return image, (f"every pixel has the same value, {high:.3g} of the range",)
    if stretch:
        return image / high, (f"divided by its largest number, {high:.2g} of the range",)
    if high < _DARK:
        return image, (
            f"dark: its largest number is {high:.2g} of what the format can hold; stretch=True (--stretch) divides by "
            "it",
        )
    return image, ()


def _unit(numbers: np.ndarray) -> np.ndarray:
    """Numbers of any type in [0, 1], float32."""
    if numbers.dtype == bool:
        return numbers.astype(np.float32)
    if numbers.dtype in (np.uint8, np.uint16):
        return np.asarray(numbers.astype(np.float32) / np.float32(np.iinfo(numbers.dtype).max))
    floating = numbers.dtype.kind == "f"
    if not floating or not (np.isfinite(numbers).all() and numbers.min() >= -1e-3 and numbers.max() <= 1 + 1e-3):
        span = f"from {numbers.min()} to {numbers.max()}" if numbers.dtype.kind in "iuf" else "of no number"
        message = (
            f"image must be whole numbers of 8 or 16 bits without a sign, or floating point in [0, 1], but it is "
            f"{numbers.dtype} {span}; divide it by the largest value that it can have."
        )
        raise ValueError(message)
    unit: np.ndarray = np.clip(numbers, 0.0, 1.0).astype(np.float32)
    return unit
