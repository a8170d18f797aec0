"""Large volumes as `prepare_volumes` left them: a patch is read from the disk without the rest of its volume."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.data.cases import natural_key, subset_of
from ultrarefiner.data.sparse_files import KINDS, VolumeFolder, VolumeRecord, read_organs
from ultrarefiner.data.sparse_labels import SparseLabels
from ultrarefiner.data.volume_cases import Spacing3D, VolumeCase
from ultrarefiner.data.volume_intensity import VolumeCrop
from ultrarefiner.data.volume_patches import Size3D
from ultrarefiner.ops.resample import linear_weights, resize_linear


@dataclass(frozen=True, eq=False)
class SparseVolume:
    """One prepared volume: an image on the disk that looks like an array, and labels as runs.

    Attributes:
        name: unique in its data set.
        image: in [0, 1], (slices, rows, columns), mapped into memory: only what is asked for is read.
        labels: i + 1 for ``organs[i]``.
        organs: the names of the organs.
        spacing: (z, y, x) size of a voxel in mm.
        affine: from the indices (x, y, z, 1) of a voxel of the *file* to the scanner's coordinates.
        crop: where ``image`` lies in the file's voxels; ``crop.put_back`` brings an answer back.
        group: what must stay together in a fold.
    """

    name: str
    image: NDArray[Any] = field(repr=False)
    labels: SparseLabels
    organs: tuple[str, ...]
    spacing: Spacing3D
    affine: NDArray[np.float64] = field(repr=False)
    crop: VolumeCrop
    group: str

    def label_of(self, organ: str) -> int:
        """The organ's number in ``labels``.

        Raises:
            ValueError: there is no such organ.
        """
        if organ not in self.organs:
            message = f"{self.name!r} has no organ {organ!r}; it must be one of {', '.join(self.organs)}."
            raise ValueError(message)
        return self.organs.index(organ) + 1

    def part(self, organ: str, box: VolumeCrop) -> tuple[Float[Tensor, "1 d h w"], Float[Tensor, "1 d h w"]]:
        """Image and mask of an organ in a box; nothing outside of it is read.

        Raises:
            ValueError: no such organ, a box of a volume of another size, or the file has voxels that are no numbers.
        """
        mask = self.labels.dense(self.label_of(organ), box=box).float()[None]
        return self._read(*(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))[None], mask

    def whole(self, organ: str, size: Size3D) -> tuple[Float[Tensor, "1 _ _ _"], Float[Tensor, "1 _ _ _"]]:
        """Image and mask of an organ in the whole volume, resampled to a size.

        The values are those of `resize_volume` and `resize_mask`, but slices are read one at a time.

        Raises:
            ValueError: no such organ, or the file has voxels that are no numbers.
        """
        mask = self._small_mask(self.label_of(organ), size)
        depth, image = self.labels.size[0], torch.zeros(1, *size)
        weights = linear_weights(depth, size[0], scale=size[0] / depth, like=image, antialias=True)
        for number in range(depth):
            plane = self._read(slice(number, number + 1))
            small = resize_linear(plane, (1, *size[1:]))[0]
            for place in weights[:, number].nonzero()[:, 0].tolist():
                image[0, place] += weights[place, number] * small
        return image, mask

    def case(self, organ: str) -> VolumeCase:
        """The whole cropped volume in memory, called "name/organ", with the affine of its own voxels.

        Raises:
            ValueError: no such organ, or the file has voxels that are no numbers.
        """
        shift = np.eye(4)
        shift[:3, 3] = self.crop.start[::-1]
        image, mask = self.part(organ, VolumeCrop((0, 0, 0), self.labels.size, self.labels.size))
        affine = self.affine @ shift
        return VolumeCase(f"{self.name}/{organ}", image, mask, self.spacing, affine, group=self.group, organ=organ)

    def _small_mask(self, label: int, size: Size3D) -> Float[Tensor, "1 _ _ _"]:
        """The voxels that `resize_mask` picks, a slice at a time."""
        _, height, width = self.labels.size
        z, y, x = (_nearest(side, wanted) for side, wanted in zip(self.labels.size, size, strict=True))
        planes = []
        for number in z.tolist():
            box = VolumeCrop((number, 0, 0), (number + 1, height, width), self.labels.size)
            planes.append(self.labels.dense(label, box=box)[0][y][:, x])
        return torch.stack(planes).float()[None]

    def _read(self, *inside: slice) -> Tensor:
        values = np.array(self.image[inside], dtype=np.float32)
        if not np.isfinite(values).all():
            message = f"the image of {self.name!r} has voxels that are NaN or infinite; it is damaged: prepare it anew."
            raise ValueError(message)
        return torch.from_numpy(values)


class SparseVolumes(Dataset[SparseVolume]):
    """The volumes of a folder that `prepare_volumes` filled.

    What is known of each is read at once, labels and images when a volume is asked for.

    Args:
        folder: that of `prepare_volumes`.
        keep: of how many volumes the labels stay in memory, 12 to 20 bytes a row of an organ; each worker of a loader
            has its own.
        unseen: whether the set is kept for testing alone: `group_folds` then refuses it.

    Attributes:
        organs: the names of the organs.

    Raises:
        FileNotFoundError: there are no prepared volumes.
        ValueError: a file is damaged, or keep is less than 1.

    Example:
        >>> import tempfile, nibabel
        >>> from ultrarefiner.data.volume_preparation import nifti_pairs, prepare_volumes
        >>> root = Path(tempfile.mkdtemp())
        >>> values = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
        >>> nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / "p1.nii.gz")
        >>> nibabel.save(nibabel.Nifti1Image((values > 1).astype(np.uint8), np.eye(4)), root / "p1_mask.nii.gz")
        >>> _ = prepare_volumes(nifti_pairs(root, root, mask_suffix="_mask"), root / "prepared", progress=False)
        >>> volumes = SparseVolumes(root / "prepared")
        >>> image, mask = volumes[0].part("object", VolumeCrop((1, 2, 3), (3, 6, 7), volumes[0].labels.size))
        >>> volumes.names, volumes.organs, image.shape
        (('p1',), ('object',), torch.Size([1, 2, 4, 4]))
    """

    def __init__(self, folder: Location, *, keep: int = 32, unseen: bool = False) -> None:
        self.folder = Path(folder)
        if keep < 1:
            message = f"keep must be at least 1 volume, got {keep}; the one that is read must be kept."
            raise ValueError(message)
        self.keep = keep
        self.unseen = unseen
        self.organs = tuple(read_organs(self.folder))
        found = sorted(self.folder.glob("volumes/*/volume.json"), key=lambda path: natural_key(path.parent.name))
        if not found:
            message = f"{self.folder} has no prepared volume; call prepare_volumes, which goes on where it stopped."
            raise FileNotFoundError(message)
        self._records = tuple(self._record(path) for path in found)
        self._opened: OrderedDict[str, SparseVolume] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every volume, in natural order."""
        return tuple(record.name for record in self._records)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every volume."""
        return tuple(record.group for record in self._records)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every volume, such as "unknown"; `group_folds` spreads them evenly."""
        return tuple(record.label for record in self._records)

    @property
    def counts(self) -> tuple[tuple[int, ...], ...]:
        """Of every volume the number of voxels of each organ; no volume is read for it."""
        return tuple(record.counts for record in self._records)

    def subset(self, names: Iterable[str]) -> SparseVolumes:
        """The volumes of these names, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        records = tuple(subset_of(self._records, self.names, names))
        chosen = copy.copy(self)
        chosen._records, chosen._opened = records, OrderedDict()
        return chosen

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> SparseVolume:
        record = self._records[index]
        if record.name not in self._opened:
            self._opened[record.name] = self._open(record)
            if len(self._opened) > self.keep:
                self._opened.popitem(last=False)
        self._opened.move_to_end(record.name)
        return self._opened[record.name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": OrderedDict()}  # a worker maps the files itself

    def _record(self, path: Path) -> VolumeRecord:
        record = VolumeRecord.read(path)
        if VolumeFolder.of(self.folder, record.name).record != path or len(record.counts) != len(self.organs):
            message = (
                f"{path} must be of the volume that its folder is named for and count {len(self.organs)} organs, but "
                f"it is of {record.name!r:.80} and counts {len(record.counts)}; delete it and prepare them again."
            )
            raise ValueError(message)
        return record

    def _open(self, record: VolumeRecord) -> SparseVolume:
        place = VolumeFolder.of(self.folder, record.name)
        image, labels = _mapped(place.image), SparseLabels.load(place.labels)
        found = labels.counts()
        known = tuple(found.pop(number + 1, 0) for number in range(len(self.organs)))
        if tuple(image.shape) != record.crop.size or labels.size != record.crop.size or found or known != record.counts:
            message = (
                f"the files in {place.path} do not belong together: {record.crop.size} voxels and {record.counts} of "
                f"organs are expected, {tuple(image.shape)}, {labels.size} and {known} were found; delete the folder "
                "and prepare the volumes again."
            )
            raise ValueError(message)
        return SparseVolume(
            record.name, image, labels, self.organs, record.spacing, record.affine, record.crop, record.group
        )


def _mapped(path: Path) -> NDArray[Any]:
    """An array on the disk, with no trust in the file."""
    if not path.is_file():
        message = f"there is no file {path}; prepare the volumes again, which goes on with what is missing."
        raise FileNotFoundError(message)
    mode: Literal["r"] = "r"
    try:
        image = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, OSError, EOFError, TypeError, OverflowError, MemoryError, SyntaxError) as error:
        message = f"{path} cannot be mapped ({error!s:.200}); it is damaged: delete it and prepare the volumes again."
        raise ValueError(message) from error
    if not isinstance(image, np.memmap) or image.dtype not in KINDS or image.ndim != 3 or not image.flags.c_contiguous:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        message = f"{path} must hold {' or '.join(KINDS)} (slices, rows, columns), got {what}; prepare it again."
        raise ValueError(message)
    return image


def _nearest(side: int, wanted: int) -> Tensor:
    """Which voxels along an axis the nearest ones are."""
    places = torch.arange(side, dtype=torch.float32)[None, None]  # as exact as those of a mask
    return functional.interpolate(places, size=wanted, mode="nearest-exact")[0, 0].long()
