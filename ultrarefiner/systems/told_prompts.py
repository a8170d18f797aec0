"""A box, clicks and text, in 2-D and 3-D: checked in sentences, and as plain numbers where they mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ultrarefiner.types import Clicks

ToldBox = tuple[int, ...]
"""The first and then the last voxel of a box, in the order of the array's axes."""

ToldClicks = tuple[tuple[tuple[int, ...], bool], ...]
"""Clicks in their order: each a voxel, and whether it lies in the object."""

NOTHING_LOGIT = -20.0
"""The logit of every voxel where nobody has said yet what the object is: a probability of 2e-9."""


def told_box(box: Any, size: Sequence[int]) -> ToldBox | None:
    """A box as plain numbers, or None.

    Args:
        box: the first and then the last voxel inside, 2 d whole numbers (`whole_numbers`), or None.
        size: of the d axes of the volume or image.

    Raises:
        ValueError: it is no box, is empty, or leaves the volume.

    Example:
        >>> told_box(torch.tensor([0, 1, 4, 7]), (5, 8))
        (0, 1, 4, 7)
    """
    if box is None:
        return None
    sides, axes = whole_numbers(box), len(size)
    if len(sides) != 2 * axes or not all(
        0 <= first <= last < side for first, last, side in zip(sides[:axes], sides[axes:], size, strict=True)
    ):
        message = (
            f"box must be {2 * axes} whole numbers, the first and then the last voxel inside, of a size of "
            f"{tuple(size)}, but it is {_shown(box)}; the last is at most the size less 1."
        )
        raise ValueError(message)
    return sides


def told_voxel(position: Any, size: Sequence[int]) -> tuple[int, ...]:
    """A voxel's indices as plain numbers.

    Args:
        position: d whole numbers (`whole_numbers`).
        size: of the d axes of the volume or image.

    Raises:
        ValueError: it is no voxel, or lies outside.

    Example:
        >>> told_voxel(np.array([3, 4]), (5, 8))
        (3, 4)
    """
    voxel = whole_numbers(position)
    if len(voxel) != len(size) or not all(0 <= index < side for index, side in zip(voxel, size, strict=True)):
        message = (
            f"position must be {len(size)} whole numbers, a voxel from 0 to size - 1 of a size of {tuple(size)}, but "
            f"it is {_shown(position)}; it counts voxels, not millimetres."
        )
        raise ValueError(message)
    return voxel


def told_label(positive: Any) -> bool:
    """Whether a click lies in the object: True or False, Python's, NumPy's or PyTorch's, and nothing else.

    Labels are written as 1 and 0 here, as 1 and -1 or as words elsewhere, so numbers are not guessed at.

    Raises:
        ValueError: it is anything else.

    Example:
        >>> [told_label(positive) for positive in (True, np.bool_(False), torch.tensor(True))]
        [True, False, True]
    """
    plain = _plain(positive)
    if not isinstance(plain, bool):
        message = (
            f"positive must be True, for the object, or False, for what is not, but it is {_shown(positive)}; "
            "of a label write label == 1."
        )
        raise ValueError(message)
    return plain


def told_text(text: Any, width: int | None = None) -> Tensor | None:
    """The embedding of a text, or None.

    Args:
        text: (1, c), floating point, or None.
        width: c, where it is known.

    Raises:
        ValueError: another shape or dtype, or NaN or infinity, wherever it lies.

    Example:
        >>> told_text(torch.zeros(1, 8), 8).shape
        torch.Size([1, 8])
    """
    if text is None:
        return None
    shape = "c" if width is None else str(width)
    if (
        not isinstance(text, Tensor)
        or text.ndim != 2
        or text.shape[0] != 1
        or text.shape[1] != (text.shape[1] if width is None else width)
        or not text.is_floating_point()
    ):
        came = f"{text.dtype} of the shape {tuple(text.shape)}" if isinstance(text, Tensor) else _shown(text)
        message = (
            f"text must be the embedding of one text, (1, {shape}), floating point, but it is {came}; make it of words "
            "with the network's text encoder (SegVolTextEncoder.encode)."
        )
        raise ValueError(message)
    if not bool(torch.isfinite(text).all()):
        message = "text must hold numbers, but it holds NaN or infinity; look for them in the words' encoder."
        raise ValueError(message)
    return text


