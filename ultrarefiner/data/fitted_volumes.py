"""Volumes as a network is given them: on one scale, of one size, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.volume_cases import VolumeCase
from ultrarefiner.data.volume_intensity import normalise_foreground
from ultrarefiner.data.volume_patches import Size3D, resize_mask, resize_volume


@dataclass(frozen=True)
class FittedVolume:
    """A volume with one object, ready for a network.

    Attributes:
        name: the case's name.
        image: in [0, 1].
        mask: 0 or 1.
    """

    name: str
    image: Float[Tensor, "1 d h w"]
    mask: Float[Tensor, "1 d h w"]


class VolumeBatch(NamedTuple):
    """Fitted volumes, stacked; what recipes for volumes get in place of a `Batch`.

    Attributes:
        images: in [0, 1].
        masks: 0 or 1, one object a volume.
        names: the names of the cases.
        content_sizes: always None: nothing of a fitted volume is padding.
    """

    images: Float[Tensor, "b 1 d h w"]
    masks: Float[Tensor, "b 1 d h w"]
    names: tuple[str, ...]
    content_sizes: None = None


@runtime_checkable
class VolumeCases(Protocol):
    """A data set of volumes with one object each; `OrganCases` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> VolumeCase: ...


@dataclass(frozen=True)
class FitVolume:
    """`normalise_foreground`, then resample to a size: grey values trilinear, masks by their nearest voxel.

    Args:
        size: (slices, rows, columns); None leaves the volume's own.

    Example:
        >>> import numpy as np
        >>> case = VolumeCase("a", torch.rand(1, 9, 8, 8), torch.ones(1, 9, 8, 8), (1.0, 1.0, 1.0), np.eye(4), "a")
        >>> FitVolume((4, 8, 8))(case).image.shape
        torch.Size([1, 4, 8, 8])
    """

    size: Size3D | None

    def __call__(self, case: VolumeCase) -> FittedVolume:
        """Fit one case."""
        image, mask = normalise_foreground(case.image), case.mask
        if self.size is not None and tuple(image.shape[1:]) != tuple(self.size):
            image, mask = resize_volume(image, self.size), resize_mask(mask, self.size)
        return FittedVolume(case.name, image, mask)


class FittedVolumes(Dataset[FittedVolume]):
    """The volumes of a data set, fitted; `ultrarefiner.training.train` takes it.

    Args:
        dataset: the cases.
        size: (slices, rows, columns) of all; None leaves each volume its own, and then a batch needs volumes of one
            size, or holds one volume.
        keep_in_memory: keep what was read once: 5 bytes a voxel and case.

    Attributes:
        names: the cases' names, in order.

    Example:
        >>> from ultrarefiner.data.organ_phantoms import OrganPhantoms
        >>> from ultrarefiner.data.volume_cases import OrganCases
        >>> fitted = FittedVolumes(OrganCases(OrganPhantoms(1, size=(16, 32, 32)), organs=["tube"]), (16, 16, 16))
        >>> len(fitted), fitted[0].name, fitted[0].image.shape
        (1, 'organ phantom 0/tube', torch.Size([1, 16, 16, 16]))
    """

    def __init__(self, dataset: VolumeCases, size: Size3D | None, *, keep_in_memory: bool = True) -> None:
        self.dataset = dataset
        self.fit = FitVolume(size)
        self.names = dataset.names
        self._kept: dict[int, tuple[Tensor, Tensor]] | None = {} if keep_in_memory else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FittedVolume:
        if not 0 <= index < len(self):
            message = f"index must be in 0 to {len(self) - 1}, got {index}; the data set has {len(self)} cases."
            raise IndexError(message)
        if self._kept is None:
            return self.fit(self.dataset[index])
        if index not in self._kept:
            with torch.inference_mode(False):  # what an evaluation reads first may be trained on later
                fitted = self.fit(self.dataset[index])
                self._kept[index] = fitted.image, fitted.mask.bool()
        image, mask = self._kept[index]
        return FittedVolume(self.names[index], image, mask.to(image.dtype))

    def collate(self, cases: Sequence[FittedVolume]) -> VolumeBatch:
        """`collate_volumes`: how the loop stacks this data set's cases."""
        return collate_volumes(cases)


def collate_volumes(cases: Sequence[FittedVolume]) -> VolumeBatch:
    """Stack fitted volumes.

    Raises:
        ValueError: there is none, or they differ in size.

    Example:
        >>> volume = FittedVolume("a", torch.rand(1, 4, 8, 8), torch.ones(1, 4, 8, 8))
        >>> collate_volumes([volume, volume]).images.shape
        torch.Size([2, 1, 4, 8, 8])
    """
    sizes = {tuple(case.image.shape[1:]) for case in cases}
    if len(sizes) != 1:
        message = (
            f"a batch needs volumes of one size, got {sorted(sizes)}; fit them to one (FittedVolumes(..., size)), or "
            "take batches of one volume."
        )
        raise ValueError(message)
    return VolumeBatch(
        images=torch.stack([case.image for case in cases]),
        masks=torch.stack([case.mask for case in cases]),
        names=tuple(case.name for case in cases),
    )
