"""Label maps of large volumes as runs of voxels: memory for the rows of the objects, not for the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from numpy.typing import NDArray
from torch import Tensor

from ultrarefiner.checkpoints.files import Location, replaced_file
from ultrarefiner.data.npz_members import read_members
from ultrarefiner.data.volume_intensity import VolumeCrop
from ultrarefiner.data.volume_patches import Size3D

_ARRAYS = ("size", "labels", "bounds", "starts", "lengths")
_LARGEST = 2**31 - 1  # of a label, and of a side


@dataclass(frozen=True, eq=False)
class SparseLabels:
    """A label map, stored as runs: voxels of one label, one after the other in a row.

    A run takes 12 bytes, and 8 more once voxels are drawn or counted. An object needs a run for each row that crosses
    it, one more where it is hollow: a ball of radius r voxels about :math:`3 r^2`, a full 300 x 512 x 512 volume 1.8
    MB. SegVol stores truths for the same reason as sparse matrices, one a class.

    Voxels are (z, y, x); boxes are `VolumeCrop` of this size.

    Args:
        size: (slices, rows, columns).
        labels: the numbers that occur, ascending, from 1; 0 is background and not stored.
        bounds: the runs of ``labels[i]`` are those from ``bounds[i]`` to ``bounds[i + 1]``.
        starts: each run's first voxel, counted through the volume, ascending within a label.
        lengths: each run's number of voxels.

    Raises:
        ValueError: the runs contradict themselves: out of order, outside of the volume, past the end of a row, or two
            over one voxel.

    Example:
        >>> labels = torch.zeros(4, 5, 6, dtype=torch.int64)
        >>> labels[1:3, 2, 1:5] = 2
        >>> sparse = SparseLabels.of(labels)
        >>> sparse.labels, sparse.counts(), len(sparse.starts), sparse.box_of(2).size
        ((2,), {2: 8}, 2, (2, 1, 4))
        >>> box = VolumeCrop((1, 2, 4), (2, 3, 6), sparse.size)
        >>> torch.equal(sparse.dense(), labels), sparse.dense(2, box=box).tolist()
        (True, [[[1, 0]]])

    References:
        Du, Bai, Huang, Zhao: SegVol: Universal and Interactive Volumetric Medical Image Segmentation. NeurIPS 2024.
    """

    size: Size3D
    labels: tuple[int, ...]
    bounds: NDArray[np.int64] = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.int32] = field(repr=False)

    def __post_init__(self) -> None:
        labels = np.array(self.labels, dtype=object)
        wrong = _contradiction(self.size, labels, self.bounds, self.starts, self.lengths)
        if wrong:
            message = f"the runs of a label map must fit together, but {wrong}; make them with SparseLabels.of."
            raise ValueError(message)
        for array in (self.bounds, self.starts, self.lengths):
            array.setflags(write=False)

    @classmethod
    def of(cls, labels: Integer[Tensor, "d h w"]) -> SparseLabels:
        """The runs of a label map; beside them one slice is in memory at a time.

        Args:
            labels: 0 for background, above for objects, any whole numbers.

        Returns:
            The map as runs, the same voxel for voxel.

        Raises:
            ValueError: the map is no whole numbers (d, h, w), a label is negative or above 2147483647, or there is no
                voxel.
        """
        whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
        if not whole or labels.ndim != 3:
            came = f"{labels.dtype} of {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            message = (
                f"labels must be a tensor (d, h, w) of whole numbers, but it is {came}; take one map of a batch, and "
                "convert it with .long() where no number is a fraction."
            )
            raise ValueError(message)
        depth, height, width = labels.shape
        runs = [_Runs.none()]
        for number in range(depth if height * width else 0):
            found = _Runs.of(labels[number].cpu().numpy())
            runs.append(found._replace(starts=found.starts + number * height * width))
        starts, lengths, values = (np.concatenate(parts) for parts in zip(*runs, strict=True))
        return _collected((depth, height, width), starts, lengths, values)

    @classmethod
    def load(cls, path: Location) -> SparseLabels:
        """Read what `save` wrote, with no trust in the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is truncated or damaged, holds something else, or its runs contradict themselves.
        """
        path = Path(path)
        found = read_members(path, _ARRAYS)
        wrong = next((f"{name} is missing" for name in _ARRAYS if name not in found), None) or next(
            (f"{name} holds no whole numbers" for name in _ARRAYS if not _is_whole(found[name])), None
        )
        if wrong:
            message = f"{path} must hold a label map as runs, but {wrong}; write it with SparseLabels.save."
            raise ValueError(message)
        size, labels = tuple(found["size"][:4].tolist()), found["labels"]
        bounds, starts, lengths = (found[name].astype(np.int64) for name in _ARRAYS[2:])
        # Before the lengths are narrowed, so that none is wrapped.
        wrong = _contradiction(size, labels, bounds, starts, lengths)
        if wrong:
            message = (
                f"{path} must hold runs of a label map that fit together, but {wrong}; it is damaged or was made by "
                "something else: make it again."
            )
            raise ValueError(message)
        return cls(size, tuple(labels.tolist()), bounds, starts, lengths.astype(np.int32))

    def save(self, path: Location) -> None:
        """Write an ".npz" of plain numbers, in one step; the same map gives the same bytes."""
        arrays: dict[str, Any] = {"bounds": self.bounds, "starts": self.starts, "lengths": self.lengths}
        with replaced_file(path, shared=True) as file:
            np.savez_compressed(
                file, size=np.array(self.size, np.int64), labels=np.array(self.labels, np.int64), **arrays
            )

    def dense(self, label: int | None = None, *, box: VolumeCrop | None = None) -> Integer[Tensor, "d h w"]:
        """The map as a tensor, or a box of it: nothing outside of the box is ever made.

        Args:
            label: only this one, as 1; all zero if it does not occur. None gives all, each as its own number.
            box: the voxels wanted; None for all.

        Returns:
            uint8 for one label, else int32; of the box's size.

        Raises:
            ValueError: the box belongs to a volume of another size, or the label is below 1.
        """
        if label is not None and label < 1:
            message = f"label must be at least 1, got {label}; background is what dense() leaves 0."
            raise ValueError(message)
        box = self._checked(box)
        depth, height, width = box.size
        kind = np.int32 if label is None else np.int8
        steps = np.zeros((depth * height, width + 1), dtype=kind)  # 1 where a run begins, -1 behind its end
        flat = steps.reshape(-1)
        for place, number in enumerate(self.labels):
            if label in (None, number):
                rows, first, stop = self._inside(place, box)
                value = number if label is None else 1
                flat[rows * (width + 1) + first] += value
                flat[rows * (width + 1) + stop] -= value
        np.cumsum(steps, axis=1, out=steps)
        found = np.ascontiguousarray(steps[:, :-1]).reshape(depth, height, width)
        return torch.from_numpy(found if label is None else found.view(np.uint8))

    def crop(self, box: VolumeCrop) -> SparseLabels:
        """The labels inside a box, as those of a volume of the box's size.

        Raises:
            ValueError: the box belongs to a volume of another size.
        """
        box = self._checked(box)
        parts = [self._inside(place, box) for place in range(len(self.labels))]
        values = np.repeat(np.array(self.labels, np.int64), [len(rows) for rows, _, _ in parts])
        empty = np.zeros(0, np.int64)
        rows, first, stop = (
            (np.concatenate([empty, *each]) for each in zip(*parts, strict=True)) if parts else [empty] * 3
        )
        return _collected(box.size, rows * box.size[2] + first, stop - first, values)

    def renumbered(self, numbers: Mapping[int, int]) -> SparseLabels:
        """The same voxels under other numbers.

        Args:
            numbers: new number of each old one; what is not named, or gets 0, becomes background. Several may get the
                same number.

        Raises:
            ValueError: a new number is negative or above 2147483647.

        Example:
            >>> sparse = SparseLabels.of(torch.tensor([[[0, 7, 3, 5]]]))
            >>> sparse.renumbered({7: 1, 5: 1}).dense().tolist()
            [[[0, 1, 0, 1]]]
        """
        new = np.array([numbers.get(label, 0) for label in self.labels], np.int64)
        values = np.repeat(new, np.diff(self.bounds))
        kept = values != 0
        return _collected(self.size, self.starts[kept], self.lengths[kept], values[kept])

    def counts(self) -> dict[int, int]:
        """Each label's number of voxels."""
        return dict(zip(self.labels, np.diff(self._before[self.bounds]).tolist(), strict=True))

    def box_of(self, label: int) -> VolumeCrop | None:
        """The smallest box around a label; None if it does not occur."""
        if label not in self.labels:
            return None
        rows, first, stop = self._inside(self.labels.index(label), self._checked(None))
        z, y = np.divmod(rows, self.size[1])
        z0, y0, x0 = int(z[0]), int(y.min()), int(first.min())
        return VolumeCrop((z0, y0, x0), (int(z[-1]) + 1, int(y.max()) + 1, int(stop.max())), self.size)

    def voxel_of(self, label: int, generator: torch.Generator) -> Size3D:
        """Draw a voxel of a label, each as likely as any other.

        Raises:
            ValueError: the label does not occur.
        """
        if label not in self.labels:
            known = ", ".join(map(str, self.labels[:20])) or "none"
            message = f"label must be one that occurs to draw a voxel of it, got {label}; those are: {known}."
            raise ValueError(message)
        first, stop = self._runs(label)
        low, high = self._before[first], self._before[stop]
        wanted = low + int(torch.randint(int(high - low), (), generator=generator))
        run = int(np.searchsorted(self._before, wanted, side="right")) - 1
        return self._indices(int(self.starts[run] + wanted - self._before[run]))

    def voxel_outside(self, label: int, generator: torch.Generator) -> Size3D:
        """Draw a voxel that is not of a label, each as likely as any other; voxels of other labels are among them.

        Raises:
            ValueError: all voxels are of the label.
        """
        first, stop = self._runs(label)
        within = self._before[first : stop + 1] - self._before[first]  # voxels of the label before each run
        free = int(np.prod(self.size, dtype=np.int64)) - int(within[-1])
        if free == 0:
            message = f"label must leave a voxel free to draw one outside of it, but all are of label {label}."
            raise ValueError(message)
        wanted = int(torch.randint(free, (), generator=generator))
        passed = int(np.searchsorted(self.starts[first:stop] - within[:-1], wanted, side="right"))
        return self._indices(wanted + int(within[passed]))

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """How many voxels all runs before each one have, and at the end all of them."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])

    def _runs(self, label: int) -> tuple[int, int]:
        if label not in self.labels:
            return 0, 0
        place = self.labels.index(label)
        return int(self.bounds[place]), int(self.bounds[place + 1])

    def _checked(self, box: VolumeCrop | None) -> VolumeCrop:
        if box is not None and box.shape != self.size:
            message = f"box must be one of a volume of the size {self.size}, but it is one of {box.shape}."
            raise ValueError(message)
        return VolumeCrop((0, 0, 0), self.size, self.size) if box is None else box

    def _inside(self, place: int, box: VolumeCrop) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What lies in a box of the runs of a label: row, first column and that behind the last, as the box counts."""
        _, height, width = self.size
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        runs = slice(int(self.bounds[place]), int(self.bounds[place + 1]))
        low, high = np.searchsorted(self.starts[runs], (z0 * height * width, z1 * height * width)).tolist()
        starts, lengths = self.starts[runs][low:high], self.lengths[runs][low:high]
        rows, first = np.divmod(starts, width)
        z, y = np.divmod(rows, height)
        stop = np.minimum(first + lengths, x1)
        first = np.maximum(first, x0)
        kept = (y >= y0) & (y < y1) & (first < stop)
        rows = (z[kept] - z0) * (y1 - y0) + y[kept] - y0
        return rows, first[kept] - x0, stop[kept] - x0

    def _indices(self, voxel: int) -> Size3D:
        z, rest = divmod(voxel, self.size[1] * self.size[2])
        y, x = divmod(rest, self.size[2])
        return z, y, x


