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

    It has no spacing: after a fit, distances in it count voxels of the fitted grid, not millimetres. Where a volume was
    resampled by another factor along each axis, or its slices are thick, one voxel is not the same length along each.

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

    Distances in it, such as those of `BoundaryLoss`, count voxels of the fitted grid, along each axis alike, not
    millimetres: a batch knows no spacing.

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


@runtime_checkable
class _SharedVolumes(VolumeCases, Protocol):
    """Cases of which some share their image, as those of `OrganCases` do."""

    @property
    def volume_numbers(self) -> tuple[int, ...]:
        """The number of every case's volume: where it is the same, so is the image."""


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
        return FittedVolume(case.name, self.fit_image(case.image), self.fit_mask(case.mask))

    def fit_image(self, image: Float[Tensor, "1 d h w"]) -> Float[Tensor, "1 _ _ _"]:
        """Fit an image alone, for all the objects in it.

        Args:
            image: a volume in [0, 1].

        Returns:
            The volume at the wanted size, in [0, 1].
        """
        image = normalise_foreground(image)
        if self.size is None or tuple(image.shape[1:]) == tuple(self.size):
            return image
        return resize_volume(image, self.size)

    def fit_mask(self, mask: Float[Tensor, "1 d h w"]) -> Float[Tensor, "1 _ _ _"]:
        """Fit a mask alone.

        Args:
            mask: 0 or 1.

        Returns:
            The mask at the wanted size, 0 or 1.
        """
        if self.size is None or tuple(mask.shape[1:]) == tuple(self.size):
            return mask
        return resize_mask(mask, self.size)


class FittedVolumes(Dataset[FittedVolume]):
    """The volumes of a data set, fitted; `ultrarefiner.training.train` takes it.

    Cases that share their image, as the organs of one volume in `OrganCases` do, share the fitted one too: it is
    normalised once, and kept once. Do not change a tensor of a case in place.

    Args:
        dataset: the cases.
        size: (slices, rows, columns) of all; None leaves each volume its own, and then a batch needs volumes of one
            size, or holds one volume.
        keep_in_memory: keep what was read once: 4 bytes a voxel and volume for the image, and 1 for the mask of each
            of its cases, of all of them as soon as one is read. Each volume is then made once, in whatever order cases
            are asked for. If False, only the last image is kept. Each worker of a loader has its own.

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
        self.keep_in_memory = keep_in_memory
        self._volumes = dataset.volume_numbers if isinstance(dataset, _SharedVolumes) else tuple(range(len(dataset)))
        self._images: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FittedVolume:
        if not 0 <= index < len(self):
            message = f"index must be in 0 to {len(self) - 1}, got {index}; the data set has {len(self)} cases."
            raise IndexError(message)
        with torch.inference_mode(False):  # what an evaluation reads first may be trained on later
            if not self.keep_in_memory:
                case = self.dataset[index]
                return FittedVolume(case.name, self._image(index, case), self.fit.fit_mask(case.mask))
            if index not in self._masks:
                self._keep(index)
        image = self._images[self._volumes[index]]
        return FittedVolume(self.names[index], image, self._masks[index].to(image.dtype))

    def _keep(self, index: int) -> None:
        """Keep a case and those that share its volume, while the volume is at hand."""
        number = self._volumes[index]
        for other in (index, *(place for place, one in enumerate(self._volumes) if one == number and place != index)):
            case = self.dataset[other]
            self._image(other, case)
            self._masks[other] = self.fit.fit_mask(case.mask).bool()

    def _image(self, index: int, case: VolumeCase) -> Float[Tensor, "1 d h w"]:
        """The fitted image of a case's volume."""
        number = self._volumes[index]
        image = self._images.get(number)
        if image is None:
            image = self.fit.fit_image(case.image)
            if not self.keep_in_memory:
                self._images.clear()
            self._images[number] = image
        return image

    def collate(self, cases: Sequence[FittedVolume]) -> VolumeBatch:
        """`collate_volumes`: how the loop stacks this data set's cases."""
        return collate_volumes(cases)


def collate_volumes(cases: Sequence[FittedVolume]) -> VolumeBatch:
    """Stack fitted volumes.

    Args:
        cases: of one size.

    Returns:
        The volumes' tensors on a leading dimension, in order.

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
