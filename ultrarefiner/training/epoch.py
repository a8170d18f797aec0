"""One epoch of training, one pass of validation."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import nn

from ultrarefiner.data import Batch, VolumeBatch
from ultrarefiner.training.checkpoint import save_last
from ultrarefiner.training.recipe import Prediction, inside_content
from ultrarefiner.training.run import Parcel, Run, named_means, seed_everything_here
from ultrarefiner.training.stopping import StopRequest


def train_epoch(run: Run, stop: StopRequest) -> None:
    """Go through the rest of the current epoch.

    Args:
        run: the run; its progress moves on.
        stop: whether somebody asked to stop.

    Raises:
        KeyboardInterrupt: somebody did; everything is saved.
        FloatingPointError: the loss or its gradient is no longer finite; nothing is saved.
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
        if last or (run.log_every is not None and progress.step % run.log_every == 0):
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
    if run.progress.epoch >= run.plan.epochs:
        message = (
            f"training was asked to stop, but all {run.plan.epochs} epochs are done; everything is saved in "
            f"{run.folder / 'last.pt'}. Run the same command again to get its result."
        )
        raise KeyboardInterrupt(message)
    message = (
        f"training stopped in epoch {run.progress.epoch + 1} of {run.plan.epochs} after step "
        f"{run.progress.step}; everything is saved in {run.folder / 'last.pt'}. Run the same command again to "
        "go on from there."
    )
    raise KeyboardInterrupt(message)


def _checkpoint_is_due(run: Run) -> bool:
    return run.checkpoint_every is not None and run.progress.step % run.checkpoint_every == 0


def _step(run: Run, group: list[Batch | VolumeBatch]) -> None:
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
    _check_gradient(run)
    factor = plan.schedule.factor(progress.step, plan.steps)
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = parameters["initial_lr"] * factor
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    progress.step += 1


def _check_gradient(run: Run) -> None:
    """Clip the gradient; raise if it is not finite, for one step with it spoils every weight.

    In float16 an overflow is expected now and then: the scaler then skips the step.
    """
    scales = getattr(run.fabric.strategy.precision, "scaler", None) is not None
    if run.plan.clip_norm is not None:
        norm = run.fabric.clip_gradients(
            run.module, run.optimizer, max_norm=run.plan.clip_norm, error_if_nonfinite=False
        )
    elif scales:
        return
    else:
        norm = nn.utils.clip_grad_norm_(run.module.parameters(), math.inf)
    if scales or norm.isfinite():
        return
    refuse_nonfinite(run, run.progress.recent_means.means()["loss"])
    message = (
        f"the loss was finite, but the norm of its gradient became {norm.item()} in step {run.progress.step + 1}; "
        f"{run.folder / 'last.pt'}, if it exists, is from before. Look for a root, a logarithm or a division at 0 in "
        "the loss, or lower the learning rate."
    )
    raise FloatingPointError(message)


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
    # The last column says whether there are such masks at all: a process without a case does not know.
    scores = torch.zeros(len(Prediction._fields), run.validation.cases + 1, device=run.fabric.device)
    for cases, host_batch in run.validation:
        batch = run.fabric.to_device(host_batch)
        seed_everything_here(run.fabric.device, "validation", run.plan.seed, cases[0])
        # Not through the wrapped module: data parallelism would wait for processes that have fewer batches.
        with run.fabric.autocast():
            prediction = run.recipe.predict(batch, cases)
        for row, probability in zip(scores, prediction, strict=True):
            if probability is not None:
                if batch.content_sizes is not None:
                    probability = probability * inside_content(batch.content_sizes, probability.shape[-2:])
                row[cases] = run.recipe.dice(probability, batch.masks)
                row[-1] = 1
    if run.fabric.world_size > 1:
        # Every process has its share of the cases, perhaps none, and zeros elsewhere: one sum for all of it.
        scores = run.fabric.all_reduce(scores, reduce_op="sum")
    rows = zip(("dice", "coarse_dice"), scores.cpu().double(), strict=True)
    return {name: row[:-1].mean().item() for name, row in rows if row[-1] > 0}


@torch.no_grad()
def share_buffers(run: Run) -> None:
    """Give every process the first one's buffers: batch norm has averaged other images in each.

    So all validate one and the same model, and it is the one that is saved.
    """
    if run.fabric.world_size == 1:
        return
    for buffer in run.recipe.module.buffers():
        values = buffer.contiguous()
        torch.distributed.broadcast(values, src=0)
        if values is not buffer:
            buffer.copy_(values)
