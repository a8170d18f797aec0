"""Synthetic volumes that look like CT, with several organs: so that everything in 3-D runs with no data at hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import Dataset

from ultrarefiner.data.cases import subset_of
from ultrarefiner.data.organ_drawing import ORGANS, draw_organs
from ultrarefiner.data.organ_imaging import scan_of
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.data.volume_cases import LabelledVolume, Spacing3D


class OrganPhantoms(Dataset[LabelledVolume]):
    r"""Volumes that look like CT of a body, drawn, each with a label map of five organs.

    A body of fat and muscle in air holds a lobed organ, a round and a small one, a tube that bends through the slices,
    and a neighbour that clings to the lobed organ. Organs that touch differ by no more than the noise (5 to 25 HU), and
    so do muscles that are no organ: the box of an organ does not tell which of what it holds is meant, a click does.
    The whole is warped smoothly, each organ has a texture of its own; then comes what a scanner adds: blur over the
    borders (partial volume), a smooth bias field, correlated noise. Half the volumes have thick slices, 1.5 to 4 times
    a pixel's side, and are blurred less across them.

    The organs are named for their shape: this is no anatomy. Case i of a seed is the same in every worker and process
    of the same torch version. One takes about 25 ms at 32 x 64 x 64. `OrganCases` makes one case an organ of them.

    Args:
        count: how many volumes.
        size: (slices, rows, columns).
        seed: another seed gives other volumes.

    Attributes:
        organs: "lobed organ", "neighbour", "round organ", "small organ" and "tube": labels 1 to 5.
        names: "organ phantom 0" and so on; "organ phantom 0 of seed 1" where the seed is not 0.
        groups: every volume is a group of its own.

    Raises:
        ValueError: the count is less than 1, or a side is under 16 voxels.

    Example:
        >>> phantoms = OrganPhantoms(3, size=(16, 32, 48), seed=1)
        >>> volume = phantoms[2]
        >>> volume.name, volume.image.shape, volume.labels.unique().tolist()
        ('organ phantom 2 of seed 1', torch.Size([1, 16, 32, 48]), [0, 1, 2, 3, 4, 5])
    """

    organs = ORGANS

    def __init__(self, count: int, *, size: tuple[int, int, int] = (32, 64, 64), seed: int = 0) -> None:
        if count < 1 or len(size) != 3 or min(size) < 16:
            message = (
                "organ phantoms need a count of at least 1 and three sides of at least 16 voxels, got "
                f"{count} of {size}; ask for more."
            )
            raise ValueError(message)
        self.size = size
        self.seed = seed
        self._indices = tuple(range(count))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every volume, in order."""
        return tuple(_name(self.seed, index) for index in self._indices)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every volume, in order: its own name."""
        return self.names

    def subset(self, names: Iterable[str]) -> OrganPhantoms:
        """The volumes of these names, unchanged, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        indices = subset_of(self._indices, self.names, names)
        chosen = OrganPhantoms(len(indices), size=self.size, seed=self.seed)
        chosen._indices = tuple(indices)
        return chosen

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> LabelledVolume:
        index = self._indices[position]
        generator = torch.Generator().manual_seed(stable_seed("organ phantom", self.seed, index))
        spacing = _draw_spacing(generator)
        labels, density = draw_organs(self.size, generator)
        image = scan_of(density, generator, thickness=spacing[0] / spacing[2])
        name = _name(self.seed, index)
        affine = np.diag([*reversed(spacing), 1.0])
        return LabelledVolume(name, image, labels, ORGANS, spacing, affine, group=name)


def _draw_spacing(generator: torch.Generator) -> Spacing3D:
    pixel, thick, factor = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    side = round(0.7 + 0.8 * pixel, 2)
    slice_side = round(side * (1.5 + 2.5 * factor), 2) if thick < 0.5 else side
    return slice_side, side, side


def _name(seed: int, index: int) -> str:
    return f"organ phantom {index}" if seed == 0 else f"organ phantom {index} of seed {seed}"
