"""Where things are when a volume is looked at as a whole, made smaller, and through windows at its own resolution.

Voxel indices are (z, y, x) from 0. A box is (z0, y0, x0, z1, y1, x1), its first and its last voxel. A window of a given
size is told by its first voxel, which lies before the volume where the volume is smaller than the window.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

Size3D = tuple[int, int, int]
Box3D = tuple[int, int, int, int, int, int]


def grid_position(position: Size3D, size: Size3D, grid: Size3D) -> Size3D:
    """The voxel of a grid over the whole volume that holds a voxel's centre.

    Args:
        position: a voxel of the volume.
        size: (slices, rows, columns) of the volume.
        grid: (slices, rows, columns) of the grid.

    Example:
        >>> grid_position((5, 0, 9), (10, 10, 10), (5, 20, 10))
        (2, 1, 9)
    """
    z, y, x = ((2 * index + 1) * cells // (2 * side) for index, side, cells in zip(position, size, grid, strict=True))
    return z, y, x


def grid_box(box: Box3D, size: Size3D, grid: Size3D) -> Box3D:
    """The voxels of a grid over the whole volume whose centre lies in the box; at least one.

    That is the box of the box's mask, resampled to the nearest voxel, as training sees it. A box between two centres
    becomes the voxel that holds its middle.

    Args:
        box: of the volume.
        size: (slices, rows, columns) of the volume.
        grid: (slices, rows, columns) of the grid.

    Example:
        >>> grid_box((2, 3, 4, 5, 3, 9), (10, 10, 10), (5, 5, 20))
        (1, 1, 8, 2, 1, 19)
    """
    low, high = [], []
    for first, last, side, cells in zip(box[:3], box[3:], size, grid, strict=True):
        start, stop = (-((side - 2 * edge * cells) // (2 * side)) for edge in (first, last + 1))
        if stop <= start:
            start = (first + last + 1) * cells // (2 * side)
            stop = start + 1
        low.append(start)
        high.append(stop - 1)
    return low[0], low[1], low[2], high[0], high[1], high[2]


def foreground_box(logits: Float[Tensor, "d h w"]) -> Box3D | None:
    """The box around the logits above 0; None where there are none.

    Example:
        >>> logits = torch.full((3, 4, 5), -1.0)
        >>> logits[1, 2:4, 3] = 1.0
        >>> foreground_box(logits)
        (1, 2, 3, 1, 3, 3)
    """
    depth, height, width = logits.shape
    return WindowBoxes(logits > 0).box((0, 0, 0, depth - 1, height - 1, width - 1))


class WindowBoxes:
    """Boxes around what of a mask lies in windows; windows in one row or column share the work.

    Args:
        mask: the object.
        start: the voxel of the volume at which the mask begins.

    Example:
        >>> mask = torch.zeros(4, 6, 6, dtype=torch.bool)
        >>> mask[1, 2, 3:5] = True
        >>> boxes = WindowBoxes(mask, (0, 10, 0))
        >>> boxes.box((0, 10, 4, 3, 15, 5)), boxes.box((2, 10, 0, 3, 15, 5))
        ((1, 12, 4, 1, 12, 4), None)
    """

    def __init__(self, mask: Bool[Tensor, "d h w"], start: Size3D = (0, 0, 0)) -> None:
        # The largest of bytes is found many times faster than whether any bit is set.
        self.bytes, self.start = mask.view(torch.uint8), start
        self._columns: dict[tuple[int, int], Tensor] = {}
        self._slices: dict[tuple[int, int], Tensor] = {}

    def box(self, part: Box3D) -> Box3D | None:
        """Around what lies in a part of the volume, in the volume's voxels; None where nothing does."""
        z, y, x = box_slices(part, self.start)
        along, across = (x.start, x.stop), (z.start, z.stop)
        if along not in self._columns:
            self._columns[along] = self.bytes[:, :, x].amax(2)
        side = self._columns[along][z, y]
        if not bool(side.any()):
            return None
        if across not in self._slices:
            self._slices[across] = self.bytes[z].amax(0)
        ends = [_ends(row) for row in (side.amax(1), side.amax(0), self._slices[across][y, x].amax(0))]
        (z0, z1), (y0, y1), (x0, x1) = ((a + first, b + first) for (a, b), first in zip(ends, part[:3], strict=True))
        return z0, y0, x0, z1, y1, x1


