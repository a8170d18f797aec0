"""What a network sees of large volumes: patches drawn from seeds, straight from the disk, or the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.cases import select_named
from ultrarefiner.data.fitted_volumes import FittedVolume, VolumeBatch, collate_volumes
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.data.sparse_files import VolumeFolder
from ultrarefiner.data.sparse_labels import SparseLabels
from ultrarefiner.data.sparse_volumes import SparseVolume, SparseVolumes
from ultrarefiner.data.volume_intensity import VolumeCrop
from ultrarefiner.data.volume_patches import Size3D, VolumeView, pad_volume
from ultrarefiner.data.volumes import VolumeFiles


def sparse_patch_box(
    labels: SparseLabels, label: int, size: Size3D, generator: torch.Generator, *, positive: float = 0.75
) -> VolumeCrop:
    """`patch_start` without a dense mask: draw a patch around a voxel of a label, or around one that is not.

    Args:
        labels: of the volume.
        label: the object.
        size: (slices, rows, columns) of the patch.
        generator: for the draws.
        positive: the probability of a patch around the object, 0.75 for three to one.

    Returns:
        The patch, cut off where the volume is smaller than it.

    Raises:
        ValueError: positive is no probability, or a side is below 1.

    Example:
        >>> volume = torch.zeros(8, 8, 8, dtype=torch.int64)
        >>> volume[4, 4, 7] = 1
        >>> sparse_patch_box(SparseLabels.of(volume), 1, (2, 4, 4), torch.Generator(), positive=1.0).start
        (3, 2, 4)
    """
    if not 0 <= positive <= 1 or min(size) < 1:
        message = f"positive must be in [0, 1] and the sides of size at least 1, got {positive} and {size}."
        raise ValueError(message)
    count, (depth, height, width) = labels.counts().get(label, 0), labels.size
    wants_object = float(torch.rand((), generator=generator)) < positive
    if count == depth * height * width or (wants_object and count > 0):
        centre = labels.voxel_of(label, generator)
    else:
        centre = labels.voxel_outside(label, generator)
    bounds = []
    for middle, side, whole in zip(centre, size, labels.size, strict=True):
        start = min(max(middle - side // 2, 0), max(whole - side, 0))
        bounds.append((start, min(start + side, whole)))
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return VolumeCrop((z0, y0, x0), (z1, y1, x1), labels.size)


def sparse_view(
    volume: SparseVolume, organ: str, view: VolumeView, generator: torch.Generator
) -> tuple[Float[Tensor, "1 d h w"], Float[Tensor, "1 d h w"]]:
    """What a `VolumeView` shows of a volume on the disk, by the same rules; a patch reads nothing but itself.

    Around the object it is the very patch that `VolumeView` draws from the same generator. Around background the
    voxel in the middle is drawn in another way, and never from padding.

    Args:
        volume: one of `SparseVolumes`.
        organ: its object.
        view: size, and shares of whole volumes and of patches around the object.
        generator: for the draws.

    Returns:
        Image and the organ's mask, (1, d, h, w) each, of the view's size.

    Raises:
        ValueError: the volume has no such organ, or its file is damaged.
    """
    label = volume.label_of(organ)
    if float(torch.rand((), generator=generator)) < view.whole:
        image, mask = volume.whole(organ, view.size)
        if bool(mask.any()) or label not in volume.labels.labels:
            return image, mask
    box = sparse_patch_box(volume.labels, label, view.size, generator, positive=view.positive)
    image, mask = (pad_volume(one, view.size) for one in volume.part(organ, box))
    return image, mask


class SparseCases(Dataset[FittedVolume]):
    """What data sets of large volumes have in common: a case is an organ that a volume has.

    Args:
        volumes: the prepared volumes.
        organs: those to take; None takes all. Volumes without an organ are no cases of it.

    Attributes:
        cases: (index of the volume, organ) of every case, the organs of one volume one after the other.

    Raises:
        ValueError: an organ is not among those of the volumes, or no volume has any of them.
    """

    def __init__(self, volumes: SparseVolumes, organs: Iterable[str] | None = None) -> None:
        self.volumes = volumes
        chosen = select_named(volumes.organs, volumes.organs, volumes.organs if organs is None else tuple(organs))
        self.cases = tuple(
            (index, organ)
            for index, counts in enumerate(volumes.counts)
            for organ, count in zip(volumes.organs, counts, strict=True)
            if organ in chosen and count > 0
        )
        if not self.cases:
            message = (
                f"no volume has a voxel of {', '.join(chosen) or 'an organ, for none was given'}; check organs, and "
                "the numbers that were given to prepare_volumes."
            )
            raise ValueError(message)
        names = volumes.names
        self.case_names = tuple(f"{names[index]}/{organ}" for index, organ in self.cases)

    @property
    def files(self) -> tuple[VolumeFiles, ...]:
        """Where each case lies, the folder of its volume, and its group: training and validation must share none."""
        folder, groups = self.volumes.folder, self.volumes.groups
        places = {index: VolumeFolder.of(folder, self.volumes.names[index]) for index, _ in self.cases}
        return tuple(
            VolumeFiles(name, places[index].path, places[index].labels, None, groups[index])
            for name, (index, _) in zip(self.case_names, self.cases, strict=True)
        )

    def check_index(self, index: int) -> None:
        """Raise if there is no such case.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= index < len(self):
            message = f"index must be in 0 to {len(self) - 1}, got {index}; there are {len(self)}."
            raise IndexError(message)

    def __len__(self) -> int:
        return len(self.cases)

    def collate(self, cases: Sequence[FittedVolume]) -> VolumeBatch:
        """`collate_volumes`: how the loop stacks this data set's cases."""
        return collate_volumes(cases)


