"""Images with boxes and no masks: a folder of pictures and a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ultrarefiner.data.cases import Case, CaseFiles, natural_key, select_named
from ultrarefiner.data.folder import pictures_in
from ultrarefiner.data.images import read_image
from ultrarefiner.data.tables import read_table

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Boxed:
    files: CaseFiles
    boxes: tuple[Box, ...]


class BoxTable(Dataset[Case]):
    r"""A folder of images and a CSV file with the columns case, x0, y0, x1, y1.

    A case is called as its image's file, without the ending. Coordinates are pixel edges of the image at its own size:
    x0 = 0 is its left border, x1 = its width the right one. An image without a row has no lesion. Several rows of one
    case are united: what trains on the tight box of that asks for the box around all of them.

    A case's mask is what its boxes cover, rounded to whole pixels: the tight box of that is the given box, which is all
    that `AutoMedSAMRecipe` asks. It is no segmentation: do not measure masks against it.

    Args:
        images: the folder.
        table: the CSV file.
        group: the group (patient) of a case, from its name; without it every case is a group of its own.
        unseen: whether the set is kept for testing alone.

    Raises:
        FileNotFoundError: the folder or the table is not there.
        ValueError: a row names no image, or its numbers are no box; while reading, a box outside of its image.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("L", (8, 6)).save(root / "a.png")
        >>> _ = (root / "boxes.csv").write_text("case,x0,y0,x1,y1\na,1,2,5,4\n")
        >>> BoxTable(root, root / "boxes.csv")[0].mask[0, :, 1:5].sum(1).tolist()
        [0.0, 0.0, 4.0, 4.0, 0.0, 0.0]
    """

    def __init__(
        self,
        images: str | Path,
        table: str | Path,
        *,
        group: Callable[[str], str] | None = None,
        unseen: bool = False,
    ) -> None:
        found: dict[str, Path] = {}
        for path in pictures_in(Path(images)):
            if path.stem in found:
                message = f"{path} and {found[path.stem].name} would be one case; rename one of them."
                raise ValueError(message)
            found[path.stem] = path
        boxes: dict[str, list[Box]] = {name: [] for name in found}
        for row in read_table(table, ["case", "x0", "y0", "x1", "y1"]):
            if row["case"] not in boxes:
                message = f"{table} has a box of {row['case']!r}, but {images} has no image of that name (no ending)."
                raise ValueError(message)
            boxes[row["case"]].append(_box(row, table))
        ordered = sorted(found, key=natural_key)
        self._cases = tuple(
            _Boxed(
                CaseFiles(name, found[name], (), "unknown", name if group is None else group(name)),
                tuple(boxes[name]),
            )
            for name in ordered
        )
        self.unseen = unseen

    @property
    def files(self) -> tuple[CaseFiles, ...]:
        """Where the images lie."""
        return tuple(case.files for case in self._cases)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every case, in order."""
        return tuple(case.files.name for case in self._cases)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of every case: "unknown"."""
        return tuple(case.files.label for case in self._cases)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every case, in order."""
        return tuple(case.files.group for case in self._cases)

    def subset(self, names: Iterable[str]) -> BoxTable:
        """The cases of these names, in this data set's own order.

        Raises:
            ValueError: a name is not in the data set.
        """
        chosen = BoxTable.__new__(BoxTable)
        chosen._cases = tuple(select_named(self._cases, self.names, names))
        chosen.unseen = self.unseen
        return chosen

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> Case:
        case = self._cases[index]
        image = read_image(case.files.image)
        mask, (height, width) = torch.zeros_like(image), image.shape[-2:]
        for box in case.boxes:
            left, top, right, bottom = (round(number) for number in box)
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                message = (
                    f"the box {box} of {case.files.name!r} must cover a pixel and lie inside its image of width "
                    f"{width} and height {height}; coordinates are pixel edges (x0, y0, x1, y1) of the image itself."
                )
                raise ValueError(message)
            mask[..., top:bottom, left:right] = 1
        return Case(case.files.name, image, mask, case.files.label, case.files.group)


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
