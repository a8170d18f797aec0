"""The README's code runs, and its commands are those that CI runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ultrarefiner.cli.parsing import command_parser, spelt_out
from ultrarefiner.cli.registry import COMMANDS, asked_for

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What makes a block wait for weights that are not here: it is indented, shown and never run.
FETCHED = re.compile(r"\bdownload\(|\"mobile_sam\.pt\"")
DOING = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Call)


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Blocks of a page run one after the other in one namespace, as a reader would type them."""
    if "export_onnx" in page.read_text():
        request.getfixturevalue("unhooked")  # PyTorch cannot export the checks of shapes
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        namespace: dict[str, object] = {}
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), namespace)


def indented_blocks(text: str) -> Iterator[str]:
    """Lines that begin with four spaces, after an empty line and outside of fences, as Markdown shows code."""
    block: list[str] = []
    before = ""
    for line in [*re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines(), "end"]:
        if line.startswith("    ") and (block or not before.strip()):
            block.append(line[4:])
        elif line.strip() and block:
            yield "\n".join(block)
            block = []
        elif block:
            block.append("")
        before = line


def is_python(block: str) -> bool:
    """Whether it parses and does something: imports, assigns or calls."""
    try:
        tree = ast.parse(block)
    except SyntaxError:
        return False
    return any(isinstance(node, DOING) for node in ast.walk(tree))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_not_run_waits_for_a_download(page: Path) -> None:
    """Other Python belongs in a fence, where it is run."""
    never = [block for block in indented_blocks(page.read_text()) if is_python(block) and not FETCHED.search(block)]
    assert never == []


def test_indented_python_is_told_from_shell_and_formulas() -> None:
    code = "    import torch\n    x = 1\n\n    y = f(x)"
    page = f"Text:\n\n{code}\n\nMore\n    no code\n\n    pip install x\n\n    L = D(c) - 1 m\n"
    found = list(indented_blocks(page + "\n```python\n\n    z = 1\n```\n"))
    assert [block.strip() for block in found] == ["import torch\nx = 1\n\ny = f(x)", "pip install x\n\nL = D(c) - 1 m"]
    assert [is_python(block) for block in found] == [True, False]
    assert not is_python("a | b")


def test_ci_runs_the_readmes_second_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert 'pip install -e ".[examples]" && python examples/quickstart.py' in readme
    assert 'pip install -e ".[dev]" && pytest' in readme
    assert 'pip install -e ".[dev]" && pytest' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
    missing = [
        (target, anchor) for target, anchor in links if anchor not in anchors(page.parent / target if target else page)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_flags_that_are_there(page: Path) -> None:
    """Lines that begin with ``ultrarefiner`` name a command, and no flag that it does not know."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^    ultrarefiner (.+)$", text, re.MULTILINE):
        words = re.sub(r" [>#].*", "", line).split()
        name = asked_for(words)
        command = COMMANDS[name]
        parser = command_parser(name, command)
        flags = {flag for action in parser._actions for flag in action.option_strings}
        given = spelt_out(words[len(name) :], parser.switches, command.positional)
        unknown = [flag for flag in (one.partition("=")[0] for one in given) if flag not in flags]
        assert not unknown, f"{page.name}: {unknown}"