class SparseViews(SparseCases):
    """Views of large volumes to train on: foreground-aware patches and whole volumes, each drawn from a seed.

    Sample i is view number i of the seed: the same on any worker, in any batch, in a resumed run. Every round goes
    through all cases once, each round in another order. Let there be as many samples as the run sees, or more, and
    make an epoch a part of them (``train(…, epoch_size=…)``); the recipe's own ``view`` is then None.

    Args:
        volumes: the prepared volumes.
        view: what is shown of each; by default one whole volume to three patches, three patches around the object to
            one around background.
        organs: see `SparseCases`.
        samples: how many.
        seed: of views and orders.

    Attributes:
        names: the names of the cases behind the samples, in order: "volume/organ".

    Raises:
        ValueError: fewer than one sample, or what `SparseCases` refuses.

    Example:
        >>> import tempfile, nibabel, numpy as np
        >>> from pathlib import Path
        >>> from ultrarefiner.data.volume_preparation import nifti_pairs, prepare_volumes
        >>> root = Path(tempfile.mkdtemp())
        >>> values = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
        >>> nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / "p1.nii.gz")
        >>> nibabel.save(nibabel.Nifti1Image((values > 1).astype(np.uint8), np.eye(4)), root / "p1_mask.nii.gz")
        >>> _ = prepare_volumes(nifti_pairs(root, root, mask_suffix="_mask"), root / "prepared", progress=False)
        >>> views = SparseViews(SparseVolumes(root / "prepared"), VolumeView((4, 4, 4)), samples=100)
        >>> len(views), views[99].name, views[99].image.shape
        (100, 'p1/object', torch.Size([1, 4, 4, 4]))
    """

    def __init__(
        self,
        volumes: SparseVolumes,
        view: VolumeView,
        *,
        organs: Iterable[str] | None = None,
        samples: int = 100_000,
        seed: int = 0,
    ) -> None:
        super().__init__(volumes, organs)
        if samples < 1:
            message = f"samples must be at least 1, got {samples}; an epoch may be a part of them (epoch_size)."
            raise ValueError(message)
        self.fit = view
        self.samples = samples
        self.seed = seed
        self._orders: dict[int, list[int]] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the cases behind the samples, in order."""
        return tuple(self.case_names[self.case_of(index)] for index in range(self.samples))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers: how views are drawn."""
        return {"views": self.fit, "samples": self.samples, "seed": self.seed}

    def case_of(self, index: int) -> int:
        """Which case sample number ``index`` is a view of."""
        turn, place = divmod(index, len(self.cases))
        if turn not in self._orders:
            generator = torch.Generator().manual_seed(stable_seed("order of views", self.seed, turn))
            self._orders[turn] = torch.randperm(len(self.cases), generator=generator).tolist()
        return self._orders[turn][place]

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> FittedVolume:
        self.check_index(index)
        case = self.case_of(index)
        volume, organ = self.cases[case]
        generator = torch.Generator().manual_seed(stable_seed("view", self.seed, index))
        return FittedVolume(self.case_names[case], *sparse_view(self.volumes[volume], organ, self.fit, generator))


@dataclass(frozen=True)
class WholeVolume:
    """The whole of a volume at a size (`SparseVolume.whole`).

    Args:
        size: (slices, rows, columns).
    """

    size: Size3D


class SparseWholes(SparseCases):
    """Large volumes whole, at one size: to choose checkpoints with.

    Args:
        volumes: the prepared volumes.
        size: (slices, rows, columns) of all.
        organs: see `SparseCases`.
        keep_in_memory: keep what was read once: 4 bytes a voxel and volume, and one more a case.

    Attributes:
        names: the cases' names, in order: "volume/organ".

    Raises:
        ValueError: a side below 1, or what `SparseCases` refuses.
    """

    def __init__(
        self,
        volumes: SparseVolumes,
        size: Size3D,
        *,
        organs: Iterable[str] | None = None,
        keep_in_memory: bool = True,
    ) -> None:
        super().__init__(volumes, organs)
        if min(size) < 1:
            message = f"size must have sides of at least 1 voxel, got {size}."
            raise ValueError(message)
        self.fit = WholeVolume(size)
        self.names = self.case_names
        self._images: dict[int, Tensor] | None = {} if keep_in_memory else None
        self._masks: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> FittedVolume:
        self.check_index(index)
        number, organ = self.cases[index]
        if self._images is None:
            return FittedVolume(self.names[index], *self.volumes[number].whole(organ, self.fit.size))
        if index not in self._masks:
            with torch.inference_mode(False):  # what an evaluation reads first may be trained on later
                image, mask = self.volumes[number].whole(organ, self.fit.size)
                self._images.setdefault(number, image)
                self._masks[index] = mask.bool()
        image = self._images[number]
        return FittedVolume(self.names[index], image, self._masks[index].to(image.dtype))
