"""A volume with the mask of one object, and a volume with all its objects in one label map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.cases import select_named
from ultrarefiner.data.nifti import read_voxels
from ultrarefiner.data.volumes import VolumeFiles, VolumeSlices

Spacing3D = tuple[float, float, float]


@dataclass(frozen=True)
class VolumeCase:
    """One volume with the mask of one object, on the volume's own voxels.

    Attributes:
        name: unique in its data set.
        image: one channel, (slices, rows, columns), in the scanner's own numbers (`normalise_foreground`).
        mask: 0 or 1; all zero where the object is not there.
        spacing: (z, y, x) size of a voxel in mm, in the order of the image's axes.
        affine: from the indices (x, y, z, 1) of a voxel to the scanner's coordinates, (4, 4), as in NIfTI files.
        group: what must stay together in a fold: a patient, or a scan.
        organ: the name of the object; "" where nobody said.
    """

    name: str
    image: Float[Tensor, "1 d h w"]
    mask: Float[Tensor, "1 d h w"]
    spacing: Spacing3D
    affine: NDArray[np.float64] = field(repr=False, compare=False)
    group: str
    organ: str = ""


@dataclass(frozen=True)
class LabelledVolume:
    """One volume with all its organs.

    Attributes:
        name: unique in its data set.
        image: one channel, in the scanner's own numbers.
        labels: 0 for background, i + 1 for ``organs[i]``.
        organs: the names of the organs.
        spacing: (z, y, x) size of a voxel in mm.
        affine: from the indices (x, y, z, 1) of a voxel to the scanner's coordinates, (4, 4).
        group: what must stay together in a fold.
    """

    name: str
    image: Float[Tensor, "1 d h w"]
    labels: Int[Tensor, "d h w"]
    organs: tuple[str, ...]
    spacing: Spacing3D
    affine: NDArray[np.float64] = field(repr=False, compare=False)
    group: str

    def case(self, organ: str) -> VolumeCase:
        """The same volume with the mask of one organ, called "name/organ".

        Raises:
            ValueError: there is no such organ.
        """
        if organ not in self.organs:
            message = f"{self.name!r} has no organ {organ!r}; it must be one of {', '.join(self.organs)}."
            raise ValueError(message)
        mask = (self.labels == self.organs.index(organ) + 1).to(self.image.dtype)[None]
        return VolumeCase(
            f"{self.name}/{organ}", self.image, mask, self.spacing, self.affine, group=self.group, organ=organ
        )


@runtime_checkable
class LabelledVolumes(Protocol):
    """A data set of volumes in which all have the same organs; `OrganPhantoms` is one."""

    @property
    def organs(self) -> tuple[str, ...]:
        """The names of the organs of every volume."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every volume."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every volume."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledVolume: ...


class OrganCases(Dataset[VolumeCase]):
    """Every organ of every volume as a case of its own, the organs of one volume one after the other.

    The volumes that were asked for last stay in memory, so the other organs of one cost next to nothing. Each takes 12
    bytes a voxel, 4 for the image and 8 for the labels. Each worker of a loader has its own; none is sent to it.

    Args:
        volumes: the volumes with their label maps.
        organs: those to take; None takes all.
        keep: how many volumes stay in memory, whatever their number of organs.

    Attributes:
        organs: the names of those that were taken.

    Raises:
        ValueError: an organ is not among those of the volumes, or none was given, or keep is less than 1.

    Example:
        >>> from ultrarefiner.data.organ_phantoms import OrganPhantoms
        >>> cases = OrganCases(OrganPhantoms(2, size=(16, 32, 32)), organs=["tube", "round organ"])
        >>> len(cases), cases.names[1], cases.groups[1]
        (4, 'organ phantom 0/tube', 'organ phantom 0')
        >>> cases[1].image.shape, bool(cases[1].mask.any())
        (torch.Size([1, 16, 32, 32]), True)
    """

    def __init__(self, volumes: LabelledVolumes, *, organs: Iterable[str] | None = None, keep: int = 2) -> None:
        if keep < 1:
            message = f"keep must be at least 1 volume, got {keep}; the one that is read must be kept."
            raise ValueError(message)
        self.volumes = volumes
        self.keep = keep
        self.organs = tuple(
            select_named(volumes.organs, volumes.organs, volumes.organs if organs is None else tuple(organs))
        )
        if not self.organs:
            message = f"organs must name at least one of {', '.join(volumes.organs)}, but none was given."
            raise ValueError(message)
        self._places = tuple((volume, organ) for volume in range(len(volumes)) for organ in self.organs)
        self._kept: OrderedDict[int, LabelledVolume] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case, in order: "volume/organ"."""
        return tuple(f"{self.volumes.names[volume]}/{organ}" for volume, organ in self._places)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every case's volume, in order."""
        return tuple(self.volumes.groups[volume] for volume, _ in self._places)

    @property
    def volume_numbers(self) -> tuple[int, ...]:
        """The number of every case's volume, in order: cases with one number share their image."""
        return tuple(volume for volume, _ in self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> VolumeCase:
        number, organ = self._places[index]
        volume = self._kept.pop(number, None)
        if volume is None:
            with torch.inference_mode(False):  # what an evaluation reads first may be trained on later
                volume = self.volumes[number]
        self._kept[number] = volume
        while len(self._kept) > self.keep:
            self._kept.popitem(last=False)
        return volume.case(organ)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict()}  # a worker that is sent this makes its volumes itself


def load_volume(files: VolumeFiles, *, label: int | None = None, affine_tolerance: float | None = 0.1) -> VolumeCase:
    """Read one NIfTI volume with the mask of one object.

    The voxels are those of the file, nothing is reoriented or resampled: the last stored axis becomes the first of the
    tensors. A flipped or oblique affine stays what it is, and a mask that is written back
    (``write_mask(path, mask[0].bool().permute(2, 1, 0).numpy(), like=files.image)``) lies on the same voxels.

    Args:
        files: where image and mask lie; without a mask the case's is empty.
        label: the number of the object in a label map; None takes every voxel above 0.
        affine_tolerance: how far a corner of the mask may lie from its image's (`VolumeSlices`).

    Returns:
        Image and mask, (1, slices, rows, columns), with the size of a voxel in mm, in that order.

    Raises:
        FileNotFoundError: a file is not there.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: a file cannot be read, is not 3-D, has NaN, or the mask lies elsewhere than its image.

    Example:
        >>> import tempfile, nibabel
        >>> from pathlib import Path
        >>> scan = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([0.5, 0.25, 2.0, 1.0])), scan)
        >>> case = load_volume(VolumeFiles("p1", scan, None, None, "p1"))
        >>> case.image.shape, case.spacing
        (torch.Size([1, 2, 3, 4]), (2.0, 0.25, 0.5))
    """
    (volume,) = VolumeSlices([files], affine_tolerance=affine_tolerance).volumes  # it compares the headers
    x, y, z = volume.voxel_size
    image = _tensor(read_voxels(files.image))
    if files.mask is None:
        mask = torch.zeros_like(image)
    else:
        voxels = read_voxels(files.mask)
        mask = _tensor(voxels > 0 if label is None else voxels == label)
    return VolumeCase(files.name, image, mask, (z, y, x), volume.affine, group=files.group)


def _tensor(voxels: NDArray) -> Float[Tensor, "1 d h w"]:
    return torch.from_numpy(np.ascontiguousarray(voxels.transpose(2, 1, 0), dtype=np.float32))[None]
