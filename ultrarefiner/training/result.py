"""What `train` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        best_dice: the best mean of the images' Dice in validation; None without validation.
        best_epoch: the epoch (from 0) that reached it first.
        steps: steps of the optimiser, over all resumptions.
        resumed_from: the step after which this call went on; None if it began anew. Equal to ``steps`` where the
            run was finished already and nothing was trained.
        folder: where ``best.pt``, ``last.pt`` and the logs are.
    """

    best_dice: float | None
    best_epoch: int | None
    steps: int
    folder: Path
    resumed_from: int | None = None

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation; the last one without validation."""
        return self.folder / ("last.pt" if self.best_epoch is None else "best.pt")

    @property
    def last(self) -> Path:
        """The checkpoint at the end."""
        return self.folder / "last.pt"
