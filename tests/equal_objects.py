"""Whether two objects are the same in everything that they hold, whatever is nested in what."""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch

_PASSING = {"training", "__weakref__"}


def differences(one: Any, other: Any, path: str = "", seen: set[tuple[int, int]] | None = None) -> list[str]:
    """The places at which they differ; attributes that begin with an underscore count, too."""
    seen = set() if seen is None else seen
    if (id(one), id(other)) in seen:
        return []
    seen.add((id(one), id(other)))
    if type(one) is not type(other):
        return [f"{path}: {type(one)} and {type(other)}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same else [f"{path}: {one.shape} {one.dtype} and {other.shape} {other.dtype}, or other values"]
    if isinstance(one, (FunctionType, BuiltinFunctionType)):
        return [] if one.__qualname__ == other.__qualname__ else [f"{path}: {one} and {other}"]
    pairs = _pairs(one, other)
    if pairs is None:
        return [] if one == other or one is other else [f"{path}: {one!r:.60} and {other!r:.60}"]
    if pairs.keys() != _pairs(other, one).keys():
        return [f"{path}: {sorted(map(str, pairs))} and {sorted(map(str, _pairs(other, one)))}"]
    return [found for name, pair in pairs.items() for found in differences(*pair, f"{path}.{name}", seen)]


def _pairs(one: Any, other: Any) -> dict[Any, tuple[Any, Any]] | None:
    """What is nested in both, by name; None if nothing is."""
    first, second = _content(one), _content(other)
    if first is None or second is None:
        return None
    return {name: (value, second.get(name, "absent")) for name, value in first.items()}


def _content(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, dict):
        return {**value, **_attributes(value)}
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "options": value.keywords}
    if isinstance(value, MethodType):
        return {"function": value.__func__, "of": value.__self__}
    return _attributes(value) if hasattr(value, "__dict__") and not isinstance(value, type) else None


def _attributes(value: Any) -> dict[str, Any]:
    return {name: part for name, part in getattr(value, "__dict__", {}).items() if name not in _PASSING}
