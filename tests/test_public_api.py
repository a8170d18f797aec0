"""The promise: what is public stays, or the changelog says so. The checker is tried on a toy package first."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import public_api
import pytest

TOY = '''
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["LIMIT", "Box", "Drawer", "Pair", "Shape", "area", "scale"]

LIMIT: int = 3

def area(box: "Box", *, unit: str = "px") -> float:
    """Area."""

def scale(box: "Box", by: float, twice: bool = False) -> "Box":
    """Scale."""

@dataclass(frozen=True)
class Box:
    """A box."""
    width: float
    height: float = 1.0

class Pair(NamedTuple):
    """Two."""
    first: int
    second: int = 0

class Drawer(Protocol):
    """Draws."""
    def draw(self) -> None:
        """Draw."""

class Shape:
    """A shape."""
    def __init__(self, *, sides: int = 3) -> None:
        self.sides = sides
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    def turn(self, angle: float) -> "Shape":
        """Turn."""
    def _hidden(self) -> None: ...
'''


def toy(folder: Path, source: str) -> public_api.Api:
    package = folder / "toy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from toy.room import Shape\n__all__ = ['Shape']\n")
    (package / "room.py").write_text(source)
    return public_api.read_api(public_api.load_package("toy", folder))


def edited(folder: Path, *edits: tuple[str, str]) -> public_api.Difference:
    source = TOY
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    return public_api.differences(toy(folder / "before", TOY), toy(folder / "after", source))


def test_the_toy_is_read_in_full(tmp_path: Path) -> None:
    assert toy(tmp_path, TOY) == {
        "toy": {"Shape": "= room.Shape"},
        "room": {
            "LIMIT": "int",
            "Box": "class Box(width: float, height: float = 1.0)",
            "Drawer": "protocol Drawer()",
            "Drawer.draw": "def draw() -> None",
            "Pair": "class Pair(first: int, second: int = 0)",
            "Shape": "class Shape(*, sides: int = 3)",
            "Shape.closed": "property bool",
            "Shape.turn": "def turn(angle: float) -> Shape",
            "area": "def area(box: Box, *, unit: str = 'px') -> float",
            "scale": "def scale(box: Box, by: float, twice: bool = False) -> Box",
        },
    }


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ("by: float,", "factor: float,", "scale", "parameter 'by' is gone"),
        ("twice: bool = False", "twice: bool = True", "scale", "parameter 'twice' is another one"),
        ("twice: bool = False", "twice: bool", "scale", "parameter 'twice' is another one"),
        ("by: float,", "by: int,", "scale", "parameter 'by' is another one"),
        ('box: "Box", by: float,', 'by: float, box: "Box",', "scale", "another order"),
        ('box: "Box", by: float,', 'box: "Box", *, by: float,', "scale", "parameter 'by' is another one"),
        ('box: "Box", by: float,', 'box: "Box", /, by: float,', "scale", "parameter 'box' is another one"),
        ("by: float, twice: bool = False", "by: float, new: int = 0, twice: bool = False", "scale", "another order"),
        ('*, unit: str = "px"', '*, margin: int, unit: str = "px"', "area", "'margin' is new and has no default"),
        (") -> float:", ") -> int:", "area", "it returns something else"),
        ("angle: float", "angle: float, about: int", "Shape.turn", "'about' is new and has no default"),
        ("sides: int = 3", "corners: int = 3", "Shape", "parameter 'sides' is gone"),
        ("    @property\n    def closed", "    def closed", "Shape.closed", "another kind or type"),
        ("height: float = 1.0", "height: float", "Box", "parameter 'height' is another one"),
        ("    width: float\n", "", "Box", "parameter 'width' is gone"),
        ("second: int = 0", "last: int = 0", "Pair", "parameter 'second' is gone"),
        ("LIMIT: int", "LIMIT: float", "LIMIT", "another kind or type"),
        (
            "def draw(self)",
            "def erase(self) -> None: ...\n    def draw(self)",
            "Drawer.erase",
            "a protocol asks for it",
        ),
        ("class Shape:", "def Shape() -> None: ...\nclass _Gone:", "Shape", "another kind or type"),
    ],
)
def test_a_change_is_found(tmp_path: Path, old: str, new: str, place: str, reason: str) -> None:
    found = edited(tmp_path, (old, new))
    assert reason in found.changed[f"room.{place}"]
    assert found.untold("") == [*found.removed, *found.changed]


@pytest.mark.parametrize(
    ("edits", "removed"),
    [
        ([('"area", ', "")], ["room.area"]),
        ([('"Pair", ', "")], ["room.Pair"]),
        ([("def turn(", "def _turn(")], ["room.Shape.turn"]),
        ([("def closed(", "def open(")], ["room.Shape.closed"]),
    ],
)
def test_a_name_that_goes_is_found(tmp_path: Path, edits: list[tuple[str, str]], removed: list[str]) -> None:
    found = edited(tmp_path, *edits)
    assert found.removed == removed
    assert not found.changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("twice: bool = False", "twice: bool = False, thrice: bool = False"),
        ('unit: str = "px"', 'scale: float = 1.0, unit: str = "px"'),
        ("angle: float", "angle: float, *rest: float, **options: int"),
        ("    def _hidden", "    def tilt(self) -> None: ...\n    def _hidden"),
        ("height: float = 1.0", "height: float = 1.0\n    depth: float = 1.0"),
        ('"scale"]', '"scale", "grow"]\n\ndef grow() -> None:\n    """Grow."""'),
    ],
)
def test_an_addition_is_only_an_addition(tmp_path: Path, old: str, new: str) -> None:
    found = edited(tmp_path, (old, new))
    assert found.added
    assert not found.untold("")
    message = public_api.told(found, "")
    assert found.added[0] in message
    assert "Accept the new state: python tests/public_api.py" in message


def test_what_nobody_sees_is_no_difference(tmp_path: Path) -> None:
    assert not edited(tmp_path, ("_hidden(self)", "_other(self)"), ("Whether it is closed", "Is it closed?"))
    assert not edited(tmp_path / "again", ("self.sides = sides", "self._sides = sides"))


def test_the_changelog_may_tell_it(tmp_path: Path) -> None:
    found = edited(tmp_path, ('"area", ', ""), ("angle: float", "degrees: float"))
    assert found.untold("## Unreleased\n\n### Removed\n\n* `room.area`: nobody used it.\n") == ["room.Shape.turn"]
    told = (
        "## Unreleased\n\n### Changed\n\n* `Shape.turn(degrees=...)`: was\n  `angle`.\n- `area` is gone.\n\n## 0.1.0\n"
    )
    assert not found.untold(told)
    assert "Then accept" not in public_api.told(found, told)
    for elsewhere in (
        told.replace("### Changed", "### Added"),
        told.replace("Unreleased", "0.2.0"),
        told.replace("`", ""),
        told.replace("Shape.turn", "Shape.turning").replace("area", "areas"),
    ):
        assert found.untold(elsewhere) == ["room.area", "room.Shape.turn"]


def test_the_message_says_what_changed_and_what_to_do(tmp_path: Path) -> None:
    message = public_api.told(edited(tmp_path, ('"area", ', ""), ("angle: float", "degrees: float")), "")
    assert "removed  room.area" in message
    assert "changed  room.Shape.turn: parameter 'angle' is gone" in message
    assert "was  def turn(angle: float) -> Shape" in message
    assert "is   def turn(degrees: float) -> Shape" in message
    assert "CHANGELOG.md, in Unreleased" in message
    assert "`backticks`: area, Shape.turn" in message
    assert message.endswith("Then accept the new state: python tests/public_api.py")


def test_the_command_refuses_what_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(tmp_path, TOY)
    snapshot, changelog = tmp_path / "names.json", tmp_path / "CHANGELOG.md"
    changelog.write_text("## Unreleased\n")
    package = public_api.load_package("toy", tmp_path)
    monkeypatch.setattr(public_api, "SNAPSHOT", snapshot)
    monkeypatch.setattr(public_api, "CHANGELOG", changelog)
    monkeypatch.setattr(public_api, "load_package", lambda: package)
    monkeypatch.setattr("sys.argv", ["public_api.py"])
    assert public_api.main() == 0
    kept = json.loads(snapshot.read_text())
    more = {**kept, "room": {**kept["room"], "gone": "def gone() -> None"}}
    snapshot.write_text(json.dumps(more))
    assert public_api.main() == 1
    assert "removed  room.gone" in capsys.readouterr().err
    assert json.loads(snapshot.read_text()) == more
    changelog.write_text("## Unreleased\n\n### Removed\n\n* `gone`.\n")
    assert public_api.main() == 0
    assert json.loads(snapshot.read_text()) == kept


def test_a_hand_on_the_snapshot_does_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the released names, only the changelog counts."""
    released, changelog = tmp_path / "released.json", tmp_path / "CHANGELOG.md"
    changelog.write_text("## Unreleased\n")
    monkeypatch.setattr(public_api, "RELEASED", released)
    monkeypatch.setattr(public_api, "CHANGELOG", changelog)
    monkeypatch.setattr(public_api, "SNAPSHOT", tmp_path / "names.json")
    monkeypatch.setattr("sys.argv", ["public_api.py", "release"])
    before = toy(tmp_path / "before", TOY)
    after = toy(tmp_path / "after", TOY.replace('"area", ', "").replace("angle: float", "degrees: float"))
    public_api.SNAPSHOT.write_text(json.dumps(after))
    assert not public_api.broken_promises(after, changelog.read_text()), "nothing is out yet"
    assert public_api.main() == 1, "no version to release"
    assert not released.exists()
    package = public_api.load_package("toy", tmp_path / "before")
    monkeypatch.setattr(public_api, "load_package", lambda: package)
    changelog.write_text("## Unreleased\n\n## 0.1.0\n")
    assert "0.1.0, but tests/released_names.json is of None" in public_api.broken_promises(
        before, changelog.read_text()
    )
    assert public_api.main() == 0
    assert json.loads(released.read_text()) == {"version": "0.1.0", "names": before}
    assert not public_api.broken_promises(before, changelog.read_text())
    message = public_api.broken_promises(after, changelog.read_text())
    assert "removed  room.area" in message
    assert "changed  room.Shape.turn" in message
    half = "## Unreleased\n\n### Removed\n\n* `area`.\n\n## 0.1.0\n"
    assert "`backticks`: Shape.turn." in public_api.broken_promises(after, half)
    assert not public_api.broken_promises(after, half.replace("`area`", "`area`, `Shape.turn(degrees=...)`"))
    assert "0.2.0, but" in public_api.broken_promises(after, half.replace("Unreleased", "0.2.0"))


def test_what_was_released_and_went_is_told() -> None:
    api = public_api.read_api(public_api.load_package())
    message = public_api.broken_promises(api, public_api.CHANGELOG.read_text())
    assert not message, message


def test_what_is_public_is_what_was_promised() -> None:
    api = public_api.read_api(public_api.load_package())
    found = public_api.differences(json.loads(public_api.SNAPSHOT.read_text()), api)
    assert not found, public_api.told(found, public_api.CHANGELOG.read_text())


def test_the_source_says_what_an_import_finds() -> None:
    """What is read without importing is what a user gets."""
    api = public_api.read_api(public_api.load_package())
    folders = {path.parent.name for path in (public_api.ROOT / "ultrarefiner").glob("*/__init__.py")}
    assert set(api) == {"ultrarefiner", "types", *folders} - {*public_api.NOT_ROOMS}
    for room, names in api.items():
        module = importlib.import_module("ultrarefiner" if room == "ultrarefiner" else f"ultrarefiner.{room}")
        assert [name for name in names if "." not in name and not hasattr(module, name)] == []
        exported = getattr(module, "__all__", [])
        assert len(exported) == len(set(exported)), room
