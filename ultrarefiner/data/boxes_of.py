"""Any cases with boxes from a table in the place of masks: pictures, or slices of volumes that nobody has outlined."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import Dataset

from ultrarefiner.data.cases import Case, CaseDataset, Cases
from ultrarefiner.data.images import picture_size
from ultrarefiner.data.tables import read_table

Box = tuple[float, float, float, float]
_SHOWN = 5  # of boxes that are wrong
_COORDINATES = "Coordinates are pixel edges (x0, y0, x1, y1) of the image itself, at its own size and the right way up."
_Boxes = TypeVar("_Boxes", bound="BoxesOf")


class BoxesOf(Dataset[Case]):
    r"""Cases whose masks are what the boxes of a CSV file with the columns case, x0, y0, x1, y1 cover.

    ``case`` is a case's name: "benign (1)" of a picture, "p1/slice_012" of a slice of `VolumeSlices`, which opens
    volumes without a mask (``VolumeFiles(…, mask=None, …)``). Masks that the cases have are not used.

    Coordinates are pixel edges of the image at its own size, for a slice as it is shown: x0 = 0 is its left border,
    x1 = its width the right one. A case without a row (``unboxed``) has no lesion, and what trains on it learns that
    there is none; where nobody looked, as perhaps at most slices of a volume, take ``subset(boxed)``.

    Several rows of one case are united, and what trains on the tight box of that asks for the box around all of them:
    `TightBoxLoss` then also asks for lesion in the rows and columns between two lesions, so that their true mask is
    dearer than the filled box. Where many cases have several lesions, leave those out or train on masks.

    Boxes of a `CaseDataset` are held against the sizes of their pictures at once, from the headers; those of other
    cases, such as slices of volumes, while reading.

    A case's mask is what its boxes cover, rounded to whole pixels: the tight box of that is the given box, which is all
    that `AutoMedSAMRecipe` asks. It is no segmentation: do not measure masks against it.

    Args:
        dataset: the cases.
        table: the CSV file.

    Attributes:
        boxed: the names of the cases that have a box, in order.
        unboxed: the names of the cases that have none, in order.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: a row names no case, its numbers are no box, or it lies outside of its image.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> from ultrarefiner.data.volumes import VolumeFiles, VolumeSlices
        >>> root = Path(tempfile.mkdtemp())
        >>> nibabel.save(nibabel.Nifti1Image(numpy.zeros((8, 6, 3), numpy.uint8), numpy.eye(4)), root / "p1.nii")
        >>> _ = (root / "boxes.csv").write_text("case,x0,y0,x1,y1\np1/slice_001,1,2,5,4\n")
        >>> slices = VolumeSlices([VolumeFiles("p1", root / "p1.nii", None, None, "p1")])
        >>> boxes = BoxesOf(slices, root / "boxes.csv")
        >>> boxes.boxed, boxes[1].mask[0, :, 1:5].sum(1).tolist()
        (('p1/slice_001',), [0.0, 0.0, 4.0, 4.0, 0.0, 0.0])
    """

    def __init__(self, dataset: Cases, table: str | Path) -> None:
        names = set(dataset.names)
        found: dict[str, list[Box]] = {}
        for row in read_table(table, ["case", "x0", "y0", "x1", "y1"]):
            if row["case"] not in names:
                message = (
                    f"{table} has a box of {row['case']!r}, but the data set has no image of that name; its first is "
                    f"{dataset.names[0]!r} (names of files stand without their ending)."
                )
                raise ValueError(message)
            found.setdefault(row["case"], []).append(_box(row, table))
        if isinstance(dataset, CaseDataset):
            _check_inside(dataset, found, table)
        self.dataset = dataset
        self._boxes = found

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case, in order."""
        return self.dataset.names

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every case, in order."""
        return self.dataset.labels

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every case, in order."""
        return self.dataset.groups

    @property
    def unseen(self) -> bool:
        """Whether the cases are kept for testing alone."""
        return self.dataset.unseen

    @property
    def boxed(self) -> tuple[str, ...]:
        """The names of the cases that have a box, in order."""
        return tuple(name for name in self.names if name in self._boxes)

    @property
    def unboxed(self) -> tuple[str, ...]:
        """The names of the cases that have no box, in order: each counts as an image without a lesion."""
        return tuple(name for name in self.names if name not in self._boxes)

    def subset(self: _Boxes, names: Iterable[str]) -> _Boxes:
        """The cases of these names, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        chosen = copy.copy(self)
        chosen.dataset = self.dataset.subset(names)
        return chosen

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Case:
        case = self.dataset[index]
        mask, (height, width) = torch.zeros_like(case.image[:1]), case.image.shape[-2:]
        for box in self._boxes.get(case.name, ()):
            wrong = _fault(case.name, box, height, width)
            if wrong:
                message = f"{wrong}. {_COORDINATES}"
                raise ValueError(message)
            left, top, right, bottom = _pixels(box)
            mask[..., top:bottom, left:right] = 1
        return replace(case, mask=mask, other_mask=None)


def _pixels(box: Box) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    return round(x0), round(y0), round(x1), round(y1)


def _fault(name: str, box: Box, height: int, width: int) -> str:
    """What is wrong with a box in its image; nothing where it covers a pixel, and none outside."""
    left, top, right, bottom = _pixels(box)
    if 0 <= left < right <= width and 0 <= top < bottom <= height:
        return ""
    return f"the box {box} of {name!r} must cover a pixel and lie inside its image of width {width} and height {height}"


def _check_inside(dataset: CaseDataset, boxes: dict[str, list[Box]], table: str | Path) -> None:
    """Raise if boxes do not fit the pictures; only the headers are read, of those that have boxes."""
    faults = []
    for case in dataset.files:
        if case.name in boxes:
            size = picture_size(case.image)
            faults += [_fault(case.name, box, *size) for box in boxes[case.name]]
    wrong = [fault for fault in faults if fault]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        message = f"{table} has {len(wrong)} boxes to correct: {'; '.join(wrong[:_SHOWN])}{more}. {_COORDINATES}"
        raise ValueError(message)


def _box(row: dict[str, str], table: str | Path) -> Box:
    try:
        x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    except ValueError as error:
        message = f"{table} must have numbers in x0, y0, x1, y1, but the row of {row['case']!r} has not ({error})."
        raise ValueError(message) from error
    if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
        message = (
            f"{table} must have 0 <= x0 < x1 and 0 <= y0 < y1, but the box of {row['case']!r} is {x0, y0, x1, y1}."
        )
        raise ValueError(message)
    return x0, y0, x1, y1
