"""The README's code runs, and its commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ultrarefiner.cli.parsing import command_parser, spelt_out
from ultrarefiner.cli.registry import COMMANDS, asked_for

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page run one after the other in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        namespace: dict[str, object] = {}
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), namespace)


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
