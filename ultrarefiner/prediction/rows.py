"""One row a picture: the table of predictions, written as they come, read again when a run goes on."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from ultrarefiner.checkpoints.files import replaced_file

_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files may hold bytes that are no text


@dataclass(frozen=True)
class PredictionRow:
    """One picture of a run; a column of ``predictions.csv`` each, empty for None.

    Attributes:
        name: of the picture; its masks are ``masks/<name>.png`` and ``coarse/<name>.png``.
        file: where it was read, absolute.
        height: of the picture, in pixels.
        width: likewise.
        coarse_pixels: area of the coarse mask.
        refined_pixels: area of the final mask.
        coarse_mm2: the same in mm2, where the file says the size of its pixels.
        refined_mm2: likewise.
        refined_share: the final mask's share of the picture, in [0, 1].
        coarse_refined_dice: Dice of the two masks; 1 where both are empty.
        sam_iou_estimate: SAM's own estimate of the IoU of the mask it proposed; 0 where nothing was asked of it.
        soft_dice_confidence: of the final mask, see `soft_dice_confidence`.
        accepted: False where the acceptance rule kept the coarse mask; None without a rule.
        coarse_empty: whether the coarse mask has no pixel.
        refined_empty: whether the final mask has none.
        note: what is odd about the picture; sentences separated by "; ".
        mask_file: of the final mask, below the folder of results: of a volume, all of its slices have the same one.
        bytes: size of the file when it was read.
        modified: its time of change, in nanoseconds.
        options: digest of model and options; a run that goes on takes over rows whose file and options are unchanged.
    """

    name: str
    file: str
    height: int
    width: int
    coarse_pixels: int
    refined_pixels: int
    coarse_mm2: float | None
    refined_mm2: float | None
    refined_share: float
    coarse_refined_dice: float
    sam_iou_estimate: float
    soft_dice_confidence: float
    accepted: bool | None
    coarse_empty: bool
    refined_empty: bool
    note: str
    mask_file: str
    bytes: int
    modified: int
    options: str


@dataclass(frozen=True)
class PredictionFailure:
    """What could not be predicted.

    Attributes:
        file: as given, or where it lies.
        reason: a sentence.
    """

    file: str
    reason: str


COLUMNS = tuple(field.name for field in fields(PredictionRow))
_KINDS = get_type_hints(PredictionRow)


def read_rows(path: str | Path) -> list[PredictionRow]:
    """The whole rows of a table; what a kill left unfinished at its end is passed over.

    Args:
        path: ``predictions.csv``; there need be none.

    Returns:
        The rows in the file's order; none where there is no file.

    Raises:
        ValueError: the file is there and is another table.

    Example:
        >>> read_rows("nowhere.csv")
        []
    """
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_bytes().decode(**_TEXT)
    whole = text[: text.rfind("\n") + 1]
    try:
        table = list(csv.reader(io.StringIO(whole, newline="")))
    except csv.Error as error:
        message = f"{path} is damaged ({error}); give another folder for the results, or move that file away."
        raise ValueError(message) from error
    if table and tuple(table[0]) != COLUMNS:
        message = (
            f"{path} is no table of predictions of this version: its columns are {', '.join(table[0][:5])} …; give "
            "another folder for the results, or move that file away."
        )
        raise ValueError(message)
    rows = []
    for line in table[1:]:
        try:
            rows.append(_row(line))
        except (ValueError, KeyError):
            continue
    return rows


def write_rows(path: str | Path, rows: Iterable[PredictionRow]) -> None:
    """Write the table anew, in one step."""
    with replaced_file(path) as file:
        file.write(_lines([COLUMNS, *(_cells(row) for row in rows)]))


def append_rows(path: str | Path, rows: Sequence[PredictionRow]) -> None:
    """Add rows to a table that `write_rows` began; they are on the disk when this returns."""
    with Path(path).open("ab") as file:
        file.write(_lines([_cells(row) for row in rows]))
        file.flush()
        os.fsync(file.fileno())


def write_failures(path: str | Path, failures: Iterable[PredictionFailure]) -> None:
    """Write what failed, in one step; without any, the header alone."""
    with replaced_file(path) as file:
        file.write(_lines([("file", "reason"), *((one.file, one.reason) for one in failures)]))


def _lines(table: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue().encode(**_TEXT)


def _cells(row: PredictionRow) -> list[Any]:
    values = [getattr(row, name) for name in COLUMNS]
    return [format(value, ".6g") if isinstance(value, float) else value for value in values]


def _row(line: Sequence[str]) -> PredictionRow:
    if len(line) != len(COLUMNS):
        message = f"a row has {len(COLUMNS)} cells, but this one has {len(line)}."
        raise ValueError(message)
    return PredictionRow(**{name: _value(cell, kind) for (name, kind), cell in zip(_KINDS.items(), line, strict=True)})


def _value(cell: str, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return None if cell == "" else _value(cell, get_args(kind)[0])
    if kind is bool:
        return {"True": True, "False": False}[cell]
    return kind(cell)
