"""What mkdocstrings does to docstrings besides: examples are code, and names of ours are links."""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType
from typing import Any

import griffe

ROOMS = (
    "checkpoints data evaluation losses networks ops",
    "prediction prompts refinement sam simulation systems training types",
)
HEADING = re.compile(r"^(\s*)Example:$", re.MULTILINE)
NAME = re.compile(r"(?<![`\[])`([A-Za-z_]+)`(?!`)")


def places() -> dict[str, str]:
    """Where each public name is documented; of a name in several rooms, the last of them."""
    return {name: place for room in " ".join(ROOMS).split() for name, place in places_of(room).items()}


def places_of(room: str) -> dict[str, str]:
    """Where the public names of a room are: there, or in a file of the same name, which hides them there."""
    module = importlib.import_module(f"ultrarefiner.{room}")
    found = {}
    for name in getattr(module, "__all__", None) or defined_in(module):
        hidden = f"ultrarefiner.{room}.{name}" in sys.modules
        found[name] = f"ultrarefiner.{room}.{name}.{name}" if hidden else f"ultrarefiner.{room}.{name}"
    return found


def defined_in(module: ModuleType) -> list[str]:
    """The public names of a room that is a single file."""
    return [name for name, found in vars(module).items() if getattr(found, "__module__", "") == module.__name__]


class Docstrings(griffe.Extension):
    """Turn ``Example:`` into the section that griffe shows as code, and `Name` into a link to its page."""

    def __init__(self) -> None:
        super().__init__()
        self.places = places()
        self.own = {room: places_of(room) for room in " ".join(ROOMS).split()}

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Each module, class, function and attribute as it is collected."""
        if obj.docstring is not None:
            text = HEADING.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = NAME.sub(lambda found: self._linked(found, obj), text)

    def _linked(self, found: re.Match[str], obj: griffe.Object) -> str:
        """A name means the one of the docstring's own room before it means another room's."""
        room = obj.path.partition(".")[2].partition(".")[0]
        place = self.own.get(room, {}).get(found[1]) or self.places.get(found[1])
        return found[0] if place is None or found[1] == obj.name else f"[`{found[1]}`][{place}]"
