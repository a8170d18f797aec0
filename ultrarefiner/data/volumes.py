"""Volumes slice by slice: every slice of a NIfTI file is a case, every patient one group."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.cases import Case, natural_key, subset_of
from ultrarefiner.data.nifti import NiftiHeader, read_header, read_voxels

_RANGE_TOLERANCE = 0.005  # of the range: rounding, not another range


@dataclass(frozen=True)
class VolumeFiles:
    """Where one volume lies on disk.

    Attributes:
        name: unique in its data set.
        image: the scan, a NIfTI file.
        mask: its true mask, lesion where it is above 0; None where nobody drew one: the masks of its slices are then
            empty, and `ultrarefiner.evaluation.evaluate_volumes` refuses it.
        other_mask: what a second annotator drew, or None.
        group: volumes of one group (a patient) never stand in two folds.
        label: "benign", "malignant", "normal", or "unknown" where the set does not say.
    """

    name: str
    image: Path
    mask: Path | None
    other_mask: Path | None
    group: str
    label: str = "unknown"


@dataclass(frozen=True)
class Volume:
    """One volume of a `VolumeSlices`, and which of its slices are cases.

    Attributes:
        files: its name, its group, and where it lies.
        shape: voxels along the stored axes.
        voxel_size: size of a voxel along them, in mm.
        axis: the stored axis that runs across the slices.
        slices: the numbers of its slices that are in the data set, ascending.
        cases: their indices in the data set.
        affine: from voxel indices to the scanner's coordinates, (4, 4).
    """

    files: VolumeFiles
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    axis: int
    slices: tuple[int, ...]
    cases: tuple[int, ...]
    affine: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name."""
        return self.files.name

    @property
    def group(self) -> str:
        """Its group."""
        return self.files.group

    @property
    def spacing(self) -> tuple[float, float]:
        """(row, column) size of a slice's pixel, in mm."""
        column, row = (size for axis, size in enumerate(self.voxel_size) if axis != self.axis)
        return row, column

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a slice."""
        width, height = (side for axis, side in enumerate(self.shape) if axis != self.axis)
        return height, width

    @property
    def voxel_ml(self) -> float:
        """What a voxel holds, in millilitres."""
        return float(np.prod(self.voxel_size)) / 1000

    def voxels(self, masks: Bool[Tensor, "n h w"]) -> Bool[np.ndarray, "x y z"]:
        """Masks of the slices, in the order of `slices`, as the volume is stored; other slices are empty.

        Args:
            masks: of the slices, on their pixels.

        Returns:
            A mask of the whole volume in the file's order of axes.
        """
        whole = np.zeros(self.shape, dtype=bool)
        # A view: what is written to it is written to the whole.
        np.moveaxis(whole, self.axis, 0)[list(self.slices)] = masks.numpy().transpose(0, 2, 1)
        return whole


class VolumeSlices(Dataset[Case]):
    """The slices of volumes as cases, "patient/slice_012", all slices of a patient in one group.

    A slice is shown as stored, not reoriented: for ``axis=2`` its columns run along the first stored axis and its rows
    along the second, which are the pixels of ``SimpleITK.GetArrayFromImage(...)[z]``. Headers are read at once, voxels
    when a slice is asked for. Only the last volume stays in memory, so go through the slices in order, or read all of
    them once (`FittedCases.fill`): shuffled slices decompress a volume each.

    Args:
        files: the volumes, in any order; they are put in natural order of their names.
        axis: the stored axis that runs across the slices, 0 to 2.
        intensity_range: the numbers that become 0 and 1; values outside by a rounding error are clipped. None takes
            the lowest and the highest of each volume; a volume of one value becomes 0.
        affine_tolerance: how far a corner of a mask may lie from its image's, in parts of the smallest side of a voxel;
            None does not compare, for sets whose masks have no geometry.
        unseen: whether the set is kept for testing alone.

    Raises:
        FileNotFoundError: a file is not there.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: there is no volume, two have the same name, a file cannot be read or is not 3-D, a mask has
            another shape or lies elsewhere than its image, or an option is out of its range.

    Example:
        >>> import tempfile, nibabel
        >>> scan = Path(tempfile.mkdtemp()) / "p1.nii.gz"
        >>> affine = np.diag([0.5, 0.25, 1.0, 1.0])
        >>> nibabel.save(nibabel.Nifti1Image(np.full((6, 4, 2), 127, np.uint8), affine), scan)
        >>> dataset = VolumeSlices([VolumeFiles("p1", scan, None, None, "p1")], intensity_range=(0.0, 254.0))
        >>> dataset.names, dataset[0].image.shape, dataset[0].image.mean().item()
        (('p1/slice_000', 'p1/slice_001'), torch.Size([1, 4, 6]), 0.5)
        >>> dataset.volume(1).spacing
        (0.25, 0.5)
    """

    def __init__(
        self,
        files: Iterable[VolumeFiles],
        *,
        axis: int = 2,
        intensity_range: tuple[float, float] | None = None,
        affine_tolerance: float | None = 0.1,
        unseen: bool = False,
    ) -> None:
        self.files = tuple(sorted(files, key=lambda volume: natural_key(volume.name)))
        _check(self.files, axis, intensity_range)
        self.axis = axis
        self.intensity_range = intensity_range
        self.unseen = unseen
        self._headers = [_header(volume, affine_tolerance) for volume in self.files]
        self._places = tuple(
            (volume, number) for volume, header in enumerate(self._headers) for number in range(header.shape[axis])
        )
        self._last: tuple[int, _Voxels] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every slice, in order."""
        return tuple(f"{self.files[volume].name}/slice_{number:03d}" for volume, number in self._places)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every slice's volume, in order."""
        return tuple(self.files[volume].label for volume, _ in self._places)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every slice, in order: its patient."""
        return tuple(self.files[volume].group for volume, _ in self._places)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes of which a slice is in the data set, in order."""
        cases: dict[int, list[int]] = {}
        for case, (volume, _) in enumerate(self._places):
            cases.setdefault(volume, []).append(case)
        return tuple(self._volume(volume, members) for volume, members in cases.items())

    def volume(self, index: int) -> Volume:
        """The volume that a case is a slice of."""
        wanted = self._places[index][0]
        return self._volume(wanted, [case for case, (volume, _) in enumerate(self._places) if volume == wanted])

    def subset(self, names: Iterable[str]) -> VolumeSlices:
        """The slices of these names, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        places = tuple(subset_of(self._places, self.names, names))
        chosen = copy.copy(self)
        chosen._places = places
        return chosen

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Case:
        volume, number = self._places[index]
        files, voxels = self.files[volume], self._read(volume)
        low, high = voxels.range
        grey = (self._slice(voxels.image, number).astype(np.float64) - low) / (high - low)
        image = torch.from_numpy(np.clip(grey, 0.0, 1.0).astype(np.float32))[None]
        mask = torch.zeros_like(image) if voxels.mask is None else self._mask(voxels.mask, number)
        return Case(
            name=f"{files.name}/slice_{number:03d}",
            image=image,
            mask=mask,
            label=files.label,
            group=files.group,
            other_mask=None if voxels.other_mask is None else self._mask(voxels.other_mask, number),
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}  # a worker reads its own

    def _volume(self, volume: int, cases: Sequence[int]) -> Volume:
        header = self._headers[volume]
        return Volume(
            files=self.files[volume],
            shape=header.shape,
            voxel_size=header.spacing,
            axis=self.axis,
            slices=tuple(self._places[case][1] for case in cases),
            cases=tuple(cases),
            affine=header.affine,
        )

    def _read(self, volume: int) -> _Voxels:
        if self._last is None or self._last[0] != volume:
            self._last = None  # let go of one before the next is there
            self._last = volume, _voxels(self.files[volume], self.intensity_range)
        return self._last[1]

    def _slice(self, voxels: NDArray[Any], number: int) -> NDArray[Any]:
        across: NDArray[Any] = np.moveaxis(voxels, self.axis, 0)[number].T
        return across

    def _mask(self, voxels: NDArray[Any], number: int) -> Float[Tensor, "1 h w"]:
        return torch.from_numpy(self._slice(voxels, number).astype(np.float32))[None]


class _Voxels(NamedTuple):
    """One volume in memory; masks take one byte a voxel, the image what it takes on disk."""

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    other_mask: NDArray[np.bool_] | None
    range: tuple[float, float]


def _voxels(files: VolumeFiles, intensity_range: tuple[float, float] | None) -> _Voxels:
    image = read_voxels(files.image)
    mask, other = (None if path is None else read_voxels(path) > 0 for path in (files.mask, files.other_mask))
    lowest, highest = float(image.min()), float(image.max())
    if intensity_range is None:
        return _Voxels(image, mask, other, (lowest, highest if highest > lowest else lowest + 1))
    low, high = intensity_range
    room = _RANGE_TOLERANCE * (high - low)
    if lowest < low - room or highest > high + room:
        message = (
            f"{files.image} has intensities from {lowest:g} to {highest:g}, outside intensity_range ({low:g}, "
            f"{high:g}); give the range of the scanner, or None for each volume's own"
        )
        raise ValueError(message)
    return _Voxels(image, mask, other, (low, high))


def _header(files: VolumeFiles, tolerance: float | None) -> NiftiHeader:
    """Of the image, after its masks were found to lie on it."""
    header = read_header(files.image)
    for path in (files.mask, files.other_mask):
        if path is None:
            continue
        mask = read_header(path)
        if mask.shape != header.shape:
            message = (
                f"{path} has the shape {mask.shape}, but its image {files.image} has {header.shape}; a mask must lie "
                "on the voxels of its image: export it again, or leave the volume out"
            )
            raise ValueError(message)
        ends = [(0, side - 1) for side in header.shape]
        corners = np.stack([*(axis.ravel() for axis in np.meshgrid(*ends)), np.ones(8)])
        moved = np.linalg.norm(((mask.affine - header.affine) @ corners)[:3], axis=0).max()
        smallest = np.linalg.norm(header.affine[:3, :3], axis=0).min()
        if tolerance is not None and moved > tolerance * smallest:
            message = (
                f"{path} lies up to {moved:.4g} units of length from its image {files.image}, whose voxels have a side "
                f"of {smallest:.4g} (another affine); resample the mask onto its image, or, if only its header is "
                "wrong, pass affine_tolerance=None"
            )
            raise ValueError(message)
    return header


def _check(files: Sequence[VolumeFiles], axis: int, intensity_range: tuple[float, float] | None) -> None:
    if not files:
        message = "a data set needs at least one volume, none was given; check the folder"
        raise ValueError(message)
    name, count = Counter(volume.name for volume in files).most_common(1)[0]
    if count > 1:
        message = f"the names of volumes must be unique, but {count} are called {name!r}; give them a prefix"
        raise ValueError(message)
    if axis not in (0, 1, 2):
        message = f"axis must be 0, 1 or 2, got {axis}; slices across the last stored axis are those of axis=2"
        raise ValueError(message)
    if intensity_range is not None and not -np.inf < intensity_range[0] < intensity_range[1] < np.inf:
        message = (
            f"intensity_range must be two finite numbers, the lower first, got {intensity_range}; give (0, 255) for 8 "
            "bits, or None for each volume's own"
        )
        raise ValueError(message)
