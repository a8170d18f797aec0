"""Who may look at a run after each epoch: pictures, other scores, a message to somebody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrarefiner.data import Batch
from ultrarefiner.training.run import Run, seed_everything_here

_LOGGER = logging.getLogger("ultrarefiner")


@dataclass(frozen=True)
class Moment:
    """A run at the end of an epoch, its checkpoint and its row of ``metrics.csv`` written.

    Attributes:
        folder: of the run.
        epoch: the one that has just ended, from 0.
        epochs: how many there are.
        scores: of this epoch's validation, "dice" and perhaps "coarse_dice"; empty without a validation set.
        predict: soft masks (b, k, h, w) of a batch as the recipe predicts them, on the CPU; the model is in evaluation
            mode, there is no graph, and the run's precision is used.
        score_name: what the scores are, "Dice" or "Dice of boxes" (`Recipe.score_name`).
    """

    folder: Path
    epoch: int
    epochs: int
    scores: Mapping[str, float]
    predict: Callable[[Batch], Tensor]
    score_name: str = "Dice"


Watcher = Callable[[Moment], None]
"""Called on the first process after each epoch; what it draws at random changes nothing of the run.

It may be told of an epoch twice, where a run goes on from that epoch's end. One that raises is reported by the logger
"ultrarefiner" (level ERROR, with the traceback), and the training goes on.
"""


def tell(run: Run, epoch: int, scores: Mapping[str, float]) -> None:
    """Call every watcher, on the first process; the others go on.

    What a watcher raises is logged, and the next one is called; only what ends programs passes, a `KeyboardInterrupt`.

    Args:
        run: the run; its epoch is saved.
        epoch: the one that has ended.
        scores: of its validation.
    """
    if not run.watchers or not run.fabric.is_global_zero:
        return

    @torch.no_grad()
    def predict(batch: Batch) -> Tensor:
        run.recipe.module.eval()
        seed_everything_here(run.fabric.device, "watch", run.plan.seed)
        with run.fabric.autocast():
            found = run.recipe.predict(run.fabric.to_device(batch), range(len(batch.images)))
        return found.probability.float().cpu()

    epochs = run.plan.epochs
    moment = Moment(run.folder, epoch, epochs, scores, predict, run.recipe.score_name)
    for watcher in run.watchers:
        try:
            watcher(moment)
        except Exception:  # whatever it is, it must not cost the training
            _LOGGER.exception(
                "the watcher %s failed after %d of %d epochs; the training goes on, and it is called again after the "
                "next epoch, or after the last one by running the same command again",
                _name(watcher),
                epoch + 1,
                epochs,
            )


def tell_again(run: Run) -> None:
    """Where a run goes on from the end of an epoch, tell the watchers of that epoch once more.

    The process may have been killed before they had finished, a picture may have been deleted since, or the watchers
    may be others; nobody has to remember which. A finished run always goes on from there, so its last pictures can be
    had by calling `train` again.

    Args:
        run: the run as it was resumed, with the weights that the epoch ended with.
    """
    progress = run.progress
    if progress.epoch > 0 and progress.batch == 0:
        tell(run, progress.epoch - 1, run.logs.scores(progress.epoch - 1))


def _name(watcher: Any) -> str:
    return str(getattr(watcher, "__qualname__", type(watcher).__qualname__))
