"""torch.compile of coarse network and refiner: one graph, equal answers and gradients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def check(backend: str, *cases: str) -> None:
    script = Path(__file__).with_name("compare_refiner_compiled.py")
    done = subprocess.run([sys.executable, script, backend, *cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_one_graph() -> None:
    check("eager", "whole")


@pytest.mark.slow
def test_every_arrangement_compiles_into_one_graph() -> None:
    check("aot_eager", "whole", "gated", "through")
    check("eager", "light")


@pytest.mark.slow
def test_it_compiles_with_inductor() -> None:
    check("inductor", "gated")
