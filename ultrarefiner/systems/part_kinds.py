"""The kinds of parts that a saved system may have: what builds each from plain values, and how they are read off it.

Only classes and builders that were registered are ever called; a name in a file imports nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, TypeVar, get_type_hints

from torch import nn

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class Kind:
    """A kind of part that can be built from plain values.

    Attributes:
        name: what files call it.
        build: the class or builder; its signature says what it takes.
        read: a part's arguments, as they would be given to ``build``.
        knows: whether a part of the class is one that ``build`` builds.
    """

    name: str
    build: Callable[..., Any]
    read: Callable[[Any], Mapping[str, Any]]
    knows: Callable[[Any], bool]

    def wanted(self) -> dict[str, Any]:
        """The arguments of ``build`` with their annotations, in order; of ``*parts`` that of the whole list.

        Raises:
            ValueError: an annotation names what is not there.
        """
        function: Any = self.build.__init__ if isinstance(self.build, type) else self.build  # type: ignore[misc]  # asked, not called
        try:
            hints = get_type_hints(function)
        except NameError as error:
            message = (
                f"{self.name} has an annotation that cannot be read ({error}); define or import that name where the "
                "class is defined, outside of functions and not under TYPE_CHECKING."
            )
            raise ValueError(message) from error
        found = {name: hints[name] for name in parameters_of(self.build)}
        for name, parameter in parameters_of(self.build).items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                found[name] = GenericAlias(Sequence, (found[name],))
        return found


_BY_NAME: dict[str, Kind] = {}
_BY_CLASS: dict[type, list[Kind]] = {}


def register_part(
    cls: _Class,
    *,
    name: str | None = None,
    build: Callable[..., Any] | None = None,
    read: Callable[[Any], Mapping[str, Any]] | None = None,
    knows: Callable[[Any], bool] = lambda part: True,  # noqa: ARG005 - asked alike for every kind
) -> _Class:
    """Let `from_pretrained` build parts of a class of your own.

    Its constructor's arguments must be annotated, and the parts keep them as attributes of the same names. They may be
    numbers, texts, truth values, None, parts that are known in turn, and lists of all these (or an `nn.ModuleList`).
    Usable as a decorator.

    Args:
        cls: the class. Parts of a subclass of it are not of this kind; register it too.
        name: what files call it; by default what builds it.
        build: what builds it, if not the class itself.
        read: its arguments, if they are not attributes of the same names.
        knows: whether a part of the class is one that ``build`` builds.

    Returns:
        The class.

    Raises:
        ValueError: another class of this name is registered, or the constructor takes ``**`` anything or an argument
            without annotation.

    Example:
        >>> from ultrarefiner.systems.describing import describe_part
        >>> from ultrarefiner.systems.rebuilding import build_part
        >>> class Threshold(nn.Module):
        ...     def __init__(self, height: float = 0.5) -> None:
        ...         super().__init__()
        ...         self.height = height
        >>> register_part(Threshold).__name__
        'Threshold'
        >>> describe_part(Threshold(0.25))
        {'part': 'Threshold', 'height': 0.25}
        >>> build_part({"part": "Threshold", "height": 0.25}).height
        0.25
    """
    builder = cls if build is None else build
    name = builder.__name__ if name is None else name
    known = _BY_NAME.get(name)
    if known is not None and _source(known.build) != _source(builder):
        message = f"A part named {name} is registered already, {_source(known.build)}; give your class another name."
        raise ValueError(message)
    names = _annotated(builder)
    kind = Kind(name, builder, read or (lambda part: {name: _kept(part, name) for name in names}), knows)
    _BY_NAME[name] = kind
    _BY_CLASS[cls] = [*(other for other in _BY_CLASS.get(cls, []) if other.name != name), kind]
    return cls


def name_of(cls: type) -> str:
    """What files call a class that was registered.

    Raises:
        ValueError: it is not registered.

    Example:
        >>> from ultrarefiner.refinement import SoftSelection
        >>> name_of(SoftSelection)
        'SoftSelection'
    """
    kinds = _BY_CLASS.get(cls)
    if not kinds:
        message = (
            f"{cls.__name__} is not known to save_pretrained and from_pretrained: a subclass may have other settings. "
            f"Register it once with ultrarefiner.systems.register_part({cls.__name__})."
        )
        raise ValueError(message)
    return kinds[0].name


def parameters_of(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a class or builder takes, in order.

    Raises:
        ValueError: it takes ``**`` anything, so that nobody knows what.

    Example:
        >>> list(parameters_of(nn.ReLU6)), list(parameters_of(nn.Sigmoid))
        (['inplace'], [])
    """
    if getattr(build, "__init__", None) is nn.Module.__init__:
        return {}
    found = dict(inspect.signature(build).parameters)
    if open_ended := [name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD]:
        message = (
            f"{build.__name__} takes **{open_ended[0]}, so its arguments are not known; name them, so that a saved "
            "system remembers each."
        )
        raise ValueError(message)
    return found


def kind_named(name: object) -> Kind | None:
    """The kind of a name in a file, or None.

    Example:
        >>> kind_named("os.system") is None
        True
    """
    return _BY_NAME.get(name) if isinstance(name, str) else None


def kind_of(part: object) -> Kind | None:
    """The kind that builds parts like this one, or None.

    Example:
        >>> kind_of(open) is None
        True
    """
    return next((kind for kind in _BY_CLASS.get(type(part), []) if kind.knows(part)), None)


def _annotated(build: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments, if all say what they are."""
    found = parameters_of(build)
    if silent := [name for name, parameter in found.items() if parameter.annotation is parameter.empty]:
        message = (
            f"{build.__name__} must annotate every argument of its constructor, but {silent[0]} has no annotation; a "
            "file's value is checked against it."
        )
        raise ValueError(message)
    return tuple(found)


def _kept(part: Any, name: str) -> Any:
    """The attribute that an argument was kept as."""
    if not hasattr(part, name):
        message = (
            f"{type(part).__name__} must keep its argument {name} as an attribute of that name to be saved, but it has "
            f"none; write self.{name} = {name}, or register it with read=."
        )
        raise ValueError(message)
    return getattr(part, name)


def _source(build: Callable[..., Any]) -> str:
    return f"{build.__module__}.{build.__qualname__}"
