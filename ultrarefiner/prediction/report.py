"""What a run over files found, in numbers and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.prediction.rows import PredictionFailure, PredictionRow


@dataclass(frozen=True)
class PredictionReport:
    """What `predict_files` returns.

    Attributes:
        out: the folder of results.
        rows: one a picture, in the order of the files; those that an earlier run finished are among them.
        failures: what could not be predicted.
        notes: sentences on files that were passed over.
        taken_over: how many rows an earlier run had finished.
        seconds: what the run took, reading and writing included.

    Example:
        >>> print(PredictionReport(Path("out"), (), (PredictionFailure("a.png", "a.png is truncated"),), (), 0, 1.0))
        No picture was predicted.
        1 file failed:
        - a.png is truncated
    """

    out: Path
    rows: tuple[PredictionRow, ...]
    failures: tuple[PredictionFailure, ...]
    notes: tuple[str, ...]
    taken_over: int
    seconds: float

    @property
    def seconds_per_image(self) -> float | None:
        """Seconds for each picture that this run predicted; None if it predicted none."""
        new = len(self.rows) - self.taken_over
        return self.seconds / new if new else None

    def markdown(self) -> str:
        """A table of counts, and a list of what failed; Markdown, ending in a newline."""
        pace = self.seconds_per_image
        judged = [row for row in self.rows if row.accepted is not None]
        counts = [
            ("pictures", str(len(self.rows))),
            ("of which an earlier run had finished", str(self.taken_over)),
            ("with a coarse mask", str(sum(not row.coarse_empty for row in self.rows))),
            ("with a refined mask", str(sum(not row.refined_empty for row in self.rows))),
            ("coarse mask kept by the acceptance rule", str(_kept(self.rows)) if judged else "no rule"),
            ("with a note", str(sum(bool(row.note) for row in self.rows))),
            ("failed", str(len(self.failures))),
            ("seconds an image", "-" if pace is None else f"{pace:.2f}"),
        ]
        lines = ["| what | count |", "|---|---|", *(f"| {what} | {count} |" for what, count in counts)]
        if self.failures:
            lines += ["", "Failed:", "", *(f"- {one.reason}" for one in self.failures)]
        if self.notes:
            lines += ["", "Notes:", "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        """The same in a few sentences."""
        lines = self._counted() if self.rows else ["No picture was predicted."]
        if self.failures:
            lines.append(f"{_count(len(self.failures), 'file')} failed:")
            lines += [f"- {one.reason}" for one in self.failures]
        return "\n".join([*lines, *self.notes])

    def _counted(self) -> list[str]:
        earlier = f", {self.taken_over} of them by an earlier run" if self.taken_over else ""
        pace = "" if self.seconds_per_image is None else f" {self.seconds_per_image:.2f} s an image."
        found = sum(not row.refined_empty for row in self.rows)
        lines = [f"{_count(len(self.rows), 'picture')} in {self.out}{earlier}; {found} with a mask.{pace}"]
        if any(row.accepted is not None for row in self.rows):
            lines.append(f"The acceptance rule kept the coarse mask of {_kept(self.rows)}.")
        noted = sum(bool(row.note) for row in self.rows)
        if noted:
            lines.append(f"{_count(noted, 'picture')} with a note, in the column note of predictions.csv.")
        return lines


def _kept(rows: tuple[PredictionRow, ...]) -> int:
    return sum(row.accepted is False for row in rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
