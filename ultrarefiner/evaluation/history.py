"""A run's numbers in one JSON file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.evaluation.finished_epoch import FinishedEpoch, check_every, is_due
from ultrarefiner.evaluation.run_log import Row, read_run_log


def write_history(folder: str | os.PathLike[str]) -> Path:
    r"""Write ``history.json`` into a run's folder: all that its two tables hold, the best epoch and what it is best in.

    ``{"epochs": [...], "steps": [...], "best": {"epoch": 23, "dice": 0.74}, "score_name": "Dice"}``: each row an object
    with the columns' names for keys, epochs from 0; "best" is null without a validation set, and "score_name" says what
    every "dice" is (`RunLog.score_name`). It is strict JSON: a number that is not
    finite is null. The file is made anew from the tables each time, whole or not at all, so a resumed run neither loses
    nor repeats a row.

    Args:
        folder: of the run.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the folder has no table.
        ValueError: no row is complete, or a line is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.csv").write_text("epoch,epoch/loss,validation/dice\n0,nan,0.5\n")
        >>> json.loads(write_history(folder).read_text())["epochs"]
        [{'epoch': 0, 'epoch/loss': None, 'validation/dice': 0.5}]
    """
    log = read_run_log(folder)
    tables = {"epochs": [_plain(row) for row in log.epochs], "steps": [_plain(row) for row in log.steps]}
    best = None if log.best is None else asdict(log.best)
    # A row a line: a person can read it, and a tool for differences too.
    parts = [f"{json.dumps(name)}: [{_lines(rows)}]" for name, rows in tables.items()]
    parts.append(f'"best": {json.dumps(best, allow_nan=False)}')
    parts.append(f'"score_name": {json.dumps(log.score_name)}')
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    path = Path(folder) / "history.json"
    with replaced_file(path) as file:
        file.write(text.encode())
    return path


@dataclass(frozen=True)
class History:
    """A watcher of `ultrarefiner.training.train` that keeps ``history.json`` up to date (`write_history`).

    Args:
        every: epochs between two times; it is written after the last epoch in any case.

    Raises:
        ValueError: every is below 1.

    Example:
        >>> History(every=5)
        History(every=5)
    """

    every: int = 1

    def __post_init__(self) -> None:
        check_every(self.every)

    def __call__(self, moment: FinishedEpoch) -> None:
        """Write it if it is time."""
        if is_due(moment, self.every):
            write_history(moment.folder)


def _plain(row: Row) -> dict[str, float | int | None]:
    return {name: _number(name, value) for name, value in row.items()}


def _number(name: str, value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if name in ("epoch", "step") else value


def _lines(rows: list[dict[str, float | int | None]]) -> str:
    return "\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n" if rows else ""
