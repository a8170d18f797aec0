"""The code of a notebook at a small size: the same cells with fewer epochs, cases and samples, in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

# What stands in a notebook, and what runs instead. Whoever changes a number there changes it here (a test says so).
SMALLER: dict[str, dict[str, str]] = {
    "01_prompts_from_a_soft_mask": {
        "pull([0, 10, 30, 100, 300]": "pull([0, 1, 2, 3, 4]",
        "torch.rand(1, 2, 7, 9,": "torch.rand(1, 1, 4, 5,",
        "pad_frame((7, 9), 32)": "pad_frame((4, 5), 32)",
    },
    "02_refine_one_mask": {
        "Phantoms(200,": "Phantoms(16,",
        "Phantoms(24,": "Phantoms(4,",
        "epochs=12": "epochs=1",
        "Phantoms(60,": "Phantoms(6,",
        "torch.randint(60, (10_000, 60)": "torch.randint(6, (100, 6)",
    },
    "03_three_phases": {
        "phantoms(140,": "phantoms(16,",
        "phantoms(24,": "phantoms(4,",
        "phantoms(60,": "phantoms(6,",
        "epochs=16": "epochs=1",
        "epochs=12": "epochs=1",
        "epochs=8": "epochs=1",
    },
    "04_autosam_and_automedsam": {
        "phantoms(1000,": "phantoms(16,",
        "phantoms(24,": "phantoms(4,",
        "phantoms(160,": "phantoms(16,",
        "phantoms(60,": "phantoms(10,",
        "epochs=3": "epochs=1",
        "epochs=16": "epochs=1",
        "epochs=10": "epochs=1",
    },
    "05_clicks_in_a_volume": {
        "cases(100, seed=0)": "cases(4, seed=0)",
        "cases(4, seed=1)": "cases(1, seed=1)",
        "cases(12, seed=100)": "cases(3, seed=100)",
        '"epoch_size": 480': '"epoch_size": 16',
        "epochs=8": "epochs=1",
        "(8, 15, 30, 60)": "(8,)",
    },
    "06_simulated_failures": {
        "Phantoms(90,": "Phantoms(20,",
        "masks.repeat(5,": "masks.repeat(1,",
        '"epochs": 30': '"epochs": 1',
        'simulated("default", 300)': 'simulated("default", 30)',
    },
    "07_bring_your_own_network": {
        "phantoms(120,": "phantoms(16,",
        "phantoms(16,": "phantoms(4,",
        "phantoms(40,": "phantoms(6,",
        "epochs=10": "epochs=1",
        "epochs=7": "epochs=1",
        "epochs=3": "epochs=1",
    },
}
# Cells run as the main module, so that dataclasses and workers find it; a traceback names the cell and shows its line.
RUNNER = """
import json, linecache, sys, traceback
sys.excepthook = lambda *error: traceback.print_exception(*error)  # the interpreter's own reads files alone
for number, source in enumerate(json.load(sys.stdin)):
    name = f"code cell {number + 1}"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), sys.modules["__main__"].__dict__)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
"""


def cells_of(path: Path) -> list[str]:
    """The sources of the code cells, in order."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def made_smaller(path: Path) -> list[str]:
    """The same at the small size: all substitutions at once, so that none changes what another has written."""
    return [_replaced(source, SMALLER[path.stem]) for source in cells_of(path)]


def _replaced(source: str, smaller: dict[str, str]) -> str:
    marks = {f"\0{number}\0": new for number, new in enumerate(smaller.values())}
    for mark, old in zip(marks, smaller, strict=True):
        source = source.replace(old, mark)
    for mark, new in marks.items():
        source = source.replace(mark, new)
    return source


def run_cells(sources: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """All cells in one fresh process, started in a folder of its own, with no window and on one core."""
    return subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg:UserWarning", "-c", RUNNER],
        input=json.dumps(sources),
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
