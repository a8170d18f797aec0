"""Synthetic breast ultrasound: cases with a known mask, so that everything runs with no data at hand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.cases import Case, subset_of
from ultrarefiner.data.phantom_imaging import speckle_image
from ultrarefiner.data.phantom_tissue import draw_tissue
from ultrarefiner.data.seeds import stable_seed


class Phantoms(Dataset[Case]):
    r"""Images that look like breast ultrasound, drawn, each with the mask of its one or two lesions.

    Tissue is a map of echo strength: skin, fat with dark lobules, gland, muscle, in layers with wavy borders.
    A lesion has a random smooth contour, is darker than what it lies in, sometimes hardly, and has a soft
    border of random width; "malignant" ones have a rougher contour, are rather tall and cast a shadow,
    "benign" ones are smooth, wide and sometimes brighten what lies below. Shadows and dark structures that
    are no lesion are there too. The picture is then what a scanner makes of the map: scatterers of random
    phase, blurred by the beam, so that the envelope is true speckle (Rayleigh distributed, correlated,
    multiplicative), attenuated with depth, on a logarithmic scale.

    Case i of a seed is the same in every worker and process of the same torch version, whatever was asked for
    before. One takes about 10 ms at 256 x 256.

    Args:
        count: how many cases.
        size: (height, width) in pixels.
        seed: another seed gives other cases.

    Attributes:
        names: "phantom 0", "phantom 1" and so on; "phantom 0 of seed 1" where the seed is not 0.
        labels: "benign" or "malignant".
        groups: every case is a group of its own.
        unseen: False.

    Raises:
        ValueError: the count is less than 1, or a side is under 32 pixels.

    Example:
        >>> phantoms = Phantoms(3, size=(64, 96), seed=1)
        >>> case = phantoms[2]
        >>> case.name, case.image.shape, bool(case.mask.any())
        ('phantom 2 of seed 1', torch.Size([1, 64, 96]), True)

    References:
        On speckle: Wagner, Smith, Sandrik, Lopez: Statistics of speckle in ultrasound B-scans. IEEE
        Transactions on Sonics and Ultrasonics 30(3), 1983.
    """

    unseen = False

    def __init__(self, count: int, *, size: tuple[int, int] = (256, 256), seed: int = 0) -> None:
        if count < 1 or min(size) < 32:
            message = (
                f"phantoms need a count of at least 1 and sides of at least 32 pixels, got {count} of "
                f"{size}; ask for more"
            )
            raise ValueError(message)
        self.size = size
        self.seed = seed
        self._indices = tuple(range(count))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case, in order."""
        return tuple(_name(self.seed, index) for index in self._indices)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every case, in order."""
        return tuple(_label(self.seed, index) for index in self._indices)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every case, in order: its own name."""
        return self.names

    def subset(self, names: Iterable[str]) -> Phantoms:
        """The cases of these names, unchanged, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        indices = subset_of(self._indices, self.names, names)
        chosen = Phantoms(len(indices), size=self.size, seed=self.seed)
        chosen._indices = tuple(indices)
        return chosen

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Case:
        index = self._indices[position]
        generator = torch.Generator().manual_seed(stable_seed("phantom", self.seed, index))
        label = _label(self.seed, index)
        image, mask = draw_phantom(self.size, generator, malignant=label == "malignant")
        name = _name(self.seed, index)
        return Case(name=name, image=image, mask=mask, label=label, group=name)


def draw_phantom(
    size: tuple[int, int], generator: torch.Generator, *, malignant: bool
) -> tuple[Float[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
    """One phantom: its image in [0, 1] and its mask.

    Example:
        >>> image, mask = draw_phantom((64, 64), torch.Generator().manual_seed(3), malignant=False)
        >>> image.shape == mask.shape, bool(0 <= image.min() and image.max() <= 1)
        (True, True)
    """
    tissue = draw_tissue(size, generator, malignant=malignant)
    pixel = min(size) / 256
    sharpness, contrast, compound = torch.rand(3, generator=generator).tolist()
    image = speckle_image(
        tissue.echo - tissue.loss,
        generator,
        axial=(0.7 + 0.5 * sharpness) * pixel,
        lateral=(1.2 + 1.2 * sharpness) * pixel,
        looks=2 + round(2 * compound),
        dynamic_range=42 + 18 * contrast,
    )
    return image[None], tissue.mask[None]


def _name(seed: int, index: int) -> str:
    return f"phantom {index}" if seed == 0 else f"phantom {index} of seed {seed}"


def _label(seed: int, index: int) -> str:
    return "malignant" if stable_seed("label", seed, index) % 3 == 0 else "benign"