def _ends(row: Tensor) -> tuple[int, int]:
    found = row.nonzero()[:, 0]
    return int(found[0]), int(found[-1])


def volume_box(box: Box3D, grid: Size3D, size: Size3D, *, margin: int) -> Box3D:
    """All voxels of the volume that a box of a grid over it touches, and a margin around it.

    Args:
        box: of the grid.
        grid: (slices, rows, columns) of the grid.
        size: (slices, rows, columns) of the volume, at whose borders the result ends.
        margin: voxels of the grid on every side.

    Example:
        >>> volume_box((1, 1, 0, 2, 1, 0), (5, 5, 4), (10, 4, 4), margin=0)
        (2, 0, 0, 5, 1, 0)
    """
    low = [max((first - margin) * side // cells, 0) for first, side, cells in zip(box[:3], size, grid, strict=True)]
    high = [
        min(-(-(last + 1 + margin) * side // cells), side) - 1
        for last, side, cells in zip(box[3:], size, grid, strict=True)
    ]
    return low[0], low[1], low[2], high[0], high[1], high[2]


def joined(boxes: list[Box3D]) -> Box3D:
    """The smallest box around boxes.

    Example:
        >>> joined([(1, 2, 3, 4, 5, 6), (0, 3, 3, 2, 9, 3)])
        (0, 2, 3, 4, 9, 6)
    """
    low = [min(box[axis] for box in boxes) for axis in range(3)]
    high = [max(box[axis] for box in boxes) for axis in range(3, 6)]
    return low[0], low[1], low[2], high[0], high[1], high[2]


def inside_box(position: Size3D, box: Box3D) -> bool:
    """Whether a voxel lies in a box.

    Example:
        >>> inside_box((1, 2, 3), (1, 2, 3, 1, 2, 3)), inside_box((0, 2, 3), (1, 2, 3, 1, 2, 3))
        (True, False)
    """
    return all(first <= index <= last for index, first, last in zip(position, box[:3], box[3:], strict=True))


def window_starts(region: Box3D, size: Size3D, window: Size3D, *, overlap: float) -> tuple[Size3D, ...]:
    """The first voxels of windows that cover a region.

    On each axis windows follow one another at ``(1 - overlap)`` of their length, the last ends where the region does.
    A region that is shorter than a window lies in the middle of one, which is moved into the volume; a volume that is
    shorter lies in the middle of a window that is filled up.

    Args:
        region: what is covered.
        size: (slices, rows, columns) of the volume.
        window: (slices, rows, columns) of a window.
        overlap: of neighbours, in [0, 1).

    Example:
        >>> window_starts((0, 2, 0, 0, 9, 9), (1, 10, 10), (3, 4, 8), overlap=0.5)
        ((-1, 2, 0), (-1, 2, 2), (-1, 4, 0), (-1, 4, 2), (-1, 6, 0), (-1, 6, 2))
    """
    starts = []
    for first, last, side, length in zip(region[:3], region[3:], size, window, strict=True):
        if side <= length:
            starts.append([-((length - side) // 2)])
        elif last - first < length:
            middle = first - (length - (last - first + 1)) // 2
            starts.append([min(max(middle, 0), side - length)])
        else:
            step = max(1, round(length * (1 - overlap)))
            end = last + 1 - length
            starts.append([*range(first, end, step), end])
    return tuple((z, y, x) for z, y, x in product(*starts))


def window_box(start: Size3D, size: Size3D, window: Size3D) -> Box3D:
    """What of the volume lies in a window.

    Example:
        >>> window_box((-1, 2, 0), (1, 10, 10), (3, 4, 8))
        (0, 2, 0, 0, 5, 7)
    """
    low = [max(first, 0) for first in start]
    high = [min(first + length, side) - 1 for first, length, side in zip(start, window, size, strict=True)]
    return low[0], low[1], low[2], high[0], high[1], high[2]


def box_slices(box: Box3D, start: Size3D = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """A box as slices of an array whose first voxel is ``start``.

    Example:
        >>> torch.zeros(4, 5, 6)[box_slices((1, 2, 3, 1, 3, 5))].shape
        torch.Size([1, 2, 3])
    """
    z, y, x = (slice(box[axis] - start[axis], box[axis + 3] + 1 - start[axis]) for axis in range(3))
    return z, y, x


def clipped(box: Box3D, start: Size3D, frame: Box3D) -> Box3D | None:
    """What of a box lies in a frame, counted from ``start``; None where nothing does.

    Example:
        >>> clipped((0, 0, 0, 5, 5, 5), (2, 2, -1), (2, 2, 0, 9, 9, 3))
        (0, 0, 1, 3, 3, 4)
    """
    low = [max(box[axis], frame[axis]) for axis in range(3)]
    high = [min(box[axis], frame[axis]) for axis in range(3, 6)]
    if any(last < first for first, last in zip(low, high, strict=True)):
        return None
    (z0, y0, x0), (z1, y1, x1) = ([at - first for at, first in zip(ends, start, strict=True)] for ends in (low, high))
    return z0, y0, x0, z1, y1, x1


def cut_window(volume: Float[Tensor, "1 d h w"], start: Size3D, window: Size3D) -> Float[Tensor, "1 1 _ _ _"]:
    """A window of the volume; 0 beyond its borders.

    Example:
        >>> cut_window(torch.ones(1, 1, 6, 6), (-1, 2, 0), (3, 4, 4)).sum().item()
        16.0
    """
    size = (int(volume.shape[1]), int(volume.shape[2]), int(volume.shape[3]))
    inside = window_box(start, size, window)
    padding: list[int] = []
    for axis in (2, 1, 0):
        padding += [inside[axis] - start[axis], start[axis] + window[axis] - 1 - inside[axis + 3]]
    return functional.pad(volume[0][box_slices(inside)], padding)[None, None]


def enlarged_part(logits: Float[Tensor, "d h w"], size: Size3D, part: Box3D) -> Float[Tensor, "_ _ _"]:
    """A box of a grid's logits, interpolated (trilinearly) to the volume: the rest of the volume is not made.

    A voxel has the same bits whichever box it is made in.

    Args:
        logits: of a grid over the whole volume.
        size: (slices, rows, columns) of the volume.
        part: the box of the volume that is wanted.

    Returns:
        Float32, in memory of its own.

    Example:
        >>> logits = torch.randn(3, 4, 5)
        >>> whole = torch.nn.functional.interpolate(logits[None, None], (9, 8, 7), mode="trilinear")[0, 0]
        >>> torch.allclose(enlarged_part(logits, (9, 8, 7), (2, 0, 3, 5, 7, 6)), whole[2:6, :, 3:], atol=1e-5)
        True
    """
    near, far, share = zip(*map(_between, logits.shape, size, box_slices(part)), strict=True)
    found = logits.float()
    for axis in (2, 1):
        weight = share[axis].to(found).view(-1, *[1] * (2 - axis))
        # Multiplied and added apart: fused, the bits would depend on where in memory a voxel lies.
        low, high = (found[(slice(None),) * axis + (index.to(found.device),)] for index in (near[axis], far[axis]))
        found = low.mul_(1 - weight).add_(high.mul_(weight))
    wanted = found.new_empty(len(near[0]), *found.shape[1:])
    # Slice by slice: nothing of the result's size is made besides.
    for plane, first, second, weight in zip(wanted, *(one[0].tolist() for one in (near, far, share)), strict=True):
        torch.mul(found[first], 1 - weight, out=plane)
        plane.add_(found[second] * weight)
    return wanted


def _between(cells: int, side: int, within: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Of voxels along an axis the two cells whose centres they lie between, and the second one's share."""
    place = (torch.arange(within.start, within.stop, dtype=torch.float64) + 0.5) * (cells / side) - 0.5
    place = place.clamp(0, cells - 1)
    near = place.long()
    return near, (near + 1).clamp(max=cells - 1), place - near
