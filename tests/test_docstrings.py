"""Every public name says what it is, takes, returns and refuses, and shows it; the audit is tried on a toy first."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import docstring_audit
import public_api
import pytest

BUILT = "made by its builder, whose example runs it"
# What a docstring may lack, and why.
EDIT = "an edit of lesions, made and called by FailureSimulator, whose example runs it; tests/simulation does each"
RUN = "reads the checkpoint of a training, which no example should run; tests/training does"
EDITS = (
    "BoundaryRoughness",
    "Bridge",
    "ContourNoise",
    "Empty",
    "Fragmentation",
    "GiantOverSegmentation",
    "InternalHoles",
    "Islands",
    "MissingChunk",
    "OverSegmentation",
    "PartialCollapse",
    "ScatterOnly",
    "Shift",
    "UnderSegmentation",
)
EXCUSED = {
    **{f"simulation.{name}": {"Example": EDIT} for name in EDITS},
    **{f"training.{name}": {"Example": RUN} for name in ("load_coarse", "load_gate", "load_refiner")},
    "checkpoints.download": {"Example": "what it does is a download; tests/checkpoints has a server of its own"},
    "checkpoints.efficientnet_lite0_file": {"Example": "needs the extra pretraining; tests/checkpoints does it"},
    "data.SparseWholes": {"Example": "needs prepared volumes; tests/data makes them"},
    "data.sparse_view": {"Example": "needs prepared volumes; tests/data makes them"},
    "systems.PretrainedSystem": {"Example": "what systems derive from, whose examples show it"},
    "systems.export_onnx": {
        "Example": "takes long and three packages of the extra onnx; tests/interoperability does it"
    },
    "networks.HarDNet": {"Example": BUILT},
    "networks.SegVol": {"Example": BUILT},
    "networks.SegVolTextEncoder": {
        "Example": "holds CLIP's text model, which an example should not build; tests/networks does"
    },
    "networks.TransUNet": {"Example": BUILT},
    "sam.SAM": {"Example": BUILT},
    "simulation.Islands.drawn": {
        kind: "a part of two edits, told in one sentence; Edit.__call__ tells the tensors"
        for kind in ("Args", "Returns", "shape")
    },
}

TOY = '''
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Above", "Below", "Module", "Callable", "Record", "Rule"]
__all__ += ["bare", "plain", "refusing", "silent", "told", "pointed"]

def silent(x: int) -> int:
    return x

def plain(x: int) -> int:
    """No tensor, nothing refused."""

def refusing() -> None:
    """Shows only what it refuses.

    Example:
        >>> import math
        >>> refusing(1)
        Traceback (most recent call last):
        TypeError: no
    """

class Callable:
    """No tensor either."""

@dataclass
class Rule:
    """A record that does something."""
    def __call__(self) -> int:
        """Do it."""

def bare(x: Tensor, y: Float[Tensor, "b"], like: Tensor) -> Float[Tensor, "b"]:
    """Says nothing more.

    Args:
        y: a row.
    """
    if x is None:
        raise ValueError("no")

def told(x: Tensor) -> Float[Tensor, "b"]:
    """Says it.

    Args:
        x: (b, n), rows.

    Returns:
        Their sums.

    Raises:
        ValueError: there is none.

    Example:
        >>> 1
        1
    """
    def inner() -> None:
        raise TypeError
    if x is None:
        raise ValueError("no")

def pointed() -> None:
    """Only what it calls refuses."""
    def inner() -> None:
        raise ValueError("not my own")

class Above(nn.Module):
    """A base.

    Args:
        width: of it.

    Example:
        >>> 1
        1
    """
    def __init__(self, width: int) -> None: ...
    def forward(self, x: Tensor) -> Tensor:
        """Run.

        Args:
            x: (b, n).

        Returns:
            (b, n).
        """
    @property
    def quiet(self) -> int: ...

class Below(Above):
    """As the base.

    Example:
        >>> 1
        1
    """
    def forward(self, x: Tensor) -> Tensor:
        """Run otherwise."""

class Module(nn.Module):
    """Lacks much."""
    def __init__(self, width: int) -> None:
        raise ValueError("never")
    def forward(self, x: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The sum; see `told`."""
    def __len__(self) -> int: ...

@dataclass
class Record:
    """Holds.

    Attributes:
        x: (b,).
    """
    x: Tensor
    y: int = 0
    def __post_init__(self) -> None:
        raise ValueError("never")
'''


def test_the_audit_finds_what_a_toy_lacks(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text('"""Toy."""\n__all__ = []\n')
    (tmp_path / "toy" / "room.py").write_text(TOY)
    found = docstring_audit.audited(public_api.load_package("toy", tmp_path))
    lacking = {place: list(docstring_audit.faults(place, target)) for place, target in found.items()}
    assert {place: what for place, what in lacking.items() if what} == {
        "room.silent": ["docstring"],
        "room.Above.quiet": ["docstring"],
        "room.plain": ["Args: x", "Returns", "Example"],
        "room.refusing": ["Example that does something"],
        "room.pointed": ["Example"],
        "room.Callable": ["Example"],
        "room.Rule": ["Example"],
        "room.bare": ["Raises", "Args: like, x", "Returns", "shape of x", "Example"],
        "room.Module": ["Args: width", "Raises", "Example"],
        "room.Record": ["Args: y", "Raises"],
    }


@cache
def audited() -> dict[str, list[str]]:
    found = docstring_audit.audited(public_api.load_package())
    assert len(found) > 800
    return {place: what for place, target in found.items() if (what := list(docstring_audit.faults(place, target)))}


def test_every_public_name_tells_what_it_owes() -> None:
    lacking = {
        place: [one for one in what if one.split(":")[0].split(" ")[0] not in EXCUSED.get(place, {})]
        for place, what in audited().items()
    }
    lines = [f"{place} has no {'; no '.join(what)}" for place, what in lacking.items() if what]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("place", EXCUSED)
def test_no_excuse_outlives_its_reason(place: str) -> None:
    assert {one.split(":")[0].split(" ")[0] for one in audited()[place]} == set(EXCUSED[place])
