"""What this room's watchers of a run have in common: what they ask of a finished epoch, and when they act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class FinishedEpoch(Protocol):
    """What this room's watchers read of the `ultrarefiner.training.Moment` that a run shows them.

    The rooms do not import one another, so it is written down here as a protocol.
    """

    @property
    def folder(self) -> Path:
        """Of the run."""

    @property
    def epoch(self) -> int:
        """The one that has just ended, from 0."""

    @property
    def epochs(self) -> int:
        """How many there are."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Of this epoch's validation, such as "dice"."""

    @property
    def score_name(self) -> str:
        """What the scores are: "Dice", or "Dice of boxes"."""

    @property
    def predict(self) -> Callable[[Any], Tensor]:
        """Soft masks (b, k, h, w) of an `ultrarefiner.data.Batch`."""


def is_due(moment: FinishedEpoch, every: int) -> bool:
    """Whether a watcher acts: after every so many epochs, and after the last."""
    done = moment.epoch + 1
    return done % every == 0 or done == moment.epochs


def check_every(every: int) -> None:
    """Raise if a number of epochs is below 1.

    Raises:
        ValueError: it is.
    """
    if every < 1:
        message = f"every must be at least 1 epoch, but it is {every}."
        raise ValueError(message)
