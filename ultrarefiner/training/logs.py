"""What a run reports: two CSV files that never hold a row twice, what they score, TensorBoard, a progress bar."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import TensorBoardLogger
from tqdm import tqdm

from ultrarefiner.checkpoints.files import replaced_file

Row = Mapping[str, float | int | None]


class MetricsFile:
    """A CSV file of numbers that can be cut back to where a run is resumed.

    A row is forced to the disk before `append` returns. A row that a kill left half written counts as not
    written.

    Args:
        path: the file; its columns are those of the first row.

    Example:
        >>> import tempfile
        >>> metrics = MetricsFile(Path(tempfile.mkdtemp()) / "metrics.csv")
        >>> for epoch in range(3):
        ...     metrics.append({"epoch": epoch, "dice": epoch / 4})
        >>> metrics.keep(lambda row: row["epoch"] < 2)
        >>> metrics.rows()
        [{'epoch': 0.0, 'dice': 0.0}, {'epoch': 1.0, 'dice': 0.25}]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []

    def append(self, row: Row) -> None:
        """Add a row; new columns are added to the file, columns the row lacks stay blank."""
        if not self._columns:
            self._columns = self._read()[0]
        new = [name for name in row if name not in self._columns]
        if new:
            lines = [[*line, *("" for _ in new)] for line in self._read()[1]]
            self._columns = [*self._columns, *new]
            self._write([*lines, self._cells(row)])
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(self._cells(row)))
            file.flush()
            os.fsync(file.fileno())

    def keep(self, condition: Callable[[dict[str, float]], bool]) -> None:
        """Drop the rows that do not meet a condition, and a half-written one."""
        if self._path.exists():
            self._columns, lines = self._read()
            self._write([line for line in lines if condition(self._numbers(line))])

    def rows(self) -> list[dict[str, float]]:
        """The complete rows; blank cells are left out."""
        self._columns, lines = self._read()
        return [self._numbers(line) for line in lines]

    def _numbers(self, line: list[str]) -> dict[str, float]:
        return {name: float(cell) for name, cell in zip(self._columns, line, strict=True) if cell}

    def _cells(self, row: Row) -> list[str]:
        values = [row.get(column) for column in self._columns]
        return ["" if value is None else repr(value) for value in values]

    def _read(self) -> tuple[list[str], list[list[str]]]:
        if not self._path.exists():
            return [], []
        text = self._path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(complete)))
        return (lines[0], lines[1:]) if lines else ([], [])

    def _write(self, lines: list[list[str]]) -> None:
        with replaced_file(self._path) as file:
            file.write("".join(_line(line) for line in [self._columns, *lines] if line).encode())


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


class Logs:
    """Everything a run reports. On other processes than the first it reports nothing.

    Args:
        folder: gets ``metrics.csv`` (a row an epoch), ``steps.csv`` (a row every few steps), ``run.json`` (what the
            scores are) and ``tensorboard/``.
        active: whether this is the first process.
        tensorboard: whether to write TensorBoard's files.
        progress: whether to show a progress bar, where somebody looks (a terminal).
        score_name: what is called "dice" in the tables (`Recipe.score_name`).
    """

    def __init__(
        self, folder: Path, *, active: bool, tensorboard: bool, progress: bool, score_name: str = "Dice"
    ) -> None:
        self._active = active
        self._epochs = MetricsFile(folder / "metrics.csv")
        self._steps = MetricsFile(folder / "steps.csv")
        self._folder = folder
        self._score_name = score_name
        self._tensorboard = tensorboard and active
        self._writer: Any = None
        # None: tqdm shows itself on a terminal only.
        self._hidden = None if progress and active else True
        self._bar: Any = None

    def resume(self, *, epoch: int, step: int) -> None:
        """Forget what was reported after the moment at which the run goes on.

        Args:
            epoch: epochs that are finished.
            step: steps that are finished.
        """
        if not self._active:
            return
        with replaced_file(self._folder / "run.json") as file:
            file.write(f"{json.dumps({'score_name': self._score_name})}\n".encode())
        self._epochs.keep(lambda row: row["epoch"] < epoch)
        self._steps.keep(lambda row: row["step"] <= step)
        if self._tensorboard:
            self._writer = TensorBoardLogger(self._folder, name="tensorboard", version="", purge_step=step + 1)

    def scores(self, epoch: int) -> dict[str, float]:
        """What an epoch's row says of its validation; nothing without a row."""
        prefix = "validation/"
        rows = [row for row in self._epochs.rows() if row["epoch"] == epoch]
        return {name.removeprefix(prefix): row[name] for row in rows for name in row if name.startswith(prefix)}

    def begin_epoch(self, epoch: int, epochs: int, *, done: int, total: int) -> None:
        """Show a progress bar over the steps of an epoch."""
        self._bar = tqdm(
            desc=f"epoch {epoch + 1}/{epochs}",
            initial=done,
            total=total,
            unit="step",
            leave=False,
            disable=self._hidden,
        )

    def advance(self) -> None:
        """Move the bar by a step."""
        self._bar.update()

    def report_step(self, *, step: int, epoch: int, means: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Report the means since the last report."""
        self._bar.set_postfix(loss=f"{means['loss']:.4f}", dice=f"{means['dice']:.4f}", refresh=False)
        named = {**{f"train/{name}": value for name, value in means.items()}, **_rates(rates)}
        self._report(self._steps, {"step": step, "epoch": epoch, **named}, named, step)

    def end_epoch(self, *, step: int, epoch: int, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Report an epoch's means and its scores in validation."""
        self._bar.close()
        named = {f"epoch/{name}": value for name, value in train.items()}
        named |= {f"validation/{name}": value for name, value in validation.items()}
        self._report(self._epochs, {"epoch": epoch, "step": step, **named}, named, step)

    def close(self) -> None:
        """Take the bar away and close TensorBoard's file."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.finalize("done")

    def _report(self, file: MetricsFile, row: Row, named: Mapping[str, float], step: int) -> None:
        if not self._active:
            return
        file.append(row)
        if self._writer is not None:
            self._writer.log_metrics(named, step)


def _rates(rates: Mapping[str, float]) -> dict[str, float]:
    return {f"learning_rate/{name}": rate for name, rate in rates.items()}
