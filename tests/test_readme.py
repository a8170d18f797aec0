"""The README's code runs, and its commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

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
