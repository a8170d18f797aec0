"""Whether what a file describes is what a constructor's argument wants, by the argument's annotation."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin


def as_wanted(value: Any, wanted: Any) -> tuple[bool, Any]:
    """Whether a value of JSON, or a part that was built, fits an annotation, and the value as the annotation has it.

    Args:
        value: None, a truth value, a number, a text, a part, or a list of these.
        wanted: the annotation: `int`, `float`, `bool`, `str`, `Literal`, a class, a sequence of these, a union of them,
            or `Any`, which takes everything.

    Returns:
        True and the value (a whole number becomes a float where one is wanted), or False and the value as it came.

    Example:
        >>> as_wanted(2, float), as_wanted([1, 2], Sequence[int]), as_wanted(None, int | None)
        ((True, 2.0), (True, [1, 2]), (True, None))
        >>> as_wanted(True, int), as_wanted("2", float), as_wanted("cubic", Literal["square", "image"])
        ((False, True), (False, '2'), (False, 'cubic'))
    """
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return next((found for part in get_args(wanted) if (found := as_wanted(value, part))[0]), (False, value))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(wanted)), value
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _sequence_as_wanted(value, origin, get_args(wanted))
    if wanted is float and type(value) is int:
        return True, float(value)
    if wanted is Any:
        return True, value
    if wanted in (int, float, bool, str, types.NoneType):
        return type(value) is wanted, value
    return isinstance(wanted, type) and isinstance(value, wanted), value


def _sequence_as_wanted(value: Any, origin: type, wanted: tuple[Any, ...]) -> tuple[bool, Any]:
    """Lists of JSON as sequences of one kind, and tuples of a fixed length."""
    if not isinstance(value, list):
        return False, value
    pair = issubclass(origin, tuple) and wanted[-1] is not ...
    if pair and len(value) != len(wanted):
        return False, value
    found = [as_wanted(part, wanted[index] if pair else wanted[0]) for index, part in enumerate(value)]
    parts = [part for _, part in found]
    return all(fits for fits, _ in found), tuple(parts) if issubclass(origin, tuple) else parts


def in_words(wanted: Any) -> str:
    """An annotation as a sentence has it.

    Example:
        >>> in_words(int | None), in_words(Literal["sam", "medsam"]), in_words(Sequence[float])
        ('int or None', "'sam' or 'medsam'", 'a list of float')
    """
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        pair = issubclass(origin, tuple) and parts[-1] is not ...
        return f"a list of {' and '.join(in_words(part) for part in (parts if pair else parts[:1]))}"
    return "None" if wanted is types.NoneType else str(getattr(wanted, "__name__", wanted))
