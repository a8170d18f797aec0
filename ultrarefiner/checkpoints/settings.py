"""What a run was made of, as plain values: what a checkpoint remembers and a resumed run is compared with."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None))
_LEAVES = (Enum, *_PLAIN, Tensor, np.ndarray, np.generic, torch.dtype, torch.device, os.PathLike, ModuleType, type)
_DEEPEST = 30


def describe(value: object, name: str = "settings") -> Any:
    """Everything but the weights of an object, as dictionaries, lists, numbers and strings.

    Whatever has ``settings()`` says it itself. Otherwise a dataclass is its fields; a module without weights (a loss,
    an augmentation) is its class and public options, children included; a module with weights its class and their
    number; a function its name and what it encloses; a `functools.partial` its function and arguments; an array its
    shape and digest; any other object its class and public attributes.

    Args:
        value: any object.
        name: what it is called in a complaint.

    Returns:
        A value that JSON and ``torch.load(weights_only=True)`` know.

    Raises:
        ValueError: two things that differ could not be told apart, or one not from itself: a lambda, an open file, an
            object with no attributes to read.

    Example:
        >>> describe({"layer": nn.Linear(2, 1), "loss": nn.SmoothL1Loss(beta=0.5), "sides": (2, 3)})
        {'layer': {'class': 'Linear', 'parameters': 3},
         'loss': {'class': 'SmoothL1Loss', 'reduction': 'mean', 'beta': 0.5}, 'sides': [2, 3]}
        >>> describe(functools.partial(round, ndigits=2))
        {'class': 'partial', 'function': {'class': 'round'}, 'args': [], 'keywords': {'ndigits': 2}}
    """
    return _describe(value, name, 0)


def _describe(value: Any, name: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise _refusal(value, name, f"it is nested more than {_DEEPEST} deep, or holds itself")
    if isinstance(value, _LEAVES):
        return _describe_leaf(value)
    settings = getattr(value, "settings", None)
    if callable(settings):
        return {"class": type(value).__qualname__, **_describe(settings(), name, depth + 1)}
    if isinstance(value, Mapping):
        return {str(key): _describe(part, f"{name}.{key}", depth + 1) for key, part in value.items()}
    if isinstance(value, (Sequence, Set)) and not dataclasses.is_dataclass(value):
        parts = [_describe(part, f"{name}[{index}]", depth + 1) for index, part in enumerate(value)]
        return sorted(parts, key=repr) if isinstance(value, Set) else parts
    if isinstance(value, (functools.partial, FunctionType, MethodType, BuiltinFunctionType)):
        return _describe_function(value, name, depth)
    return {"class": type(value).__qualname__, **_describe_object(value, name, depth)}


def _describe_leaf(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, _PLAIN):
        return _without_subclass(value)
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return _describe_array(value)
    if isinstance(value, type):
        return {"class": value.__qualname__}
    return str(getattr(value, "__name__", value))


def _without_subclass(value: Any) -> Any:
    """A NumPy float is a float, but a checkpoint with one could not be read back."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None


def _describe_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    array = value.detach().cpu() if isinstance(value, Tensor) else value
    content = repr((str(array.dtype), array.tolist())).encode()
    return {
        "class": type(value).__qualname__,
        "shape": list(value.shape),
        "digest": hashlib.sha256(content).hexdigest(),
    }


def _describe_function(value: Any, name: str, depth: int) -> dict[str, Any]:
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
        return {"class": "partial", **_describe(parts, name, depth + 1)}
    owner = getattr(value, "__self__", None)
    value = inspect.unwrap(value)  # what a decorator encloses is its own affair
    described = {"class": value.__qualname__}
    if "<lambda>" in value.__qualname__.rsplit(".", 1)[-1]:
        raise _refusal(value, name, "all lambdas have the same name")
    if owner is not None and not isinstance(owner, ModuleType):
        described["of"] = _describe(owner, f"{name}.__self__", depth + 1)
    closure = getattr(value, "__closure__", None) or ()
    if closure:
        enclosed = {key: cell.cell_contents for key, cell in zip(value.__code__.co_freevars, closure, strict=True)}
        described["encloses"] = _describe(enclosed, name, depth + 1)
    return described


def _describe_object(value: Any, name: str, depth: int) -> dict[str, Any]:
    """A dataclass, a module, or any other object."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        return {field: _describe(getattr(value, field), f"{name}.{field}", depth + 1) for field in fields}
    children: dict[str, Any] = {}
    if isinstance(value, nn.Module):
        weights = sum(parameter.numel() for parameter in value.parameters())
        if weights:
            return {"parameters": weights}
        if type(value).__repr__ is not nn.Module.__repr__:  # it prints its own options, as kornia's augmentations do
            if re.search(r" at 0x[0-9a-f]+", repr(value)):
                raise _refusal(value, name, "what it prints holds an address")
            return {"options": repr(value)}
        children = dict(value.named_children())
    elif not hasattr(value, "__dict__") or hasattr(value, "__next__"):
        raise _refusal(value, name, "it has no attributes that say what it is")
    options = {option: part for option, part in vars(value).items() if not option.startswith("_")}
    options.pop("training", None)
    return {option: _describe(part, f"{name}.{option}", depth + 1) for option, part in {**options, **children}.items()}


def _refusal(value: object, name: str, reason: str) -> ValueError:
    message = (
        f"{name} must be something that a checkpoint can describe, so that a resumed run can be compared with it, "
        f"but {value!r:.100} cannot be described: {reason}. Use a function made with def, a functools.partial or a "
        "dataclass, or give its class a method settings() that returns plain values."
    )
    return ValueError(message)


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
    both_nan = saved != saved and current != current  # only NaN is not itself
    return None if both_nan or saved == current else (name, saved, current)
