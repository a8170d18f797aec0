"""Names that leave: they warn at the caller's line, go on working, and are gone when they said they would be."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import pickle
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import public_api
import pytest
import torch
from torch import nn

SOURCE = public_api.ROOT / "ultrarefiner" / "deprecation.py"


def as_users_run_it() -> ModuleType:
    """The module without the checks that the suite puts around each function: they would be the caller."""
    spec = importlib.util.spec_from_file_location("deprecation_as_users_run_it", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deprecated, renamed_arguments = (getattr(as_users_run_it(), name) for name in ("deprecated", "renamed_arguments"))


@deprecated(since="0.2", gone_in="0.4", instead="area")
def surface(side: float, *, unit: str = "px") -> str:
    """Area of a square."""
    return f"{side * side} {unit}"


@deprecated(since="0.9", gone_in="0.10", instead="NewLayer")
class OldLayer(nn.Module):
    """A layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    @deprecated(since="0.2", gone_in="1.0", instead="linear")
    def apply_it(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Round:
    """Something with a renamed argument."""

    @renamed_arguments({"r": "radius", "c": "centre"}, since="0.2", gone_in="0.4")
    def __init__(self, *, radius: float, centre: float = 0.0) -> None:
        self.radius, self.centre = radius, centre

    @classmethod
    @renamed_arguments({"d": "diameter"}, since="0.2", gone_in="0.4")
    def across(cls, diameter: float) -> Round:
        return cls(radius=diameter / 2)


def line_below(lines: int) -> int:
    """So many lines below the one that asks."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno + lines


def only(caught: list[warnings.WarningMessage], line: int) -> str:
    (one,) = caught
    assert one.category is FutureWarning
    assert (one.filename, one.lineno) == (__file__, line)
    return str(one.message)


def test_a_function_warns_where_it_is_called_and_works() -> None:
    line = line_below(2)
    with pytest.warns(FutureWarning) as caught:
        assert surface(3.0, unit="mm") == "9.0 mm"
    told = only(caught.list, line)
    assert told == "surface is deprecated since ultrarefiner 0.2 and will be gone in 0.4; use area instead."
    assert surface.__deprecated__ == told
    assert str(inspect.signature(surface)) == "(side: 'float', *, unit: 'str' = 'px') -> 'str'"
    assert surface.__doc__ == "Area of a square."


def test_a_class_warns_when_it_is_made_and_when_it_is_derived_from() -> None:
    line = line_below(2)
    with pytest.warns(FutureWarning, match="OldLayer is deprecated since ultrarefiner 0.9 and will be") as caught:
        layer = OldLayer(width=3)
    only(caught.list, line)
    assert isinstance(layer, OldLayer)
    assert list(inspect.signature(OldLayer.__init__).parameters) == ["self", "width"]
    line = line_below(3)
    with pytest.warns(FutureWarning, match="OldLayer") as caught:

        class Mine(OldLayer):
            pass

    only(caught.list, line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = Mine(3)
    assert isinstance(mine, OldLayer)
    with pytest.warns(FutureWarning, match="OldLayer.apply_it is"):
        assert mine.apply_it(torch.ones(1, 3)).shape == (1, 3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_deprecated_class_is_still_copied_and_pickled() -> None:
    layer = OldLayer(2)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin.linear.weight, layer.linear.weight)


def test_an_argument_goes_by_its_old_name() -> None:
    line = line_below(2)
    with pytest.warns(FutureWarning) as caught:
        ring = Round(r=2.0, centre=1.0)
    assert (ring.radius, ring.centre) == (2.0, 1.0)
    expected = (
        "Round's argument r is deprecated since ultrarefiner 0.2 and will be gone in 0.4; call it radius instead."
    )
    assert only(caught.list, line) == expected
    with pytest.warns(FutureWarning, match=r"Round\.across's argument d is"):
        assert Round.across(d=4.0).radius == 2.0
    with pytest.warns(FutureWarning) as caught:
        Round(r=1.0, c=1.0)
    assert len(caught.list) == 2
    assert str(inspect.signature(Round)) == "(*, radius: 'float', centre: 'float' = 0.0) -> 'None'"


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Round(radius=1.0, centre=0.5).centre == 0.5
        assert Round.across(4.0).radius == 2.0


def test_both_names_are_refused() -> None:
    with pytest.raises(TypeError, match="Round got radius and r, which is the same argument's old name; leave out r"):
        Round(radius=1.0, r=1.0)


def test_an_unknown_argument_is_refused_as_ever() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        Round(radius=1.0, size=2)


@pytest.mark.parametrize(("since", "gone_in"), [("0.4", "0.4"), ("0.10", "0.9"), ("1.0", "0.9")])
def test_what_goes_before_it_warns_is_refused(since: str, gone_in: str) -> None:
    with pytest.raises(ValueError, match=f"gone_in must be a later version than since, but they are '{gone_in}' and"):
        deprecated(since=since, gone_in=gone_in, instead="x")
    with pytest.raises(ValueError, match="gone_in must be a later version"):
        renamed_arguments({"a": "b"}, since=since, gone_in=gone_in)


@pytest.mark.parametrize("wrong", ["0.4.0", "0.5rc1", "next", ""])
def test_versions_are_two_numbers(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"must be versions such as '0.4', two numbers, but one is '{wrong}'"):
        deprecated(since="0.3", gone_in=wrong, instead="x")


def test_what_has_no_successor_says_so() -> None:
    gone = deprecated(since="0.2", gone_in="0.4", instead=None)(lambda: None)
    assert gone.__deprecated__.endswith("will be gone in 0.4; nothing takes its place.")


@pytest.mark.parametrize("names", [{"r": "radios"}, {"centre": "radius"}])
def test_names_that_lead_nowhere_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"names must lead from arguments that .*circle no longer has to those"):

        @renamed_arguments(names, since="0.2", gone_in="0.4")
        def circle(*, radius: float, centre: float) -> float:
            return radius + centre


def marks(package: Path) -> list[tuple[str, str]]:
    """Where a package marks what leaves, however it imported the two, and until when: only they take a gone_in."""
    found = []
    for path in sorted(package.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        given = [(keyword, call) for call in calls for keyword in call.keywords if keyword.arg == "gone_in"]
        found += [(f"{path.name}:{call.lineno}", ast.literal_eval(keyword.value)) for keyword, call in given]
    return found


def overdue(package: Path, ours: str) -> list[str]:
    """What should be gone in a version and is still there."""
    now = [int(part) for part in ours.split(".")[:2]]
    return [place for place, gone_in in marks(package) if [int(part) for part in gone_in.split(".")] <= now]


TOY = {
    "plainly.py": """
from ultrarefiner.deprecation import deprecated as leaving

@leaving(since="0.2", gone_in="0.4", instead="new")
def expired(): ...
""",
    "room/by_module.py": """
from ultrarefiner import deprecation

class Kept:
    @deprecation.renamed_arguments(
        {"r": "radius"}, since="0.2", gone_in="0.10"
    )
    def __init__(self, radius): ...
""",
    "silent.py": '"""Says deprecated(gone_in="0.1") only."""\n',
}


def test_what_is_overdue_is_found_and_what_may_stay_is_not(tmp_path: Path) -> None:
    for name, source in TOY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    assert marks(tmp_path) == [("plainly.py:4", "0.4"), ("by_module.py:5", "0.10")]
    assert overdue(tmp_path, "0.3.7") == []
    assert overdue(tmp_path, "0.4.0") == overdue(tmp_path, "0.9.2") == ["plainly.py:4"]
    assert overdue(tmp_path, "0.10.0") == overdue(tmp_path, "1.0.0") == ["plainly.py:4", "by_module.py:5"]


def test_what_should_be_gone_is_gone() -> None:
    assert overdue(public_api.ROOT / "ultrarefiner", version("ultrarefiner")) == []
