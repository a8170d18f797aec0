"""What `train` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        best_dice: the best mean over the images of the score in validation that ``score_name`` names; None without
            validation. It is the Dice of masks only where that is "Dice": with "Dice of boxes" it compares the masks'
            tight boxes, and the masks' own Dice is another number.
        best_epoch: the epoch (from 0) that reached it first.
        steps: steps of the optimiser, over all resumptions.
        resumed_from: the step after which this call went on; None if it began anew. Equal to ``steps`` where the
            run was finished already and nothing was trained.
        folder: where ``best.pt``, ``last.pt`` and the logs are.
        score_name: what ``best_dice`` is, as the recipe names it (`Recipe.score_name`).
    """

    best_dice: float | None
    best_epoch: int | None
    steps: int
    folder: Path
    resumed_from: int | None = None
    score_name: str = "Dice"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation; the last one without validation."""
        return self.folder / ("last.pt" if self.best_epoch is None else "best.pt")

    @property
    def last(self) -> Path:
        """The checkpoint at the end."""
        return self.folder / "last.pt"
