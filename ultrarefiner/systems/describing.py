"""Parts of a system as plain values: what config.json says of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from torch import nn

from ultrarefiner.checkpoints.settings import describe
from ultrarefiner.systems.part_kinds import kind_of


def describe_part(part: Any, path: str = "") -> Any:
    """A part as plain values that `build_part` understands.

    Args:
        part: a module, an input policy, a point rule, a number, a text, None, or a list of these.
        path: what it is called in its system.

    Returns:
        A dictionary with the name of its kind under "part" and its arguments. A part that is used twice is described
        once, and named by its place the second time; one that `torch.compile` wrapped, as without it. A part of an
        unknown class is named, with ``"rebuild": False``.

    Example:
        >>> from ultrarefiner.refinement import ProductGate, UncertaintyGate
        >>> describe_part(ProductGate(UncertaintyGate(2.0)))
        {'part': 'ProductGate',
         'gates': [{'part': 'UncertaintyGate', 'gamma': 2.0, 'minimum': 0.0, 'maximum': 1.0}]}
        >>> describe_part(nn.Linear(2, 1))
        {'part': 'Linear', 'rebuild': False}
    """
    return _described(part, path, {})


def own_settings(part: Any) -> dict[str, Any]:
    """What a part of an unknown class says of itself, under "settings"; nothing if it says nothing.

    Example:
        >>> own_settings(nn.Identity())
        {}
    """
    if not callable(getattr(part, "settings", None)) and not dataclasses.is_dataclass(part):
        return {}
    return {"settings": describe(part)}


def _described(part: Any, path: str, seen: dict[int, str]) -> Any:
    part = part.item() if isinstance(part, np.generic) else getattr(part, "_orig_mod", part)
    if part is None or isinstance(part, bool):
        return part
    for plain in (str, int, float):
        if isinstance(part, plain):
            return plain(part)  # without its subclass
    if isinstance(part, (list, tuple, nn.ModuleList)):
        return [_described(one, below(path, str(index)), seen) for index, one in enumerate(part)]
    if isinstance(part, nn.Module):
        if id(part) in seen:
            return {"part": "shared", "with": seen[id(part)]}
        seen[id(part)] = path
    kind = kind_of(part)
    if kind is None:
        return {"part": type(part).__qualname__, "rebuild": False, **own_settings(part)}
    arguments = kind.read(part)
    return {
        "part": kind.name,
        **{name: _described(arguments[name], below(path, name), seen) for name in kind.wanted()},
    }


def below(path: str, name: str) -> str:
    """The place of an argument of the part at a place.

    Example:
        >>> below("", "refiner"), below("refiner", "sam")
        ('refiner', 'refiner.sam')
    """
    return f"{path}.{name}" if path else name