class _Runs(NamedTuple):
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def none(cls) -> _Runs:
        return cls(*(np.zeros(0, np.int64) for _ in range(3)))

    @classmethod
    def of(cls, plane: NDArray[Any]) -> _Runs:
        """Of one slice: a run begins with every row, and where the label changes."""
        if plane.min() < 0 or plane.max() > _LARGEST:
            message = (
                f"labels must be 0 for background and at most {_LARGEST} for objects, got {plane.min()} to "
                f"{plane.max()}; give each object a number from 1."
            )
            raise ValueError(message)
        begins = np.ones(plane.shape, dtype=bool)
        np.not_equal(plane[:, 1:], plane[:, :-1], out=begins[:, 1:])
        starts = np.flatnonzero(begins)
        values = plane.reshape(-1)[starts].astype(np.int64)
        kept = values != 0
        return cls(starts[kept], np.diff(starts, append=plane.size)[kept], values[kept])


def _collected(
    size: Size3D, starts: NDArray[np.int64], lengths: NDArray[Any], values: NDArray[np.int64]
) -> SparseLabels:
    """Put runs in order, by label, then by place."""
    order = np.lexsort((starts, values))
    labels, bounds = np.unique(values[order], return_index=True)
    bounds = np.append(bounds, len(values)).astype(np.int64)
    return SparseLabels(size, tuple(labels.tolist()), bounds, starts[order], lengths[order].astype(np.int32))


