"""The size of a pixel as a file gives it, if it can be one."""

from __future__ import annotations

import math
from typing import Any

Spacing = tuple[float, float]
"""(row, column) size of a pixel, in mm."""


def usable_spacing(stored: Any, source: str) -> tuple[Spacing | None, tuple[str, ...]]:
    """The size of a pixel if it is one, else none and a note.

    A mask needs no millimetres, so a file with a nonsensical size is segmented like one without: only its areas in mm²
    are left out. Where distances in mm are the result (`ultrarefiner.data`'s volumes) such a file is refused.

    Args:
        stored: what the file says of rows and columns.
        source: where it says so, named in the note.

    Returns:
        The size, or None where there are not two numbers above zero; and in that case the note.

    Example:
        >>> usable_spacing([0.2, 0.3], "PixelSpacing")
        ((0.2, 0.3), ())
        >>> usable_spacing([0, 0.3], "PixelSpacing")[1]
        ('no areas in mm²: PixelSpacing must be two sizes above 0 mm, but it is [0, 0.3]; ...',)
    """
    try:
        sides = [float(side) for side in stored]
    except (TypeError, ValueError):
        sides = []
    if len(sides) == 2 and all(math.isfinite(side) and side > 0 for side in sides):
        return (sides[0], sides[1]), ()
    shown = " ".join(str(stored).split())[:60]
    note = (
        f"no areas in mm²: {source} must be two sizes above 0 mm, but it is {shown}; export it again with its spacing"
    )
    return None, (note,)
