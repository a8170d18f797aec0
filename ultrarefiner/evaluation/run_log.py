"""What a run of training has reported, read from its folder, while it runs or afterwards."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_BEST = "validation/dice"

Row = Mapping[str, float]


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose weights ``best.pt`` holds.

    Attributes:
        epoch: from 0.
        dice: its score in validation (`RunLog.score_name`), the greatest; the first epoch that reached it.
    """

    epoch: int
    dice: float


@dataclass(frozen=True)
class RunLog:
    """The rows of a run's two tables, each epoch and each step once, in order.

    Attributes:
        epochs: the rows of ``metrics.csv``: "epoch" (from 0), "step", "epoch/loss", "validation/dice" and so on; blank
            cells are left out.
        steps: the rows of ``steps.csv``: "step", "epoch", "train/loss", "learning_rate/<group>" and so on.
        score_name: what the columns called "dice" are: "Dice" of masks, or "Dice of boxes".
    """

    epochs: tuple[Row, ...]
    steps: tuple[Row, ...]
    score_name: str = "Dice"

    @property
    def best(self) -> BestEpoch | None:
        """The best epoch so far; None without a validation set."""
        best: BestEpoch | None = None
        for row in self.epochs:
            dice = row.get(_BEST, math.nan)
            if math.isfinite(dice) and (best is None or dice > best.dice):
                best = BestEpoch(int(row["epoch"]), dice)
        return best


def read_run_log(folder: str | os.PathLike[str]) -> RunLog:
    r"""Read the two tables of a run, and what it says their scores are.

    A last line without an end, as it is there while it is written or after a kill, does not count. Where a table goes
    back to an earlier epoch or step, the run went on from there: what came between was lost with the process, and is
    left out. A run without ``run.json``, as older ones are, scored the Dice of masks.

    Args:
        folder: of the run, as `ultrarefiner.training.train` was given it.

    Returns:
        The rows; one of the tables may be missing or have none.

    Raises:
        FileNotFoundError: neither table is there.
        ValueError: neither has a complete row, a line is damaged, or ``run.json`` is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.csv").write_text("epoch,validation/dice\n0,0.5\n1,0.75\n2,0.7")
        >>> log = read_run_log(folder)
        >>> len(log.epochs), log.best
        (2, BestEpoch(epoch=1, dice=0.75))
    """
    folder = Path(folder)
    metrics, steps = folder / "metrics.csv", folder / "steps.csv"
    if not metrics.exists() and not steps.exists():
        message = f"{folder} must be the folder of a run, with metrics.csv or steps.csv, but it has neither."
        raise FileNotFoundError(message)
    log = RunLog(_rows(metrics, "epoch"), _rows(steps, "step"), _score_name(folder / "run.json"))
    if not log.epochs and not log.steps:
        message = f"{folder} has no complete row in metrics.csv or steps.csv yet; wait until the run has reported one."
        raise ValueError(message)
    return log


def _score_name(path: Path) -> str:
    if not path.exists():
        return "Dice"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["score_name"]
    except (ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        message = f'{path} must hold {{"score_name": "..."}}, but it does not; remove it if the scores are the Dice.'
        raise ValueError(message)
    return name


def _rows(path: Path, order: str) -> tuple[Row, ...]:
    if not path.exists():
        return ()
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    rows: list[Row] = []
    for number, cells in enumerate(lines[1:], 2):
        row = _row(lines[0], cells, order)
        if row is None:
            message = (
                f"line {number} of {path} must have {len(lines[0])} numbers or blanks, one a column, and a whole "
                f"{order!r}, but it is {','.join(cells)[:80]!r}; remove the line."
            )
            raise ValueError(message)
        while rows and rows[-1][order] >= row[order]:
            rows.pop()
        rows.append(row)
    return tuple(rows)


def _row(columns: list[str], cells: list[str], order: str) -> Row | None:
    """None for a line that is none."""
    if len(cells) != len(columns):
        return None
    try:
        row = {name: float(cell) for name, cell in zip(columns, cells, strict=True) if cell}
    except ValueError:
        return None
    whole = all(row[name].is_integer() for name in ("epoch", "step") if name in row)
    return row if whole and order in row else None
