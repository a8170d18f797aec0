"""Checkpoints of a run: written in one step, read back only into the run that they came from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ultrarefiner.checkpoints.files import read_tensors, write_tensors
from ultrarefiner.checkpoints.settings import describe, first_difference
from ultrarefiner.training.identity import describe_cases
from ultrarefiner.training.loading import FittedSet
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.provenance import learnt_so_far, remember
from ultrarefiner.training.recipe import Recipe
from ultrarefiner.training.run import Run
from ultrarefiner.training.tensors import refuse_other_tensors

FORMAT = 1

_LOGGER = logging.getLogger("ultrarefiner")
_KEYS = ("model", "auxiliary", "optimizer", "scaler", "progress", "settings")
_PROGRESS_KEYS = ("epoch", "batch", "step", "best_dice", "best_epoch", "epoch_means", "recent_means")


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


def keep(run: Run, scores: Mapping[str, float]) -> None:
    """Write the weights of every so many epochs to a file of their own, ``epoch0009.pt``, which stays."""
    if run.keep_every is not None and (run.progress.epoch + 1) % run.keep_every == 0:
        _write(run, f"epoch{run.progress.epoch:04d}.pt", {"epoch": run.progress.epoch, **scores})


def settings_of(recipe: Recipe, plan: Plan, dataset: FittedSet, validation: FittedSet | None) -> dict[str, Any]:
    """What makes a run this run and no other, as plain values.

    Args:
        recipe: the phase.
        plan: the numbers.
        dataset: the training set.
        validation: the validation set, if there is one.

    Raises:
        ValueError: a setting cannot be described.
    """
    return {
        "recipe": describe(recipe.settings(), "recipe"),
        "parts": {name: describe(part, f"parts.{name}") for name, part in recipe.parts().items()},
        "plan": describe(plan, "plan"),
        "data": {
            "training": describe_cases(dataset),
            "validation": None if validation is None else describe_cases(validation),
        },
    }


def resume(run: Run) -> int | None:
    """Go on from ``last.pt``, if there is one.

    Args:
        run: the run as it would start; its weights, optimiser and progress become those of the checkpoint.

    Returns:
        The step from which the run goes on; None if it starts anew.

    Raises:
        ValueError: it is of a run with other settings or other cases, or damaged.
    """
    path = run.folder / "last.pt"
    if not path.exists():
        return None
    saved = read_tensors(path)
    _refuse_other_run(saved, run, path)
    auxiliary = run.recipe.auxiliary()
    refuse_other_tensors(run.recipe.module, saved["model"], path)
    refuse_other_tensors(auxiliary, saved["auxiliary"], path)
    run.recipe.module.load_state_dict(saved["model"], strict=True)
    remember(run.recipe.module, saved.get("learnt_from"))
    auxiliary.load_state_dict(saved["auxiliary"], strict=True)
    run.optimizer.load_state_dict(saved["optimizer"])
    run.fabric.strategy.precision.load_state_dict(saved["scaler"])
    _restore_progress(run, saved["progress"])
    _announce(run, path)
    return run.progress.step


def _announce(run: Run, path: Path) -> None:
    if not run.fabric.is_global_zero:
        return
    epoch, epochs, step = run.progress.epoch, run.plan.epochs, run.progress.step
    if epoch >= epochs:
        _LOGGER.info("%s is of a finished run (%d epochs, %d steps): nothing is left to train", path, epochs, step)
    else:
        _LOGGER.info("going on from %s after step %d, in epoch %d of %d", path, step, epoch + 1, epochs)


def _restore_progress(run: Run, saved: Mapping[str, Any]) -> None:
    progress = run.progress
    progress.epoch, progress.batch, progress.step = saved["epoch"], saved["batch"], saved["step"]
    progress.best_dice, progress.best_epoch = saved["best_dice"], saved["best_epoch"]
    progress.epoch_means.restore(saved["epoch_means"], run.fabric.device)
    progress.recent_means.restore(saved["recent_means"], run.fabric.device)


def _refuse_other_run(saved: Mapping[str, Any], run: Run, path: Path) -> None:
    missing = [key for key in _KEYS if key not in saved]
    if not missing:
        missing = [f"progress.{key}" for key in _PROGRESS_KEYS if key not in saved["progress"]]
    if saved.get("format") != FORMAT or missing:
        message = (
            f"{path} is not a checkpoint of a run (format {FORMAT}): it holds "
            f"{', '.join(map(str, list(saved)[:6]))}{', and lacks ' * bool(missing)}{', '.join(missing)}. Train into "
            "another folder, or move the file away."
        )
        raise ValueError(message)
    begun = dict(saved["settings"])
    begun["recipe"] = {**run.recipe.earlier_settings(), **begun.get("recipe", {})}
    different = first_difference(begun, run.settings)
    if different is None:
        return
    name, before, now = different
    if name.startswith("data"):
        raise ValueError(_other_cases(path, saved["settings"].get("data", {}), run.settings["data"]))
    message = (
        f"{path} was written by a run whose {name} was {before!r}, but now it is {now!r}. Go on with the "
        "settings it was begun with, or train into another folder."
    )
    raise ValueError(message)


def _other_cases(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    which = "training" if saved.get("training") != current["training"] else "validation"

    def say(cases: Mapping[str, Any] | None) -> str:
        if cases is None:
            return "none"
        fitted = "" if cases.get("fit") is None else f" by {cases['fit']}"
        return f"{cases['cases']} cases of side {cases['size']}{fitted} with the digest {cases['digest'][:12]}"

    return (
        f"{path} was written by a run with another {which} set: it was {say(saved.get(which))}, but now it is "
        f"{say(current[which])} (a digest is of the cases' names in their order). Go on with the cases it was begun "
        "with, or train into another folder."
    )


def _write(run: Run, name: str, state: Mapping[str, Any]) -> None:
    """Write the weights with where each part is, the settings, and some state; the other processes wait."""
    if run.fabric.is_global_zero:
        module = run.recipe.module
        payload = {
            "format": FORMAT,
            "model": module.state_dict(),
            "parts": {part: _name_of(part_module, module) for part, part_module in run.recipe.parts().items()},
            "settings": run.settings,
            "learnt_from": learnt_so_far(run.learnt_from, run.recipe.module),
            **state,
        }
        write_tensors(run.folder / name, payload)
    run.fabric.barrier()


def _name_of(part: nn.Module, module: nn.Module) -> str:
    names: list[str] = [name for name, candidate in module.named_modules() if candidate is part]
    return names[0]
