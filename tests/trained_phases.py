"""Small runs of the training commands, for tests that go on from an earlier phase."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ultrarefiner.cli import main
from ultrarefiner.data import Phantoms

QUICK = ("--epochs", "1", "--no-progress", "--batch-size", "3", "--accelerator", "cpu")
COARSE = ("--network", "transunet", "--backbone", "tiny", "--size", "32")
REFINER = ("--sam", "tiny", "--frame", "64", "--gate", "learned")
_CACHE: dict[str, Path] = {}


def write_pictures(root: Path, count: int = 9) -> Path:
    """Phantoms as pictures "images/phantom_0.png" with masks of the same name."""
    for index in range(count):
        case = Phantoms(count, size=(48, 64))[index]
        for kind, values in (("images", case.image), ("masks", case.mask)):
            (root / kind).mkdir(exist_ok=True, parents=True)
            Image.fromarray((values[0] * 255).byte().numpy()).save(root / kind / f"phantom_{index}.png")
    return root


def cases_of(root: Path) -> tuple[str, ...]:
    """Flags of `write_pictures`, in three folds: three train, three choose, three are reported."""
    return ("--data", str(root / "images"), "--masks", str(root / "masks"), "--dataset", "folder", "--folds", "3")


def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest SAM, the fewest phantoms, one case in a picture."""
    monkeypatch.setattr("ultrarefiner.cli.setting._SHOWN", 1)
    monkeypatch.setattr("ultrarefiner.cli.frozen_sam._TINY", 64)
    monkeypatch.setattr("ultrarefiner.cli.split._PHANTOMS", (4, 2, 2))


def begun(phase: str, factory: pytest.TempPathFactory, to: Path) -> tuple[Path, tuple[str, ...]]:
    """A copy of what the phases up to this one left, trained once a session.

    Args:
        phase: "coarse" (with out-of-fold predictions), "refiner" or "joint".
        factory: of pytest.
        to: gets the copy.

    Returns:
        The folder to be given as ``--out``, and the flags of its cases.
    """
    if "pictures" not in _CACHE:
        _CACHE["pictures"] = write_pictures(factory.mktemp("pictures"))
    flags = cases_of(_CACHE["pictures"])
    order = ("coarse", "refiner", "joint")
    for index, name in enumerate(order[: order.index(phase) + 1]):
        if name in _CACHE:
            continue
        out = factory.mktemp(name) / "out"
        if index:
            shutil.copytree(_CACHE[order[index - 1]], out)
        with pytest.MonkeyPatch.context() as monkeypatch, torch.random.fork_rng():
            shrunk(monkeypatch)
            own = {"coarse": (*COARSE, "--out-of-fold", "2"), "refiner": REFINER, "joint": ()}[name]
            assert main(["train", name, "--out", str(out), *flags, *QUICK, *own]) == 0
        _CACHE[name] = out
    shutil.copytree(_CACHE[phase], to / "out")
    return to / "out", flags


def record(folder: Path) -> dict[str, Any]:
    """The phase.json of a run."""
    found: dict[str, Any] = json.loads((folder / "phase.json").read_text())
    return found


def change_record(folder: Path, **changes: Any) -> None:
    """Write other values into the phase.json of a run."""
    (folder / "phase.json").write_text(json.dumps({**record(folder), **changes}))
