"""Somebody else's small project builds on the package: two type checkers pass it, refuse mistakes, and it runs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "downstream"
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
MISTAKES = PROJECT / "mistakes" / "mistakes.py"
PROMISED = json.loads((Path(__file__).parent / "public_names.json").read_text())
RUN = """
import sys
from pathlib import Path
import torch
import ultrarefiner as ur
from lesionlab import Discs, refine_discs

torch.manual_seed(0)
found = refine_discs(Discs(tuple(range(6))), Path(sys.argv[1]))
assert len(found.losses) == 2 and all(loss > 0 for loss in found.losses), found.losses
assert found.result.steps == 2
assert len(found.evaluation.comparison.refined) == 6
assert type(found.reloaded.gate.gates[1]).__name__ == "DistanceGate"
image = torch.rand(1, 1, 48, 64)
assert found.reloaded(image).refined_probability.shape == (1, 1, 48, 64)
assert not found.reloaded.training
print("ran")
"""


def marked() -> list[int]:
    lines = MISTAKES.read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]


def intrusions(source: str) -> list[str]:
    """What a source takes from the package without its being promised, or takes that is hidden."""
    found, doors, nodes = [], set(), list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            ours = [one for one in node.names if one.name.split(".")[0] == "ultrarefiner"]
            doors |= {one.asname or one.name for one in ours if one.name == "ultrarefiner"}
            found += [one.name for one in ours if one.name.partition(".")[2] not in ("", *PROMISED)]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ultrarefiner":
            room = str(node.module).partition(".")[2] or "ultrarefiner"
            known = PROMISED.get(room, {}).keys() | (PROMISED.keys() if room == "ultrarefiner" else set())
            found += [f"{node.module}.{one.name}" for one in node.names if one.name not in known]
    for node in nodes:
        if isinstance(node, ast.Attribute):
            from_door = isinstance(node.value, ast.Name) and node.value.id in doors
            dunder = node.attr.startswith("__") and node.attr.endswith("__")
            if node.attr.startswith("_") and not dunder:
                found.append(node.attr)
            elif from_door and node.attr not in PROMISED["ultrarefiner"].keys() | PROMISED.keys():
                found.append(f"ultrarefiner.{node.attr}")
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import ultrarefiner as ur\nur.SAMRefiner\nsuper().__init__()", []),
        ("from ultrarefiner import (\n    SAMRefiner,\n    losses as terms,\n)", []),
        ("from ultrarefiner.losses import (\n    dice_loss,\n    DiceLoss,\n)\nimport ultrarefiner.losses", []),
        ("from ultrarefinery import _hidden\nimport torch.nn", []),
        ("from ultrarefiner.losses import (\n    dice_loss,\n    _hidden,\n)", ["ultrarefiner.losses._hidden"]),
        ("from ultrarefiner.losses import no_loss", ["ultrarefiner.losses.no_loss"]),
        ("from ultrarefiner.losses.dice import dice_loss", ["ultrarefiner.losses.dice.dice_loss"]),
        ("def late():\n    import torch, ultrarefiner.losses.dice as d", ["ultrarefiner.losses.dice"]),
        ("from ultrarefiner import deprecation", ["ultrarefiner.deprecation"]),
        ("import ultrarefiner\nultrarefiner.nothing_such()", ["ultrarefiner.nothing_such"]),
        ("model. _hidden", ["_hidden"]),
    ],
)
def test_what_is_not_public_is_found(source: str, expected: list[str]) -> None:
    assert intrusions(source) == expected


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_project_imports_public_names_only(path: Path) -> None:
    """From the front door or a room, never from a module inside a room, and nothing that is private."""
    assert intrusions(path.read_text()) == []


def test_the_readme_names_files_that_are_there() -> None:
    named = re.findall(r"`([\w/]+\.py)`", (PROJECT / "README.md").read_text())
    assert sorted(named) == sorted(path.name for path in SOURCES if path.stem != "__init__")


def test_the_project_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("ran\n")


@pytest.mark.slow
def test_mypy_passes_the_project_and_refuses_its_mistakes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        tmp_path,
        "--no-error-summary",
        "--hide-error-context",
    ]
    ran = subprocess.run([*command, "src", MISTAKES.relative_to(PROJECT)], cwd=PROJECT, capture_output=True, text=True)
    found = re.findall(r"^(\S+?):(\d+): error: .*$", ran.stdout, re.MULTILINE)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert {Path(path).name for path, _ in found} == {MISTAKES.name}, ran.stdout
    assert sorted({int(line) for _, line in found}) == marked(), ran.stdout


@pytest.mark.slow
def test_basedpyright_passes_the_project_and_refuses_its_mistakes() -> None:
    command = [Path(sys.executable).parent / "basedpyright", "--pythonpath", sys.executable, "--outputjson"]
    ran = subprocess.run([*command, "--project", PROJECT], cwd=PROJECT, capture_output=True, text=True)
    report = json.loads(ran.stdout)
    assert report["summary"]["filesAnalyzed"] == len(SOURCES) + 1, ran.stdout
    found = [(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in report["generalDiagnostics"]]
    assert {name for name, _ in found} == {MISTAKES.name}, ran.stdout
    assert sorted({line for _, line in found}) == marked(), ran.stdout
