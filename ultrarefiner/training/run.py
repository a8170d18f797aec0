"""One run: everything that the loop's functions hand to one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner.data import Batch, VolumeBatch
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.training.averages import Averages
from ultrarefiner.training.freezing import Stages
from ultrarefiner.training.loading import TrainingData, ValidationData
from ultrarefiner.training.logs import Logs
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.recipe import Recipe, StepResult


@dataclass
class Progress:
    """Where a run is. With the weights and the optimiser's state, all that a checkpoint needs to go on.

    Attributes:
        epoch: epochs that are finished.
        batch: batches of the current epoch that are done.
        step: steps of the optimiser that are done.
        best_dice: the best Dice in validation so far.
        best_epoch: the epoch that reached it.
        epoch_means: means over the current epoch.
        recent_means: means since the last row of ``steps.csv``.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_dice: float | None = None
    best_epoch: int | None = None
    epoch_means: Averages = field(default_factory=Averages)
    recent_means: Averages = field(default_factory=Averages)


@dataclass(frozen=True)
class Run:
    """One run in one process.

    Attributes:
        fabric: Lightning Fabric, launched.
        recipe: the phase.
        plan: the numbers.
        folder: where checkpoints and logs go.
        module: the recipe's step, as Fabric wrapped it.
        optimizer: as Fabric wrapped it.
        stages: what trains when.
        learnt_from: the names of the cases that it is trained on, None if unknown; a checkpoint hands them on.
        settings: what makes it this run and no other, as it was when the run began.
        data: the training set.
        validation: the validation set, if there is one.
        logs: the reports.
        progress: where the run is.
        checkpoint_every: steps between checkpoints; None for one at the end of each epoch only.
        log_every: steps between rows of ``steps.csv``; None for one at the end of each epoch only.
        keep_every: epochs between checkpoints that are kept; None for none.
        watchers: called after each epoch with a `Moment`; what one raises is logged.
    """

    fabric: Any
    recipe: Recipe
    plan: Plan
    folder: Path
    module: Any
    optimizer: Any
    stages: Stages
    learnt_from: tuple[str, ...] | None
    settings: Mapping[str, Any]
    data: TrainingData
    validation: ValidationData | None
    logs: Logs
    progress: Progress
    checkpoint_every: int | None
    log_every: int | None
    keep_every: int | None = None
    watchers: Sequence[Callable[[Any], None]] = ()


class Parcel:
    """A batch and its generator as one argument that Fabric does not look into, which is why it is no dataclass.

    Fabric casts every tensor among the arguments to the half precision of the run, which would round 8-bit images
    to fewer levels before the augmentation has even seen them. Autocast inside the model is what mixed precision
    needs.

    Args:
        batch: images and masks.
        generator: of the step.
    """

    def __init__(self, batch: Batch | VolumeBatch, generator: torch.Generator) -> None:
        self.batch = batch
        self.generator = generator


class Step(nn.Module):
    """A recipe's step as the forward of a module, so that data parallelism and autocast act on all of it.

    Args:
        recipe: the phase.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.trained = recipe.module
        self._recipe = recipe

    def forward(self, parcel: Parcel) -> StepResult:
        """The recipe's step."""
        return self._recipe.step(parcel.batch, parcel.generator)


def seed_everything_here(device: torch.device, *parts: int | str) -> torch.Generator:
    """Seed what dropout draws from, and make the generator of a step.

    Nothing that is drawn outlives the step, so no state of a generator needs to be in a checkpoint. The
    caller has put the global generators under `torch.random.fork_rng`.

    Args:
        device: where the model is.
        parts: what makes the step different from every other.

    Returns:
        A generator on the CPU.
    """
    torch.default_generator.manual_seed(stable_seed("global", *parts))
    if device.type == "cuda":
        torch.cuda.manual_seed(stable_seed("global", *parts))
    return torch.Generator().manual_seed(stable_seed("step", *parts))


def named_means(result: StepResult) -> dict[str, Tensor]:
    """What of a step is averaged and logged."""
    return {"loss": result.loss, "dice": result.dice, **result.terms}
