"""Answers of overlapping windows as one: their mean, of which a click makes anew what it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int16
from torch import Tensor

from ultrarefiner.systems.click_rounds import on_grid
from ultrarefiner.systems.kept_parts import KeptParts
from ultrarefiner.systems.volume_windows import Box3D, Size3D, box_slices, clipped, joined, window_box

Progress = Callable[[int, int], None]
"""Called with how many windows are done, and how many there are."""

_NAME = ("blend",)


@dataclass(frozen=True)
class Blend:
    """The sum of windows' answers, and of how many.

    Attributes:
        names: what each window was told, by its first voxel.
        frame: the box around all windows.
        total: the sum.
        votes: how many answered.
    """

    names: Mapping[Size3D, object]
    frame: Box3D
    total: Float[Tensor, "d h w"]
    votes: Int16[Tensor, "d h w"]


def blend_windows(
    kept: KeptParts,
    logits: Float[Tensor, "d h w"],
    names: Mapping[Size3D, object],
    grid: Size3D,
    *,
    prepare: Callable[[list[Size3D]], None],
    answer: Callable[[Size3D], Tensor | None],
    progress: Progress | None = None,
) -> None:
    """Replace logits by the mean of windows' answers where there are any, in place.

    If the same windows were blended before, the sum is made anew only in the box around those that have another name
    now, from all that reach into it, in their order: the bits are those of a blend from scratch.

    Args:
        kept: where the sum is, if there is room.
        logits: of the whole, on the volume's voxels.
        names: of the windows, by their first voxel: an answer is its name's alone.
        grid: (slices, rows, columns) of a window.
        prepare: called with the windows that will be asked.
        answer: a window's logits, (1, 1, ...) of its grid or coarser; None where it does not answer.
        progress: called after each window, those that are as before first.
    """
    size = (int(logits.shape[0]), int(logits.shape[1]), int(logits.shape[2]))
    parts = {start: window_box(start, size, grid) for start in names}
    frame = joined(list(parts.values()))
    before: Blend | None = kept.drop(_NAME)  # what fails halfway must not be found again
    if before is None or list(before.names) != list(names):
        shape = [frame[axis + 3] - frame[axis] + 1 for axis in range(3)]
        before = Blend({}, frame, logits.new_zeros(shape), logits.new_zeros(shape, dtype=torch.int16))
    changed = [
        part for start, part in parts.items() if start not in before.names or before.names[start] != names[start]
    ]
    anew = joined(changed) if changed else None
    asked = [] if anew is None else [start for start, part in parts.items() if clipped(part, (0, 0, 0), anew)]
    prepare(asked)
    done = _counted(progress, len(names))
    for _ in range(len(names) - len(asked)):
        done()
    if anew is not None:
        _sum_anew(before, anew, asked, size, grid, answer, done)
    _write_mean(logits[box_slices(frame)], before)
    kept.keep(_NAME, Blend(dict(names), frame, before.total, before.votes))


def _sum_anew(
    blend: Blend,
    anew: Box3D,
    asked: Sequence[Size3D],
    size: Size3D,
    grid: Size3D,
    answer: Callable[[Size3D], Tensor | None],
    done: Callable[[], None],
) -> None:
    corner = (blend.frame[0], blend.frame[1], blend.frame[2])
    blend.total[box_slices(anew, corner)] = 0
    blend.votes[box_slices(anew, corner)] = 0
    for start in asked:
        low = answer(start)
        shared = clipped(window_box(start, size, grid), (0, 0, 0), anew)
        if low is not None and shared is not None:
            here = on_grid(low, grid)[0, 0][box_slices(shared, start)]
            blend.total[box_slices(shared, corner)].add_(here.to(blend.total))
            blend.votes[box_slices(shared, corner)].add_(1)
        done()


def _write_mean(logits: Tensor, blend: Blend) -> None:
    # Slice by slice: nothing of the volume's size is made besides.
    for plane, total, votes in zip(logits, blend.total, blend.votes, strict=True):
        torch.where(votes > 0, total / votes.clamp(min=1), plane, out=plane)


def _counted(progress: Progress | None, number: int) -> Callable[[], None]:
    """What is called after each window."""
    counts = iter(range(1, number + 1))

    def tell() -> None:
        if progress is not None:
            progress(next(counts), number)

    return tell
