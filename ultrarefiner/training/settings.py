"""What a run was made of, as plain values: what a checkpoint remembers and a resumed run is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from torch import nn

_PLAIN = (bool, int, float, str, type(None))


def describe(value: object) -> Any:
    """Everything but the weights of an object, as dictionaries, lists, numbers and strings.

    Whatever has ``settings()`` says it itself. Otherwise a dataclass is its fields; a module without weights
    (a loss, an augmentation) is its class and public options, children included; a module with weights its
    class and their number.

    Args:
        value: any object.

    Returns:
        A value that JSON and ``torch.load(weights_only=True)`` know.

    Example:
        >>> describe({"layer": nn.Linear(2, 1), "loss": nn.SmoothL1Loss(beta=0.5), "sides": (2, 3)})
        {'layer': {'class': 'Linear', 'parameters': 3},
         'loss': {'class': 'SmoothL1Loss', 'reduction': 'mean', 'beta': 0.5}, 'sides': [2, 3]}
    """
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, _PLAIN):
        return _without_subclass(value)
    if isinstance(value, Mapping):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [describe(part) for part in value]
    described: dict[str, Any] = {"class": getattr(value, "__qualname__", type(value).__qualname__)}
    settings = getattr(value, "settings", None)
    if callable(settings):
        return {**described, **describe(settings())}
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        return {**described, **{name: describe(getattr(value, name)) for name in fields}}
    if isinstance(value, nn.Module):
        return {**described, **_describe_module(value)}
    return {**described, **_public_options(value)}


def _without_subclass(value: Any) -> Any:
    """A NumPy float is a float, but a checkpoint with one could not be read back."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None


def _describe_module(module: nn.Module) -> dict[str, Any]:
    weights = sum(parameter.numel() for parameter in module.parameters())
    if weights:
        return {"parameters": weights}
    if type(module).__repr__ is not nn.Module.__repr__:  # it prints its own options, as kornia's augmentations do
        return {"options": repr(module)}
    return {**_public_options(module), **{name: describe(child) for name, child in module.named_children()}}


def _public_options(value: object) -> dict[str, Any]:
    options = {name: option for name, option in getattr(value, "__dict__", {}).items() if not name.startswith("_")}
    options.pop("training", None)
    return {name: describe(option) for name, option in options.items() if _is_plain(option)}


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, (list, tuple)) and all(_is_plain(part) for part in value))


def first_difference(saved: Any, current: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Where two descriptions first differ.

    Args:
        saved: one description.
        current: the other.
        name: the name to begin with.

    Returns:
        (dotted name, saved value, current value), or None if they are equal. A value that is absent is
        "absent".

    Example:
        >>> first_difference({"prompts": {"mask_style": "direct"}}, {"prompts": {"mask_style": "gaussian"}})
        ('prompts.mask_style', 'direct', 'gaussian')
    """
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in [*current, *(key for key in saved if key not in current)]:
            found = first_difference(saved.get(key, "absent"), current.get(key, "absent"), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if saved == current else (name, saved, current)