def told_clicks(clicks: Clicks | None, size: Sequence[int]) -> ToldClicks:
    """The valid clicks as plain numbers.

    Args:
        clicks: into one volume or image, or None.
        size: of its axes.

    Raises:
        ValueError: clicks into several volumes or of another number of axes, or one outside.

    Example:
        >>> told_clicks(Clicks.at([(3, 4)], positive=[True]), (5, 8))
        (((3, 4), True),)
    """
    if clicks is None:
        return ()
    if clicks.positions.shape[0] != 1 or clicks.positions.shape[-1] != len(size):
        message = (
            f"clicks must have positions (1, n, {len(size)}), into one volume or image of {len(size)} axes, but theirs "
            f"are {tuple(clicks.positions.shape)}; segment one at a time."
        )
        raise ValueError(message)
    rows = zip(clicks.positions[0].tolist(), clicks.positive[0].tolist(), clicks.valid[0].tolist(), strict=True)
    told = tuple((tuple(voxel), bool(positive)) for voxel, positive, valid in rows if valid)
    for voxel, _ in told:
        if not all(0 <= index < side for index, side in zip(voxel, size, strict=True)):
            message = (
                f"clicks must lie inside, from 0 to size - 1 with size {tuple(size)}, but one is at {voxel}; they "
                "count voxels in the order of the array's axes: (z, y, x) or (y, x)."
            )
            raise ValueError(message)
    return told


def first_on_object(told: ToldClicks) -> int | None:
    """How many clicks there are up to the first one on the object; None where all lie on the background.

    Example:
        >>> first_on_object((((0, 0), False), ((3, 4), True))), first_on_object((((0, 0), False),))
        (2, None)
    """
    return next((count for count, (_, positive) in enumerate(told, 1) if positive), None)


def clicks_of(told: ToldClicks, dimensions: int, *, device: torch.device) -> Clicks:
    """Plain numbers as `Clicks` again.

    Args:
        told: any number of clicks, none too.
        dimensions: of the volume or image.
        device: where to put them.

    Example:
        >>> clicks_of((), 2, device=torch.device("cpu")).positions.shape
        torch.Size([1, 0, 2])
    """
    if not told:
        return Clicks.none(1, dimensions, device=device)
    return Clicks.at([voxel for voxel, _ in told], positive=[positive for _, positive in told], device=device)


def whole_numbers(values: Any) -> tuple[int, ...]:
    """Whole numbers as Python's: of a list or tuple, an array or a tensor, row by row. Nothing of anything else.

    A float or a bool among them is something else, even 2.0 and True.

    Example:
        >>> whole_numbers(np.array([3, 4])), whole_numbers((torch.tensor(3), 4)), whole_numbers([3.0, 4.0])
        ((3, 4), (3, 4), ())
    """
    plain = values.flatten().tolist() if isinstance(values, (Tensor, np.ndarray)) else values
    if not isinstance(plain, Sequence) or isinstance(plain, (str, bytes)):
        return ()
    numbers = [_plain(one) for one in plain]
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in numbers):
        return ()
    return tuple(int(one) for one in numbers)


def _plain(value: Any) -> Any:
    """Python's own of a number of NumPy or a tensor or array of one."""
    if isinstance(value, np.generic) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0):
        return value.item()
    return value


def _shown(value: Any) -> str:
    """A value in a sentence; of a tensor or an array its dtype too."""
    if not isinstance(value, (Tensor, np.ndarray)):
        return f"{value!r:.80}"
    return f"{value.tolist()!r:.80} of {value.dtype}"
