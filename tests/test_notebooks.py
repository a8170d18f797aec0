"""The notebooks of examples/: kept with their outputs, clean, and run.

Every run of the tests executes all of them with fewer epochs and cases; ``pytest -m slow`` executes them as they stand
and compares what they say with what is kept.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from small_notebooks import SMALLER, cells_of, made_smaller, run_cells

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LINES, BYTES = 30, 900_000
# A folder of somebody's machine: of Linux, of a Mac, of Windows.
MACHINE = re.compile(r"(?<![\w.:/\])])/(?:home|root|tmp|work|Users|mnt|opt|usr|var|private|content)/|\b[A-Z]:\\\\?\w")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts_of(cell: NotebookNode) -> list[str]:
    """What a cell printed, and the text forms of what it showed."""
    found = [output.text for output in cell.outputs if output.output_type == "stream"]
    shown = [output.data for output in cell.outputs if "data" in output]
    return found + [str(data[kind]) for data in shown for kind in data if kind.startswith("text/")]


def imports_of(source: str) -> list[tuple[str, tuple[str, ...]]]:
    """The modules that a cell imports, each with the names that it takes from it."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((str(node.module), tuple(alias.name for alias in node.names)))
    return found


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@every_notebook
def test_a_notebook_is_kept_with_the_outputs_of_one_run_in_order(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"], "a warning or a progress bar"


@every_notebook
def test_a_notebook_is_small_and_names_no_folder_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < BYTES
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= LINES, cell.source.splitlines()[0]
        for text in [cell.source, *(texts_of(cell) if cell.cell_type == "code" else [])]:
            assert not MACHINE.search(text), text


@every_notebook
def test_imports_and_links_of_a_notebook_lead_somewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert all((path.parent / link).exists() for link in LINK.findall(cell.source)), cell.source
            continue
        for module, names in imports_of(cell.source):
            found = importlib.import_module(module)
            assert all(hasattr(found, name) for name in names), (module, names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/home/anna/scan.nii.gz", True),
        ("in /tmp/x", True),
        (r"C:\Users\anna", True),
        ("[results](../docs/results.md)", False),
        ("https://example.org/home/page", False),
        ("outputs/tmp/x, 3 mm/voxel", False),
    ],
)
def test_folders_of_a_machine_are_told_from_other_text(text: str, said: bool) -> None:
    assert bool(MACHINE.search(text)) is said


@every_notebook
def test_a_notebook_runs_at_a_small_size(path: Path, tmp_path: Path) -> None:
    done = run_cells(made_smaller(path), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_notebook_has_a_small_size() -> None:
    assert sorted(SMALLER) == [path.stem for path in NOTEBOOKS]


@every_notebook
def test_what_makes_a_notebook_smaller_still_stands_in_it(path: Path) -> None:
    whole = "\n".join(cells_of(path))
    assert [old for old in SMALLER[path.stem] if old not in whole] == []
    small = "\n".join(made_smaller(path))
    assert not re.search(r"epochs=(?!1\b)\d", small), "a training was not made smaller"


def test_an_error_in_a_cell_is_an_error_of_the_run(tmp_path: Path) -> None:
    done = run_cells(["import sys\nvalue = 1", "print(value)", "value / 0"], tmp_path)
    assert done.returncode != 0
    assert done.stdout == "1\n"
    assert "code cell 3" in done.stderr
    assert "value / 0" in done.stderr


NUMBER = re.compile(r"(?:< )?[-+]?\d+(?:[.,]\d+)*(?:e[-+]\d+)?")
TIMED = re.compile(r"\d s$")


def said(notebook: NotebookNode) -> list[list[str]]:
    """The lines that each cell printed or showed as a table; of pictures nothing, of times nothing."""
    cells = []
    for cell in code_of(notebook):
        texts = ["".join(output.text for output in cell.outputs if output.output_type == "stream")]
        texts += [output.data["text/markdown"] for output in cell.outputs if "text/markdown" in output.get("data", {})]
        cells.append([line for text in texts for line in text.splitlines() if not TIMED.search(line)])
    return cells


def as_number(text: str) -> float:
    return float(text.removeprefix("< ").replace(",", ""))


def same_but_for_training(one: str, other: str) -> bool:
    """The same words, and numbers that differ no more than two trainings on two machines may."""
    if " ".join(NUMBER.sub("#", one).split()) != " ".join(NUMBER.sub("#", other).split()):
        return False
    pairs = zip(*([as_number(found) for found in NUMBER.findall(line)] for line in (one, other)), strict=True)
    return all(abs(a - b) <= 0.15 + 0.35 * max(abs(a), abs(b)) for a, b in pairs)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("| Dice | +0.60 [0.52, 0.66] | < 0.0001 | 1,200 |", True),
        ("| Dice | +0.10 [0.52, 0.66] | 0.0227 | 1,234 |", False),
        ("| Dice | +0.58 [0.52, 0.64] | 0.0227 | 3,234 |", False),
        ("| IoU | +0.58 [0.52, 0.64] | 0.0227 | 1,234 |", False),
    ],
)
def test_printed_lines_are_compared_by_words_and_numbers(other: str, same: bool) -> None:
    assert same_but_for_training("| Dice | +0.58 [0.52, 0.64] | 0.0227 | 1,234 |", other) is same


def pictures_of(notebook: NotebookNode) -> list[list[str]]:
    """The kinds of the pictures that each cell showed."""
    kept = [[kind for output in cell.outputs for kind in output.get("data", {})] for cell in code_of(notebook)]
    return [[kind for kind in kinds if kind in {"image/png", "image/jpeg"}] for kinds in kept]


@pytest.mark.slow
@every_notebook
def test_a_notebook_says_in_a_fresh_kernel_what_is_kept(path: Path, tmp_path: Path) -> None:
    """In a folder of its own: started elsewhere than beside the examples."""
    from nbclient import NotebookClient

    kept, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    for cell in code_of(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert pictures_of(notebook) == pictures_of(kept)
    assert not [output for cell in code_of(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    for before, now in zip(said(kept), said(notebook), strict=True):
        assert len(before) == len(now), (before, now)
        differing = [
            (one, other) for one, other in zip(before, now, strict=True) if not same_but_for_training(one, other)
        ]
        assert differing == []
