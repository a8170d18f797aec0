"""Plain values to parts: a system is built anew from what config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultrarefiner.checkpoints.settings import first_difference
from ultrarefiner.systems.describing import below, own_settings
from ultrarefiner.systems.part_kinds import Kind, kind_named, parameters_of
from ultrarefiner.systems.plain_values import as_wanted, in_words

_BUILD_ERRORS = (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What constructors raise at numbers that make no sense; what they raise at a missing package passes."""


def build_part(described: Any, *, given: Mapping[str, Any] | None = None) -> Any:
    """Build what `describe_part` described, with random weights.

    Args:
        described: its plain values.
        given: finished parts by their place, such as "coarse" or "refiner.sam"; they are taken as they are.

    Returns:
        The part.

    Raises:
        ValueError: an unknown part, an unknown or missing argument, a value of the wrong kind or out of range, or a
            part that has to be given; or one was given that has no place.

    Example:
        >>> build_part({"part": "UncertaintyGate", "gamma": 2.0, "width": 3})
        Traceback (most recent call last):
        ValueError: settings has the unknown key 'width': UncertaintyGate takes gamma, minimum, maximum. ...
    """
    return _Builder(given or {}).build(described, "")


def build_system(name: str, settings: Mapping[str, Any], *, given: Mapping[str, Any]) -> Any:
    """Build a system from its name and settings, as `build_part`.

    Example:
        >>> build_system("UncertaintyGate", {"gamma": 2.0}, given={}).gamma
        2.0
    """
    builder = _Builder(given)
    system = builder.build({**settings, "part": name}, "")
    builder.check_given()
    return system


class _Builder:
    """Builds one system; remembers what it built and which of the given parts it took."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.taken: set[str] = set()
        self.built: dict[str, Any] = {}

    def build(self, described: Any, path: str) -> Any:
        """The part at a place."""
        if path in self.given:
            self.taken.add(path)
            _check_own_settings(described, self.given[path], path)
            self.built[path] = self.given[path]
            return self.given[path]
        if isinstance(described, list):
            return [self.build(one, below(path, str(index))) for index, one in enumerate(described)]
        if not isinstance(described, dict):
            return described
        name = described.get("part")
        if described.get("rebuild", True) is not True:
            raise _asked_for(described, path)
        if name == "shared":
            return self._shared(described, path)
        kind = kind_named(name)
        if kind is None:
            message = (
                f"{_place(path)} is of the unknown part {name!r:.80}; a newer ultrarefiner may know it, or register "
                "its class with ultrarefiner.systems.register_part."
            )
            raise ValueError(message)
        part = self._of_kind(kind, described, path)
        self.built[path] = part
        return part

    def check_given(self) -> None:
        """Whether every part that was given has a place.

        Raises:
            ValueError: one has none.
        """
        if lost := [name for name in self.given if name not in self.taken]:
            message = (
                f"{lost[0]} was given, but the saved system has no place of that name that is built from its settings; "
                'give parts by their argument, such as coarse=..., or deeper ones as **{"refiner.sam": ...}.'
            )
            raise ValueError(message)

    def _shared(self, described: Mapping[str, Any], path: str) -> Any:
        place = described.get("with")
        found = self.built.get(place) if isinstance(place, str) else None
        if found is None:
            message = (
                f"{_place(path)} is the same part as {place!r:.80}, which was not built before it; give both, as "
                f'**{{"{path}": ...}}.'
            )
            raise ValueError(message)
        return found

    def _of_kind(self, kind: Kind, described: Mapping[str, Any], path: str) -> Any:
        wanted = kind.wanted()
        if unknown := [key for key in described if key not in wanted and key != "part"]:
            message = (
                f"{_place(path)} has the unknown key {unknown[0]!r:.80}: {kind.name} takes "
                f"{', '.join(wanted) or 'nothing'}. A newer ultrarefiner may know it."
            )
            raise ValueError(message)
        arguments = {
            name: self._argument(described.get(name), wanted[name], below(path, name))
            for name in wanted
            if name in described or below(path, name) in self.given
        }
        return _called(kind, arguments, path)

    def _argument(self, described: Any, wanted: Any, path: str) -> Any:
        value = self.build(described, path)
        if path in self.given:
            return value
        fits, value = as_wanted(value, wanted)
        if not fits:
            came = described.get("part") if isinstance(described, dict) else described
            message = f"{_place(path)} must be {in_words(wanted)}, but it is {came!r:.100}; save the system again."
            raise ValueError(message)
        return value


def _called(kind: Kind, arguments: dict[str, Any], path: str) -> Any:
    bound: list[Any] = []
    for name, parameter in parameters_of(kind.build).items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            bound = arguments.pop(name, [])
        elif name not in arguments and parameter.default is parameter.empty:
            message = f"{_place(path)} lacks {name}, which {kind.name} needs; save the system again."
            raise ValueError(message)
    try:
        return kind.build(*bound, **arguments)
    except _BUILD_ERRORS as error:
        message = f"{_place(path)} cannot be built: {error}"
        raise ValueError(message) from error


def _check_own_settings(described: Any, part: Any, path: str) -> None:
    """Whether a given part of an unknown class says of itself what the saved one said."""
    saved = described.get("settings") if isinstance(described, dict) and described.get("rebuild") is False else None
    if saved is None:
        return
    own = own_settings(part).get("settings", {})
    found = first_difference(saved, {key: value for key, value in own.items() if key in saved})
    if found is not None:
        message = (
            f"{path} was given, but its {found[0]} is {found[2]!r:.80} where the saved one had {found[1]!r:.80}; build "
            "it as it was."
        )
        raise ValueError(message)


def _asked_for(described: Mapping[str, Any], path: str) -> ValueError:
    keyword = f"{path}=my_part" if path.isidentifier() else f'**{{"{path}": my_part}}'
    message = (
        f"{path} is a {described.get('part')!s:.80}, a class that this library does not build; give it, with any "
        f"weights: from_pretrained(folder, {keyword})."
    )
    return ValueError(message)


def _place(path: str) -> str:
    return f"settings.{path}" if path else "settings"