def _is_whole(values: object) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu"


def _contradiction(
    size: tuple[int, ...],
    labels: NDArray[Any],
    bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[Any],
) -> str | None:
    """What is wrong with runs, as the rest of a sentence; sums are taken only of numbers known to be small."""
    if len(size) != 3 or not all(1 <= side <= _LARGEST for side in size) or np.prod(size, dtype=object) >= 2**62:
        return f"their volume's size is {size}, three sides of at least 1 are expected"
    if len(labels) and (labels[0] < 1 or labels[-1] > _LARGEST or bool((labels[1:] <= labels[:-1]).any())):
        return f"the labels are {labels[:8].tolist()}, ascending numbers from 1 are expected"
    runs = len(starts)
    if runs != len(lengths):
        return f"there are {runs} starts and {len(lengths)} lengths"
    ends = len(bounds) == len(labels) + 1 and bounds[0] == 0 and bounds[-1] == runs
    if not ends or bounds.min() < 0 or bounds.max() > runs or bool((np.diff(bounds) < 1).any()):
        return f"the bounds {bounds[:8].tolist()} do not share {runs} runs among {len(labels)} labels"
    width = size[2]
    if runs == 0:
        return None
    if starts.min() < 0 or starts.max() >= int(np.prod(size, dtype=np.int64)):
        return f"a run starts at voxel {starts.min()} or {starts.max()}, outside of the volume {size}"
    if lengths.min() < 1 or bool((starts % width > width - lengths).any()):
        return f"a run has no voxel or goes past the end of its row of {width} voxels"
    order = np.argsort(starts, kind="stable")
    if bool((starts[order][1:] < (starts + lengths)[order][:-1]).any()):
        return "two of them hold the same voxel"
    steps = np.diff(starts) > 0
    steps[bounds[1:-1] - 1] = True  # from one label to the next
    return None if bool(steps.all()) else "those of a label are not in ascending order"
