"""What is to be predicted, under which names, and what an earlier run has done already."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.prediction.finding import FoundFile
from ultrarefiner.prediction.naming import file_name_of, unique_names
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
    def left_over(self) -> tuple[PredictionRow, ...]:
        """Rows of pictures that their files, which have changed, no longer hold."""
        wanted = {file.picture(index) for file in self.files for index in range(file.count)}
        there = {str(file.path) for file in self.files}
        return tuple(row for row in self.stale if row.file in there and row.name not in wanted)

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
    by_file: dict[str, list[PredictionRow]] = {}
    for row in rows:
        by_file.setdefault(row.file, []).append(row)
    failures, looked_at = [], []
    for file in found:
        try:
            state = _state(file.path)
        except OSError as error:
            failures.append(PredictionFailure(str(file.path), str(error)))
            continue
        looked_at.append((file, kind_of(file.path), count_pictures(file.path), state))
    names = _names(looked_at, by_file)
    files = tuple(
        PlannedFile(file.path, kind, name, count, state.st_size, state.st_mtime_ns)
        for name, (file, kind, count, state) in zip(names, looked_at, strict=True)
    )
    kept: dict[str, PredictionRow] = {}
    for planned in files if resume else ():
        earlier = by_file.get(str(planned.path), ())
        kept.update({row.name: row for row in _finished(planned, earlier, folder, options)})
    own = {str(file.path) for file in found}
    others = tuple(row for row in rows if row.file not in own and (folder.path / row.mask_file).is_file())
    stale = tuple(row for row in rows if row.file in own and row.name not in kept)
    return Plan(files, tuple(failures), kept, others, stale, options)


def _state(path: Path) -> os.stat_result:
    """A file's size and time of change.

    Raises:
        OSError: it is not there, may not be looked at, or opening it could wait for ever.
    """
    try:
        state = path.stat()
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        raise OSError(message) from error
    if not stat.S_ISREG(state.st_mode):
        message = f"{path} must be a file, but it is a pipe, a socket or a device; give a picture"
        raise OSError(message)
    return state


def _names(
    looked_at: Sequence[tuple[FoundFile, Kind, int, os.stat_result]], by_file: Mapping[str, Sequence[PredictionRow]]
) -> list[str]:
    """The names of all files' results; those of earlier runs are kept."""
    taken = {Path(file): file_name_of(Path(file), rows[0].name) for file, rows in by_file.items()}
    several = {file.path for file, _, count, _ in looked_at if count > 1}
    several |= {path for path, name in taken.items() if by_file[str(path)][0].name != name}
    return unique_names([file for file, *_ in looked_at], taken, several=several)


def _finished(
    file: PlannedFile, rows: Sequence[PredictionRow], folder: ResultFolder, options: str
) -> list[PredictionRow]:
    """Of a file's rows those that hold as they are; a volume's hold together or not at all."""
    wanted = {file.picture(index) for index in range(file.count)}
    state = (file.bytes, file.modified, options)
    found = {
        row.name: row
        for row in rows
        if (row.bytes, row.modified, row.options) == state and row.name in wanted and folder.has(row)
    }
    return [] if file.kind == "nifti" and len(found) < file.count else list(found.values())
