"""A case is one image with its mask; a data set is a row of cases in an order that no file system decides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ultrarefiner.data.images import read_image, read_labels, read_mask, read_rgb

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies on disk.

    Attributes:
        name: unique in its data set.
        image: the image's file.
        masks: one file a lesion, or a single one; no file at all means that there is no lesion.
        label: "benign", "malignant", "normal", or "unknown" where the set does not say.
        group: cases of one group (a patient, near-duplicates) never stand in two folds.
        label_maps: whether the masks are label maps, one number an object, in which any number above 0 is lesion
            (`read_labels`); else they are black and white (`read_mask`).
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    label: str
    group: str
    label_maps: bool = False


@dataclass(frozen=True)
class Case:
    """One image with its mask, at the image's own resolution.

    Attributes:
        name: unique in its data set.
        image: in [0, 1], one channel (grey) or three (RGB).
        mask: 0 or 1; the union of all lesions, all zero where there is none.
        label: "benign", "malignant", "normal" or "unknown".
        group: what must stay together in a fold.
        other_mask: what a second annotator drew, 0 or 1; None where there is none.
    """

    name: str
    image: Float[Tensor, "c h w"]
    mask: Float[Tensor, "1 h w"]
    label: str
    group: str
    other_mask: Float[Tensor, "1 h w"] | None = None


@runtime_checkable
class Cases(Protocol):
    """What the rest of the library asks of a data set; `CaseDataset`, `VolumeSlices` and `Phantoms` have it."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name a case, unique, in the order of the cases."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One label a case."""

    @property
    def groups(self) -> tuple[str, ...]:
        """One group a case: what must stay together in a fold."""

    @property
    def unseen(self) -> bool:
        """Whether the set is kept for testing alone."""

    def subset(self, names: Iterable[str]) -> Cases:
        """The cases of these names, in this data set's own order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Case: ...


class CaseDataset(Dataset[Case]):
    """Cases read from disk, one by one, each time they are asked for.

    Args:
        files: the cases, in any order; they are put in natural order of their names ("benign (2)" before
            "benign (10)").
        colour: whether images are read with their colours, as three channels (`read_rgb`), or as one grey channel
            (`read_image`).
        unseen: whether the set is kept for testing alone: `group_folds` then refuses it.

    Raises:
        ValueError: there is no case, or two have the same name.

    Example:
        >>> files = [CaseFiles(f"b{i}", Path(f"b{i}.png"), (), "benign", f"patient {i}") for i in (10, 2)]
        >>> dataset = CaseDataset(files)
        >>> len(dataset), dataset.names, dataset.subset(["b10"]).groups
        (2, ('b2', 'b10'), ('patient 10',))
    """

    def __init__(self, files: Iterable[CaseFiles], *, colour: bool = False, unseen: bool = False) -> None:
        ordered = tuple(sorted(files, key=lambda case: natural_key(case.name)))
        if not ordered:
            message = "a data set needs at least one case, none was given; check the folder and the names to keep"
            raise ValueError(message)
        name, count = Counter(case.name for case in ordered).most_common(1)[0]
        if count > 1:
            message = (
                f"the names of cases must be unique, but {count} cases are called {name!r}; give them a prefix (`join`)"
            )
            raise ValueError(message)
        self.files = ordered
        self.colour = colour
        self.unseen = unseen

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case, in order."""
        return tuple(case.name for case in self.files)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every case, in order."""
        return tuple(case.label for case in self.files)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every case, in order: a patient, or near-duplicates."""
        return tuple(case.group for case in self.files)

    def subset(self, names: Iterable[str]) -> CaseDataset:
        """The cases of these names, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        chosen = subset_of(self.files, self.names, names)
        return CaseDataset(chosen, colour=self.colour, unseen=self.unseen)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Case:
        return load_case(self.files[index], colour=self.colour)


def load_case(files: CaseFiles, *, colour: bool = False) -> Case:
    """Read one case: its image, and the union of its masks.

    Args:
        files: where they lie.
        colour: whether the image is read as RGB, or as grey.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file cannot be read, or a mask has another size than its image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp()) / "normal.png"
        >>> Image.new("L", (4, 3), 255).save(path)
        >>> case = load_case(CaseFiles("normal", path, (), "normal", "patient 1"))
        >>> case.image.mean().item(), case.mask.sum().item()
        (1.0, 0.0)
    """
    image = read_rgb(files.image) if colour else read_image(files.image)
    mask = torch.zeros_like(image[:1])
    for path in files.masks:
        lesion = read_labels(path) if files.label_maps else read_mask(path)
        if lesion.shape != mask.shape:
            message = (
                f"{path} has the size (height, width) {tuple(lesion.shape[-2:])}, but its image "
                f"{files.image} has "
                f"{tuple(image.shape[-2:])}; a mask must lie on the pixels of its image: export it again, or "
                "leave the case out"
            )
            raise ValueError(message)
        mask = torch.maximum(mask, lesion)
    return Case(name=files.name, image=image, mask=mask, label=files.label, group=files.group)


def join(sets: Mapping[str, CaseDataset]) -> CaseDataset:
    """Several data sets as one; names and groups get the set's key as a prefix, so that none collide.

    Args:
        sets: the data sets, each under a short key.

    Returns:
        All cases, called "key/name" in groups "key/group"; unseen if one of the sets is.

    Raises:
        ValueError: some sets are read in colour and some in grey.

    Example:
        >>> one = CaseDataset([CaseFiles("1", Path("1.png"), (), "benign", "p1")])
        >>> join({"bus": one, "uc": one}).names
        ('bus/1', 'uc/1')
    """
    colours = {dataset.colour for dataset in sets.values()}
    if len(colours) > 1:
        coloured = [key for key, dataset in sets.items() if dataset.colour]
        message = (
            f"sets must all be read in colour or all in grey to be joined, but of {', '.join(sets)} only "
            f"{', '.join(coloured)} are in colour; open all of them with the same colour"
        )
        raise ValueError(message)
    files = [
        replace(case, name=f"{key}/{case.name}", group=f"{key}/{case.group}")
        for key, dataset in sets.items()
        for case in dataset.files
    ]
    return CaseDataset(files, colour=True in colours, unseen=any(dataset.unseen for dataset in sets.values()))


def select_named(items: Sequence[_Item], names: Sequence[str], wanted: Iterable[str]) -> list[_Item]:
    """The items whose name is wanted, in their own order.

    Raises:
        ValueError: a wanted name is not among the names.
    """
    chosen = set(wanted)
    missing = sorted(chosen - set(names), key=natural_key)
    if missing:
        message = (
            f"{len(missing)} of the {len(chosen)} wanted names are not in the data set, the first is "
            f"{missing[0]!r}; "
            "the names must come from this data set (its `names`)"
        )
        raise ValueError(message)
    return [item for item, name in zip(items, names, strict=True) if name in chosen]


def subset_of(items: Sequence[_Item], names: Sequence[str], wanted: Iterable[str]) -> list[_Item]:
    """`select_named` of what a data set is made of, of which something must be left.

    Raises:
        ValueError: a wanted name is not among the names, or none is wanted.
    """
    chosen = select_named(items, names, wanted)
    if not chosen:
        message = "a subset needs at least one name, none was given; check the names to keep"
        raise ValueError(message)
    return chosen


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """A sorting key that puts 2 before 10: runs of digits compare as numbers.

    Example:
        >>> sorted(["b10", "b2", "a"], key=natural_key)
        ['a', 'b2', 'b10']
    """
    parts = re.split(r"([0-9]+)", name)
    numbered = tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
    return (*numbered, (-1, name))
