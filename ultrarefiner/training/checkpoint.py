"""Checkpoints of a run: written in one step, read back only into the run that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ultrarefiner.checkpoints.files import read_tensors, write_tensors
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.recipe import Recipe
from ultrarefiner.training.run import Run
from ultrarefiner.training.settings import describe, first_difference

FORMAT = 1


def save_last(run: Run) -> None:
    """Write ``last.pt``: all that is needed to go on as if nothing had happened."""
    progress = run.progress
    state = {
        "auxiliary": run.recipe.auxiliary().state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.fabric.strategy.precision.state_dict(),
        "progress": {
            "epoch": progress.epoch,
            "batch": progress.batch,
            "step": progress.step,
            "best_dice": progress.best_dice,
            "best_epoch": progress.best_epoch,
            "epoch_means": progress.epoch_means.state(),
            "recent_means": progress.recent_means.state(),
        },
    }
    _write(run, "last.pt", state)


def save_best(run: Run, dice: float) -> None:
    """Write ``best.pt``: the weights, and what they reached."""
    _write(run, "best.pt", {"dice": dice, "epoch": run.progress.epoch})


def settings_of(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What makes a run this run and no other, as plain values."""
    return {
        "recipe": describe(recipe.settings()),
        "parts": {name: describe(part) for name, part in recipe.parts().items()},
        "plan": describe(plan),
    }


def resume(run: Run) -> bool:
    """Go on from ``last.pt``, if there is one.

    Args:
        run: the run as it would start; its weights, optimiser and progress become those of the checkpoint.

    Returns:
        Whether there was one.

    Raises:
        ValueError: it is of a run with other settings, or damaged.
    """
    path = run.folder / "last.pt"
    if not path.exists():
        return False
    saved = read_tensors(path)
    _refuse_other_run(saved, run, path)
    run.recipe.module.load_state_dict(saved["model"], strict=True)
    run.recipe.auxiliary().load_state_dict(saved["auxiliary"], strict=True)
    run.optimizer.load_state_dict(saved["optimizer"])
    run.fabric.strategy.precision.load_state_dict(saved["scaler"])
    _restore_progress(run, saved["progress"])
    return True


def _restore_progress(run: Run, saved: Mapping[str, Any]) -> None:
    progress = run.progress
    progress.epoch, progress.batch, progress.step = saved["epoch"], saved["batch"], saved["step"]
    progress.best_dice, progress.best_epoch = saved["best_dice"], saved["best_epoch"]
    progress.epoch_means.restore(saved["epoch_means"], run.fabric.device)
    progress.recent_means.restore(saved["recent_means"], run.fabric.device)


def _refuse_other_run(saved: Mapping[str, Any], run: Run, path: Path) -> None:
    if saved.get("format") != FORMAT or not {"model", "optimizer", "progress", "settings"} <= saved.keys():
        message = (
            f"{path} is not a checkpoint of a run (format {FORMAT}): it holds "
            f"{', '.join(map(str, list(saved)[:6]))}. Train into another folder, or move the file away."
        )
        raise ValueError(message)
    different = first_difference(saved["settings"], settings_of(run.recipe, run.plan))
    if different is None:
        return
    name, before, now = different
    message = (
        f"{path} was written by a run whose {name} was {before!r}, but now it is {now!r}. Go on with the "
        "settings it was begun with, or train into another folder."
    )
    raise ValueError(message)


def _write(run: Run, name: str, state: Mapping[str, Any]) -> None:
    """Write the weights with where each part is, the settings, and some state; the other processes wait."""
    if run.fabric.is_global_zero:
        module = run.recipe.module
        payload = {
            "format": FORMAT,
            "model": module.state_dict(),
            "parts": {part: _name_of(part_module, module) for part, part_module in run.recipe.parts().items()},
            "settings": settings_of(run.recipe, run.plan),
            **state,
        }
        write_tensors(run.folder / name, payload)
    run.fabric.barrier()


def _name_of(part: nn.Module, module: nn.Module) -> str:
    names: list[str] = [name for name, candidate in module.named_modules() if candidate is part]
    return names[0]
