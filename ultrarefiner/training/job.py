"""A run from its first process to its last checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ultrarefiner.checkpoints.files import read_tensors
from ultrarefiner.training.checkpoint import keep, resume, save_best, save_last, settings_of
from ultrarefiner.training.cpu_convolutions import quick_convolutions
from ultrarefiner.training.epoch import interrupt, refuse_nonfinite, share_buffers, train_epoch, validate
from ultrarefiner.training.freezing import Stages
from ultrarefiner.training.loading import FittedSet, TrainingData, ValidationData
from ultrarefiner.training.locking import hold_folder
from ultrarefiner.training.logs import Logs
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.provenance import learnt_names, remember
from ultrarefiner.training.recipe import Recipe
from ultrarefiner.training.result import TrainingResult
from ultrarefiner.training.run import Progress, Run, Step
from ultrarefiner.training.stopping import StopRequest
from ultrarefiner.training.watching import Watcher, tell, tell_again


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What a run tells of itself; it does not change what is computed. See `train`.

    Raises:
        ValueError: a number of steps or epochs below 1.
    """

    checkpoint_every: int | None
    log_every: int | None
    tensorboard: bool
    progress: bool
    keep_every: int | None = None
    watchers: Sequence[Watcher] = ()

    def __post_init__(self) -> None:
        for name, unit in (("checkpoint_every", "step"), ("log_every", "step"), ("keep_every", "epoch")):
            number = getattr(self, name)
            if number is not None and number < 1:
                other = "no such files" if unit == "epoch" else "each epoch's end only"
                message = f"{name} must be at least 1 {unit}, or None for {other}, but it is {number}."
                raise ValueError(message)


class Job:
    """What each process of a run does. No dataclass, because Fabric would look into one and copy it.

    Args:
        recipe: the phase.
        dataset: the training set.
        validation: the validation set, if there is one.
        plan: the numbers; how many processes there are is filled in once they have started.
        folder: gets checkpoints and logs.
        workers: processes that read ahead.
        reports: what to tell.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: FittedSet,
        validation: FittedSet | None,
        *,
        plan: Plan,
        folder: Path,
        workers: int,
        reports: Reports,
    ) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.validation = validation
        self.plan = plan
        self.folder = folder
        self.workers = workers
        self.reports = reports

    def launch(self, fabric: Fabric) -> TrainingResult:
        """Start the processes, and leave the trained weights in the recipe's module of this one.

        Args:
            fabric: not yet launched.

        Returns:
            What the run reached.
        """
        # Fabric gives a spawned process its own copy of the modules that it sees among the arguments.
        modules = [self.recipe.module, self.recipe.auxiliary()]
        try:
            progress, resumed_from, process = fabric.launch(_run, self, modules)
        except KeyboardInterrupt:
            self._remember()
            raise
        best_dice, best_epoch, steps = progress
        self._remember()
        score_name = self.recipe.score_name
        result = TrainingResult(best_dice, best_epoch, steps, self.folder, resumed_from, score_name)
        if process != os.getpid():
            self.recipe.module.load_state_dict(read_tensors(result.last)["model"])
            self.recipe.module.eval()
        return result

    def _remember(self) -> None:
        """Note on the trained parts what they were trained on."""
        for part in self.recipe.parts().values():
            remember(part, learnt_names(self.dataset, [part]))

    def set_up(self, fabric: Any, stages: Stages) -> Run:
        """Everything that this process needs, on its device.

        Args:
            fabric: launched.
            stages: what trains when; the caller has them leave whatever happens here.
        """
        plan, rank = replace(self.plan, processes=fabric.world_size), fabric.global_rank
        pin_memory = fabric.device.type == "cuda"
        data = TrainingData(self.dataset, plan, rank=rank, workers=self.workers, pin_memory=pin_memory)
        scored = None
        if self.validation is not None:
            scored = ValidationData(self.validation, plan, rank=rank, workers=self.workers)
        settings = settings_of(self.recipe, plan, self.dataset, self.validation)
        stages.prepare()
        module, optimizer = fabric.setup(Step(self.recipe), self.recipe.optimizer())
        fabric.to_device(self.recipe.auxiliary())
        logs = Logs(
            self.folder,
            active=fabric.is_global_zero,
            tensorboard=self.reports.tensorboard,
            progress=self.reports.progress,
            score_name=self.recipe.score_name,
        )
        return Run(
            fabric=fabric,
            recipe=self.recipe,
            plan=plan,
            folder=self.folder,
            module=module,
            optimizer=optimizer,
            stages=stages,
            learnt_from=learnt_names(self.dataset, self.recipe.parts().values()),
            settings=settings,
            data=data,
            validation=scored,
            logs=logs,
            progress=Progress(),
            checkpoint_every=self.reports.checkpoint_every,
            log_every=self.reports.log_every,
            keep_every=self.reports.keep_every,
            watchers=self.reports.watchers,
        )


def _run(
    fabric: Any,
    job: Job,
    modules: list[nn.Module],  # noqa: ARG001 - see Job.launch
) -> tuple[tuple[float | None, int | None, int], int | None, int]:
    """The whole run, in each process: (best Dice, its epoch, steps), from which step, and which process."""
    generators = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators), StopRequest(active=fabric.world_size == 1) as stop:
        stages = job.recipe.unfreezing.bind(job.recipe.module)
        try:
            mixed_on_cpu = fabric.device.type == "cpu" and job.plan.precision == "bf16-mixed"
            with quick_convolutions(job.recipe.module, active=mixed_on_cpu):
                run = job.set_up(fabric, stages)
                with hold_folder(fabric, job.folder):
                    resumed_from = _go_through(run, stop)
        finally:
            stages.leave()
    progress = run.progress
    return (progress.best_dice, progress.best_epoch, progress.step), resumed_from, os.getpid()


def _go_through(run: Run, stop: StopRequest) -> int | None:
    """Resume, train, and close the logs whatever happens; the step from which it went on."""
    try:
        resumed_from = resume(run)
        run.logs.resume(epoch=run.progress.epoch, step=run.progress.step)
        tell_again(run)
        while run.progress.epoch < run.plan.epochs and not stop.requested:
            train_epoch(run, stop)
            _finish_epoch(run)
        if stop.requested:
            interrupt(run)
    finally:
        run.logs.close()
    return resumed_from


def _finish_epoch(run: Run) -> None:
    """Validate, then report, then save: whenever a kill comes, no row is lost and none is there twice."""
    progress = run.progress
    means = progress.epoch_means.means(run.fabric)
    refuse_nonfinite(run, means["loss"])
    share_buffers(run)
    scores = validate(run)
    if "dice" in scores and (progress.best_dice is None or scores["dice"] > progress.best_dice):
        progress.best_dice, progress.best_epoch = scores["dice"], progress.epoch
        save_best(run, scores["dice"])
    keep(run, scores)
    run.logs.end_epoch(step=progress.step, epoch=progress.epoch, train=means, validation=scores)
    progress.epoch += 1
    progress.batch = 0
    progress.epoch_means.clear()
    save_last(run)
    tell(run, progress.epoch - 1, scores)
