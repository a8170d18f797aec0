"""The one loop that trains every phase, on Lightning Fabric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.training.hardware import make_fabric
from ultrarefiner.training.job import Job, Reports
from ultrarefiner.training.loading import FittedSet
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.provenance import refuse_leak
from ultrarefiner.training.recipe import Recipe
from ultrarefiner.training.result import TrainingResult
from ultrarefiner.training.schedule import Cosine, Schedule
from ultrarefiner.training.watching import Watcher


def train(
    recipe: Recipe,
    dataset: FittedSet,
    *,
    folder: Location,
    epochs: int,
    batch_size: int,
    validation: FittedSet | None = None,
    epoch_size: int | None = None,
    accumulate: int = 1,
    clip_norm: float | None = 1.0,
    schedule: Schedule = Cosine(),  # noqa: B008 - frozen
    seed: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: int | list[int] | str = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    workers: int = 0,
    checkpoint_every: int | None = 1000,
    log_every: int | None = 10,
    keep_every: int | None = None,
    watchers: Sequence[Watcher] = (),
    resume: bool = True,
    tensorboard: bool = True,
    progress: bool = True,
) -> TrainingResult:
    """Train a recipe, or go on where a run in the same folder stopped.

    ``last.pt`` holds everything needed to go on; it is replaced in one step, so a ``kill -9`` at any moment
    leaves a whole one. On a CPU a resumed run ends with exactly the weights of one that was never
    interrupted. ``best.pt`` has the weights with the best validation: the mean over images of the Dice at
    0.5, of masks unless the recipe names another score (`Recipe.score_name`, which ``run.json`` keeps).
    ``metrics.csv`` has a row an epoch, ``steps.csv`` one every ``log_every`` steps. Ctrl-C and SIGTERM
    save before they stop. While it trains, the run holds its folder: a second one there is refused.

    Args:
        recipe: the phase. Its model is trained in place and is left with the last weights, in evaluation
            mode.
        dataset: fitted cases (`ultrarefiner.data.FittedCases`).
        folder: gets checkpoints and logs.
        epochs: passes over the data, or over ``epoch_size`` cases of it.
        batch_size: images in a batch, in each process.
        validation: fitted cases by which the best checkpoint is chosen; never augmented, never shuffled.
        epoch_size: cases in an epoch, after which comes validation and a checkpoint; None for all. Epochs go on through
            the data, so that with 100,000 samples and 2,000 in an epoch each is seen once in 50 epochs.
        accumulate: batches for one step of the optimiser; the rest at the end of an epoch makes a step, too.
        clip_norm: largest norm of the gradient, over all parameters together; None for no clipping.
        schedule: how the learning rates change over the run: `Cosine`, `Polynomial`, or one of your own.
        seed: of order, augmentation, failures and dropout.
        precision: "32-true", or mixed with "bf16-mixed" or "16-mixed"; weights are in 32 bits in any case.
        accelerator: Fabric's: "auto", "cpu", "cuda" …
        devices: how many on each node, which, or "auto".
        num_nodes: machines; start the same command on each as Fabric's documentation says.
        strategy: "auto" is one device, or DistributedDataParallel on several; "ddp", "ddp_spawn", "ddp_fork" or
            "ddp_notebook" choose how its processes start.
        workers: processes that read data ahead.
        checkpoint_every: steps between checkpoints within an epoch; None for none. There is one after each
            epoch in any case.
        log_every: steps between reports; None for one at the end of each epoch.
        keep_every: epochs between checkpoints that stay, ``epoch0009.pt`` and so on, weights only; None for none.
        watchers: called after each epoch, on the first process, with a `Moment`: pictures, other scores. The epoch is
            saved before. What one raises does not end the training; the logger "ultrarefiner" reports it (level
            ERROR). A run that goes on from the end of an epoch, or is finished already, tells them of that epoch once
            more. Where processes are spawned, they are copied.
        resume: go on from ``last.pt``, which the logger "ultrarefiner" reports (level INFO); False refuses a folder
            that has one.
        tensorboard: write TensorBoard's files.
        progress: show a progress bar on a terminal.

    Returns:
        What the run reached, and from which step this call went on (``resumed_from``).

    Raises:
        ValueError: a number out of range, an empty data set or one marked unseen, a validation case that is trained on
            (or its group is; or it trained a network behind the coarse masks, or a part in an earlier phase),
            parameters in no group, a setting that cannot be described, a checkpoint of other settings or other cases,
            or a damaged one.
        FileExistsError: ``resume`` is False and the folder holds a run.
        BlockingIOError: another run, which is still going, holds the folder.
        FloatingPointError: the loss or its gradient is no longer finite.
        KeyboardInterrupt: the run was stopped, be it in its last epoch; everything is saved.

    Example:
        >>> import tempfile, torch
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> from ultrarefiner.training import CoarseRecipe
        >>> recipe = CoarseRecipe(torch.nn.Conv2d(1, 1, 5, padding=2))
        >>> cases = FittedCases(Phantoms(4, size=(32, 32)), 32)
        >>> folder = tempfile.mkdtemp()
        >>> result = train(recipe, cases, folder=folder, epochs=2, batch_size=2, tensorboard=False)
        >>> result.steps, result.best.name
        (4, 'last.pt')
    """
    folder = Path(folder)
    if not resume and (folder / "last.pt").exists():
        message = f"{folder} holds a run already (last.pt); pass resume=True to go on with it, or another folder."
        raise FileExistsError(message)
    _refuse_unseen(dataset)
    refuse_leak(dataset, validation, recipe.parts().values())
    for data in (dataset, validation):
        recipe.check_data(data)
    plan = Plan(
        epochs=epochs,
        batch_size=batch_size,
        cases=len(dataset),
        epoch_size=epoch_size,
        accumulate=accumulate,
        clip_norm=clip_norm,
        schedule=schedule,
        seed=seed,
        precision=precision,
    )
    reports = Reports(
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        tensorboard=tensorboard,
        progress=progress,
        keep_every=keep_every,
        watchers=tuple(watchers),
    )
    fabric = make_fabric(strategy, accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    job = Job(recipe, dataset, validation, plan=plan, folder=folder, workers=workers, reports=reports)
    return job.launch(fabric)


def _refuse_unseen(dataset: FittedSet) -> None:
    """A set that is kept for testing alone trains nothing."""
    if getattr(dataset, "unseen", False):
        message = (
            "dataset is marked unseen, kept for testing alone (UDIAT is), but training was asked for; train on another "
            "set, or evaluate on this one."
        )
        raise ValueError(message)
