"""The notebooks of examples/: kept with their outputs, clean, and run as a newcomer runs them (``pytest -m slow``)."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

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


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_in_a_fresh_kernel(path: Path, tmp_path: Path) -> None:
    """In a folder of its own: started elsewhere than beside the examples."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in code_of(notebook):
        cell.outputs, cell.execution_count = [], None
    kept = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    pictures = [
        sum("image/png" in output.get("data", {}) for cell in code_of(one) for output in cell.outputs)
        for one in (kept, notebook)
    ]
    assert pictures[0] == pictures[1]
    assert not [output for cell in code_of(notebook) for output in cell.outputs if output.get("name") == "stderr"]
