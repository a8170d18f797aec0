"""How a public name of ours leaves: it goes on working for a while, and says at the caller's line what to use instead.

For the package's own use; the policy is in docs/how-to/versions.md. The warning is a `FutureWarning`, because Python
hides a `DeprecationWarning` unless it comes from the script that was started, and researchers' calls are in modules and
notebooks that import one another. Type checkers keep seeing the signature.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from typing_extensions import deprecated as marked_deprecated

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", bound=Callable[..., Any])


def deprecated(*, since: str, gone_in: str, instead: str | None) -> Callable[[_T], _T]:
    """Mark a function, method or class that will go: a call of it warns and does what it always did.

    A class warns when it is made or subclassed; instances of its subclasses do not warn. What is marked tells it in
    ``__deprecated__``, as PEP 702 has it.

    Args:
        since: the version that first warned, such as "0.2".
        gone_in: the version that will not have it any more.
        instead: what to write in its place, as a sentence's object ("dice_loss"); None where nothing takes it.

    Returns:
        A decorator that returns a callable with the same signature, or the same class.

    Raises:
        ValueError: gone_in is not a later version than since.

    Example:
        >>> @deprecated(since="0.2", gone_in="0.4", instead="area")
        ... def surface(side: float) -> float:
        ...     return side * side
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     surface(3.0)
        9.0
        >>> print(caught[0].message)
        surface is deprecated since ultrarefiner 0.2 and will be gone in 0.4; use area instead.
    """
    _check_order(since, gone_in)

    def mark(target: _T) -> _T:
        remedy = "nothing takes its place" if instead is None else f"use {instead} instead"
        sentence = f"{target.__qualname__} is {_fate(since, gone_in)}; {remedy}."
        return marked_deprecated(sentence, category=FutureWarning)(target)

    return mark


def renamed_arguments(
    names: Mapping[str, str], *, since: str, gone_in: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function go on taking keyword arguments by their old names, with a warning.

    Of a class, it stands above ``__init__``. Type checkers see the new names only.

    Args:
        names: old name to new name.
        since: the version that first warned.
        gone_in: the version that will refuse the old names.

    Returns:
        A decorator that returns a callable with the same signature.

    Raises:
        ValueError: gone_in is not a later version than since, or the function has no argument of a new name, or still
            has one of an old name.
        TypeError: from the decorated function, where a call gives an argument by both of its names.

    Example:
        >>> @renamed_arguments({"r": "radius"}, since="0.2", gone_in="0.4")
        ... def circumference(*, radius: float) -> float:
        ...     return 6.28 * radius
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     circumference(r=1.0)
        6.28
        >>> print(caught[0].message)
        circumference's argument r is deprecated since ultrarefiner 0.2 and will be gone in 0.4; call it radius instead.
    """
    _check_order(since, gone_in)

    def mark(function: Callable[_P, _R]) -> Callable[_P, _R]:
        name = function.__qualname__.removesuffix(".__init__")
        arguments = inspect.signature(function).parameters
        if not set(names.values()) <= arguments.keys() or names.keys() & arguments.keys():
            message = (
                f"names must lead from arguments that {name} no longer has to those that it has, but they are "
                f"{dict(names)} and its arguments {', '.join(sorted(arguments))}."
            )
            raise ValueError(message)

        @functools.wraps(function)
        def renaming(*args: _P.args, **given: _P.kwargs) -> _R:
            for old in sorted(names.keys() & given.keys()):
                new = names[old]
                if new in given:
                    message = f"{name} got {new} and {old}, which is the same argument's old name; leave out {old}."
                    raise TypeError(message)
                message = f"{name}'s argument {old} is {_fate(since, gone_in)}; call it {new} instead."
                warnings.warn(message, FutureWarning, stacklevel=2)
                given[new] = given.pop(old)
            return function(*args, **given)

        return renaming

    return mark


def _fate(since: str, gone_in: str) -> str:
    return f"deprecated since ultrarefiner {since} and will be gone in {gone_in}"


def _check_order(since: str, gone_in: str) -> None:
    for version in (since, gone_in):
        if not re.fullmatch(r"[0-9]+\.[0-9]+", version):
            message = f"since and gone_in must be versions such as '0.4', two numbers, but one is {version!r}."
            raise ValueError(message)
    first, last = ([int(part) for part in version.split(".")] for version in (since, gone_in))
    if first >= last:
        message = f"gone_in must be a later version than since, but they are {gone_in!r} and {since!r}."
        raise ValueError(message)
