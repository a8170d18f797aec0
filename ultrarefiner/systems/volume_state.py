"""What a `VolumeSegmenter` keeps of a volume, so that nothing is encoded twice; and what it may be told about one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from torch import Tensor

from ultrarefiner.systems.click_rounds import ClickMemory, ClickRound
from ultrarefiner.systems.volume_windows import Box3D, Size3D
from ultrarefiner.types import Clicks

Told = tuple[tuple[Size3D, bool], ...]
"""Clicks as plain numbers: each a voxel, and whether it lies in the object."""


@dataclass(frozen=True)
class WholeRound:
    """The whole volume after a click.

    Attributes:
        answer: on the grid of the network's input.
        region: where the object may be; None where nothing says that there is one.
        starts: of the windows over the region; empty where zooming in shows nothing more.
    """

    answer: ClickRound
    region: Box3D | None
    starts: tuple[Size3D, ...]


@dataclass
class SeenWindow:
    """A window, and what was last answered there.

    Attributes:
        embedding: of the window.
        key: the prompts of the last answer.
        logits: the last answer.
    """

    embedding: Tensor
    key: Any = None
    logits: Tensor | None = None


@dataclass
class VolumeState:
    """A volume that is being segmented; `VolumeSegmenter.start` makes it, and fills it while it works.

    Attributes:
        volume: as it came.
        embedding: of the whole, made smaller.
        text: an embedding, if the object was named.
        rounds: of the whole, by box and clicks.
        window_memory: of windows with clicks inside, by window, box and clicks.
        windows: by their first voxel, as many as fit into the cache.
        cached_bytes: of the windows.
    """

    volume: Tensor
    embedding: Tensor
    text: Tensor | None = None
    rounds: dict[tuple[Box3D | None, Told], WholeRound] = field(default_factory=dict)
    window_memory: dict[tuple[Size3D, Box3D | None, Told], ClickMemory] = field(default_factory=dict)
    windows: dict[Size3D, SeenWindow] = field(default_factory=dict)
    cached_bytes: int = 0

    @property
    def size(self) -> Size3D:
        """(slices, rows, columns) of the volume."""
        depth, height, width = (int(side) for side in self.volume.shape[1:])
        return depth, height, width


def checked_volume(volume: Any) -> Tensor:
    """The volume, if it is one; its values are read wherever it lies.

    Raises:
        ValueError: another shape or dtype, no voxel, NaN, or values that are not in [0, 1].
    """
    if not isinstance(volume, Tensor) or volume.ndim != 4 or volume.shape[0] != 1 or not volume.numel():
        came = f"of the shape {tuple(volume.shape)}" if isinstance(volume, Tensor) else f"a {type(volume).__name__}"
        message = (
            f"volume must be (1, D, H, W) with at least one voxel, slices first, but it is {came}; add the channel "
            "with volume[None]."
        )
        raise ValueError(message)
    if not volume.is_floating_point():
        message = f"volume must be floating point in [0, 1], but its dtype is {volume.dtype}; normalise it."
        raise ValueError(message)
    low, high = (value.item() for value in volume.detach().aminmax())
    if low != low or high != high:
        message = "volume must not hold NaN, but it does; replace it by the value of the background (torch.nan_to_num)."
        raise ValueError(message)
    if low < -1e-3 or high > 1 + 1e-3:
        message = (
            f"volume must lie in [0, 1], but its values span [{low:.4g}, {high:.4g}]; normalise it as the network's "
            "training did, with ultrarefiner.data.normalise_foreground for SegVol."
        )
        raise ValueError(message)
    return volume


def checked_box(box: Any, size: Size3D) -> Box3D | None:
    """A box as plain numbers, or None.

    Raises:
        ValueError: it is no box, is empty, or leaves the volume.
    """
    if box is None:
        return None
    sides = _whole_numbers(box)
    fits = len(sides) == 6 and all(
        0 <= sides[axis] <= sides[axis + 3] < side for axis, side in enumerate(size) if len(sides) == 6
    )
    if not fits:
        message = (
            "box must be (z0, y0, x0, z1, y1, x1), whole numbers: the first and the last voxel inside, of a volume of "
            f"{size}, but it is {box}; the last is at most the size less 1."
        )
        raise ValueError(message)
    z0, y0, x0, z1, y1, x1 = sides
    return z0, y0, x0, z1, y1, x1


def checked_clicks(clicks: Clicks | None, size: Size3D) -> Told:
    """The valid clicks as plain numbers.

    Raises:
        ValueError: clicks into several volumes or of another number of axes, or one outside.
    """
    if clicks is None:
        return ()
    if clicks.positions.shape[0] != 1 or clicks.positions.shape[-1] != 3:
        message = (
            f"clicks must be into one volume, positions (1, n, 3), but theirs are {tuple(clicks.positions.shape)}; "
            "segment one volume at a time."
        )
        raise ValueError(message)
    told = []
    rows = zip(clicks.positions[0].tolist(), clicks.positive[0].tolist(), clicks.valid[0].tolist(), strict=True)
    for (z, y, x), positive, valid in rows:
        if not valid:
            continue
        if not all(0 <= index < side for index, side in zip((z, y, x), size, strict=True)):
            message = (
                f"clicks must lie inside the volume, (z, y, x) from 0 to size - 1 with size {size}, but one is at "
                f"{(z, y, x)}; it counts voxels, not millimetres."
            )
            raise ValueError(message)
        told.append(((z, y, x), bool(positive)))
    return tuple(told)


def _whole_numbers(values: Any) -> list[int]:
    plain = values.flatten().tolist() if isinstance(values, Tensor) else values
    if not isinstance(plain, Sequence) or isinstance(plain, str) or not all(isinstance(one, Integral) for one in plain):
        return []
    return [int(one) for one in plain]
