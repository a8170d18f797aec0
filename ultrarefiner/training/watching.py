"""Who may look at a run after each epoch: pictures, other scores, a message to somebody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ultrarefiner.data import Batch
from ultrarefiner.training.run import Run, seed_everything_here


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
    """

    folder: Path
    epoch: int
    epochs: int
    scores: Mapping[str, float]
    predict: Callable[[Batch], Tensor]


Watcher = Callable[[Moment], None]
"""Called on the first process after each epoch; what it draws at random changes nothing of the run."""


def tell(run: Run, epoch: int, scores: Mapping[str, float]) -> None:
    """Call every watcher, on the first process; the others go on.

    Args:
        run: the run; its epoch is saved, so a watcher that raises costs nothing but itself.
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

    moment = Moment(run.folder, epoch, run.plan.epochs, scores, predict)
    for watcher in run.watchers:
        watcher(moment)
