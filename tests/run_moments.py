"""A run's moment without a run, for what watches a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Moment:
    """The end of an epoch."""

    folder: Path
    epoch: int
    epochs: int
    scores: dict[str, float] = field(default_factory=dict)
    predict: object = None
    score_name: str = "Dice"
