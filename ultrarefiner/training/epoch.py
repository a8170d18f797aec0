"""One epoch of training, one pass of validation."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from ultrarefiner.data import Batch
from ultrarefiner.training.checkpoint import save_last
from ultrarefiner.training.recipe import dice_of_images
from ultrarefiner.training.run import Parcel, Run, named_means, seed_everything_here
from ultrarefiner.training.schedule import cosine_factor
from ultrarefiner.training.stopping import StopRequest


def train_epoch(run: Run, stop: StopRequest) -> None:
    """Go through the rest of the current epoch.

    Args:
        run: the run; its progress moves on.
        stop: whether somebody asked to stop.

    Raises:
        KeyboardInterrupt: somebody did; everything is saved.
        FloatingPointError: the loss is no longer finite; nothing is saved.
    """
    progress, plan = run.progress, run.plan
    run.stages.enter(progress.epoch)
    batches = run.data.batches(progress.epoch, skip=progress.batch)
    run.logs.begin_epoch(
        progress.epoch, plan.epochs, done=progress.batch // plan.accumulate, total=plan.steps_per_epoch
    )
    while group := list(islice(batches, plan.accumulate)):
        _step(run, group)
        last = progress.batch == plan.batches_per_epoch
        run.logs.advance()
        if progress.step % run.log_every == 0 or last:
            _report(run)
        if last:
            continue  # validation comes first, then a checkpoint
        if stop.requested or _checkpoint_is_due(run):
            refuse_nonfinite(run, progress.epoch_means.means(run.fabric)["loss"])
            save_last(run)
        if stop.requested:
            interrupt(run)


def interrupt(run: Run) -> None:
    """Leave the run after a checkpoint, with a sentence on how to go on."""
    message = (
        f"training stopped in epoch {run.progress.epoch + 1} of {run.plan.epochs} after step "
        f"{run.progress.step}; everything is saved in {run.folder / 'last.pt'}. Run the same command again to "
        "go on from there."
    )
    raise KeyboardInterrupt(message)


def _checkpoint_is_due(run: Run) -> bool:
    return run.checkpoint_every is not None and run.progress.step % run.checkpoint_every == 0


def _step(run: Run, group: list[Batch]) -> None:
    """One step of the optimiser, over batches whose gradients add up to that of one large batch."""
    fabric, progress, plan = run.fabric, run.progress, run.plan
    images = sum(len(batch.images) for batch in group)
    for position, batch in enumerate(group):
        with fabric.no_backward_sync(run.module, enabled=position + 1 < len(group)):
            generator = seed_everything_here(
                fabric.device, plan.seed, progress.epoch, progress.batch, fabric.global_rank
            )
            result = run.module(Parcel(fabric.to_device(batch), generator))
            fabric.backward(result.loss * (len(batch.images) / images))
        for means in (progress.epoch_means, progress.recent_means):
            means.add(named_means(result), images=len(batch.images))
        progress.batch += 1
    if plan.clip_norm is not None:
        # In float16 an overflow is expected now and then: the scaler then skips the step.
        fabric.clip_gradients(run.module, run.optimizer, max_norm=plan.clip_norm, error_if_nonfinite=False)
    factor = cosine_factor(progress.step, plan.steps, warmup=plan.warmup_steps, floor=plan.floor)
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = parameters["initial_lr"] * factor
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    progress.step += 1


def _report(run: Run) -> None:
    means = run.progress.recent_means.means(run.fabric)
    refuse_nonfinite(run, means["loss"])
    rates = {parameters["name"]: parameters["lr"] for parameters in run.optimizer.param_groups}
    run.logs.report_step(step=run.progress.step, epoch=run.progress.epoch, means=means, rates=rates)
    run.progress.recent_means.clear()


def refuse_nonfinite(run: Run, loss: float) -> None:
    """Raise if the loss is NaN or infinite, before anything of it reaches a checkpoint."""
    if math.isfinite(loss):
        return
    message = (
        f"the loss became {loss} by step {run.progress.step}; {run.folder / 'last.pt'}, if it exists, is "
        "from before. Look for NaN in the data, lower the learning rate, or use precision='bf16-mixed' in "
        "place of '16-mixed'."
    )
    raise FloatingPointError(message)


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Mean Dice of the images at 0.5, before and after refinement where the recipe refines.

    Each image counts once, whatever batch it comes in; what lies outside its content does not count.

    Args:
        run: the run.

    Returns:
        "dice" and perhaps "coarse_dice"; nothing without a validation set.
    """
    if run.validation is None:
        return {}
    run.recipe.module.eval()
    scores: dict[str, Tensor] = {}
    for cases, host_batch in run.validation:
        batch = run.fabric.to_device(host_batch)
        seed_everything_here(run.fabric.device, "validation", run.plan.seed, cases[0])
        # Not through the wrapped module: data parallelism would wait for processes that have fewer batches.
        with run.fabric.autocast():
            prediction = run.recipe.predict(batch, cases)
        for name, probability in (
            ("dice", prediction.probability),
            ("coarse_dice", prediction.coarse_probability),
        ):
            if probability is not None:
                dice = dice_of_images(_within_content(probability, batch), batch.masks)
                scores.setdefault(name, dice.new_zeros(run.validation.cases))[cases] = dice
    if run.fabric.world_size > 1:
        # Every process has its share of the cases and zeros elsewhere; all have to take part.
        scores = scores or {"dice": torch.zeros(run.validation.cases, device=run.fabric.device)}
        scores = {name: run.fabric.all_reduce(dice, reduce_op="sum") for name, dice in sorted(scores.items())}
    return {name: dice.cpu().double().mean().item() for name, dice in scores.items()}


def _within_content(probability: Tensor, batch: Batch) -> Tensor:
    """A mask without what it says of an image's padding."""
    height, width = probability.shape[-2:]
    rows = torch.arange(height, device=probability.device) < batch.content_sizes[:, :1]
    columns = torch.arange(width, device=probability.device) < batch.content_sizes[:, 1:]
    return probability * (rows[:, None, :, None] & columns[:, None, None, :])
