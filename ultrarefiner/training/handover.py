"""From one phase to the next: weights go only into a part with the settings they were trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ultrarefiner.checkpoints.files import Location, read_tensors
from ultrarefiner.checkpoints.settings import describe, first_difference
from ultrarefiner.data import Cases
from ultrarefiner.systems import SAMRefiner
from ultrarefiner.training.loading import FittedSet
from ultrarefiner.training.provenance import refuse_seen, remember
from ultrarefiner.training.tensors import refuse_other_tensors

# These change gradients only: weights mean the same with and without.
_WITHOUT_EFFECT_ON_MASKS = ("through_crop",)


def load_coarse(network: nn.Module, path: Location, *, unseen: Sequence[FittedSet | Cases] = ()) -> None:
    """Load the coarse network of a `CoarseRecipe`'s or `JointRecipe`'s checkpoint, strictly.

    Args:
        network: built as it was for training.
        path: ``best.pt`` or ``last.pt``.
        unseen: data sets that no phase may have been trained on, such as those that choose and those that are reported.
            (Which cases chose a checkpoint is not known: keep those that are reported out of every validation.)

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no coarse network, or one that differs, or was trained on a case that is
            to be unseen; the network is left as it was.
    """
    _load_part(network, "coarse", path, unseen)


def load_refiner(refiner: SAMRefiner, path: Location, *, unseen: Sequence[FittedSet | Cases] = ()) -> None:
    """Load the refiner of a `RefinerRecipe`'s or `JointRecipe`'s checkpoint, strictly.

    A refiner learns what its prompts look like: with another mask style, region or number of sigmas its
    weights are wrong without any error. So the checkpoint knows all of them, and this function compares;
    ``through_crop`` may differ, for it changes gradients only. To take weights over into other settings on purpose,
    use `ultrarefiner.load_weights`.

    Args:
        refiner: built as it was for training.
        path: ``best.pt`` or ``last.pt``.
        unseen: data sets that no phase may have been trained on, as in `load_coarse`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no refiner, or one with other settings or weights, or was trained on a case
            that is to be unseen; the refiner is left as it was.
    """
    _load_part(refiner, "refiner", path, unseen)


def load_gate(gate: nn.Module, path: Location, *, unseen: Sequence[FittedSet | Cases] = ()) -> None:
    """Load the gate of a `RefinerRecipe`'s or `JointRecipe`'s checkpoint, strictly.

    Args:
        gate: built as it was for training.
        path: ``best.pt`` or ``last.pt``.
        unseen: data sets that no phase may have been trained on, as in `load_coarse`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no gate, or one that differs, or was trained on a case that is to be
            unseen; the gate is left as it was.
    """
    _load_part(gate, "gate", path, unseen)


def _load_part(module: nn.Module, part: str, path: Location, unseen: Sequence[FittedSet | Cases]) -> None:
    saved = read_tensors(path)
    parts: dict[str, str] = saved.get("parts", {})
    if part not in parts or not {"settings", "model"} <= saved.keys():
        message = (
            f"{path} must be a checkpoint that train() wrote and hold the part {part!r}, but it holds "
            f"{', '.join(parts) or ', '.join(map(str, list(saved)[:6]))}. Use load_weights for other files."
        )
        raise ValueError(message)
    refuse_seen(saved.get("learnt_from"), unseen, path)
    trained = saved["settings"].get("parts", {}).get(part, {})
    different = first_difference(_of_masks(trained), _of_masks(describe(module, part)))
    if different is not None:
        name, before, now = different
        message = (
            f"{path} holds a {part} that was trained with {name} {before!r}, but this one has {now!r}. "
            f"Build it with {name} {before!r}, or use load_weights if the change is meant."
        )
        raise ValueError(message)
    prefix = f"{parts[part]}." if parts[part] else ""
    state = {name.removeprefix(prefix): tensor for name, tensor in saved["model"].items() if name.startswith(prefix)}
    refuse_other_tensors(module, state, Path(path))
    module.load_state_dict(state, strict=True)
    remember(module, saved.get("learnt_from"))


def _of_masks(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT_ON_MASKS}
