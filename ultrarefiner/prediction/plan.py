"""What is to be predicted, under which names, and what an earlier run has done already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.prediction.finding import FoundFile, unique_names
from ultrarefiner.prediction.reading import Kind, count_pictures, kind_of, picture_name
from ultrarefiner.prediction.results import ResultFolder
from ultrarefiner.prediction.rows import PredictionFailure, PredictionRow, read_rows


@dataclass(frozen=True)
class PlannedFile:
    """One file of a run.

    Attributes:
        path: absolute.
        kind: what it is read as.
        name: of its results, unique in the folder.
        count: how many pictures it seems to hold.
        bytes: its size.
        modified: its time of change, in nanoseconds.
    """

    path: Path
    kind: Kind
    name: str
    count: int
    bytes: int
    modified: int

    def picture(self, index: int) -> str:
        """The name of one of its pictures."""
        return picture_name(self.name, self.kind, index, self.count)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        files: all of them, in order.
        failures: files that cannot even be looked at.
        kept: rows of these files that an earlier run finished, by the pictures' names.
        others: rows of files that are not part of this run; they stay in the table.
        stale: rows of these files that no longer hold.
        options: digest of model and options.
    """

    files: tuple[PlannedFile, ...]
    failures: tuple[PredictionFailure, ...]
    kept: dict[str, PredictionRow]
    others: tuple[PredictionRow, ...]
    stale: tuple[PredictionRow, ...]
    options: str

    @property
    def pictures(self) -> int:
        """How many pictures are left to predict, as far as headers tell."""
        return sum(file.count for file in self.files) - len(self.kept)


def plan_run(found: Sequence[FoundFile], folder: ResultFolder, *, options: str, resume: bool) -> Plan:
    """Look at files, name their results, and compare with the table of an earlier run.

    Args:
        found: the files.
        folder: of results.
        options: digest of model and options.
        resume: whether what is finished need not be done again.

    Raises:
        ValueError: the folder's table is another one.
    """
    rows = read_rows(folder.table)
    failures, looked_at = [], []
    for file in found:
        try:
            state = file.path.stat()
        except OSError as error:
            reason = f"{file.path} cannot be read ({error.strerror}); check the path and its permissions"
            failures.append(PredictionFailure(str(file.path), reason))
            continue
        looked_at.append((file, kind_of(file.path), count_pictures(file.path), state))
    several = {file.path for file, _, count, _ in looked_at if count > 1}
    taken = {Path(row.file): _base(row, Path(row.file) in several) for row in rows}
    names = unique_names([file for file, *_ in looked_at], taken, several=several)
    files = tuple(
        PlannedFile(file.path, kind, name, count, state.st_size, state.st_mtime_ns)
        for name, (file, kind, count, state) in zip(names, looked_at, strict=True)
    )
    kept = {row.name: row for file in files for row in _finished(file, rows, folder, options)} if resume else {}
    own = {str(file.path) for file in found}
    others = tuple(row for row in rows if row.file not in own and (folder.path / row.mask_file).is_file())
    stale = tuple(row for row in rows if row.file in own and row.name not in kept)
    return Plan(files, tuple(failures), kept, others, stale, options)


def _finished(
    file: PlannedFile, rows: Sequence[PredictionRow], folder: ResultFolder, options: str
) -> list[PredictionRow]:
    """Rows of a file that hold as they are; a volume's hold together or not at all."""
    wanted = {file.picture(index) for index in range(file.count)}
    state = (str(file.path), file.bytes, file.modified, options)
    found = {
        row.name: row
        for row in rows
        if (row.file, row.bytes, row.modified, row.options) == state and row.name in wanted and folder.has(row)
    }
    return [] if file.kind == "nifti" and len(found) < file.count else list(found.values())


def _base(row: PredictionRow, several: bool) -> str:
    """The name of a file's results from a row of one of its pictures."""
    if row.mask_file.endswith(".nii.gz"):
        return row.mask_file.removeprefix("masks/").removesuffix(".nii.gz")
    return re.sub("_frame[0-9]+$", "", row.name) if several else row.name
