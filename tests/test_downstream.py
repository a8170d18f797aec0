"""Somebody else's small project builds on the package: two type checkers pass it, refuse mistakes, and it runs."""

from __future__ import annotations

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


def test_the_project_imports_public_names_only() -> None:
    """From the front door or a room, never from a module inside a room, and nothing that is private."""
    for path in SOURCES:
        for module, names in re.findall(r"^from (ultrarefiner\S*) import (.+)$", path.read_text(), re.MULTILINE):
            assert module.count(".") <= 1, f"{path.name}: {module}"
            assert "_" not in {name.strip()[0] for name in names.strip("()").split(",") if name.strip()}
        assert not re.search(r"\.\s*_[a-z]", path.read_text()), path.name


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
