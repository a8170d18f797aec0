"""The documentation's site: built strictly, whole, and with nothing that is fetched from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ROOMS = sorted(page.stem for page in (ROOT / "docs" / "reference").glob("*.md"))
FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"(https?:)?//|<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+//"
)
PICTURE = re.compile(r"<img[^>]+src=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mkdocs build --strict`: a missing page, link, anchor or picture is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def pages(site: Path) -> Iterator[tuple[str, str]]:
    for page in sorted(site.rglob("*.html")):
        yield str(page.relative_to(site)), page.read_text()


def test_every_page_of_the_menu_is_there_and_every_page_is_in_the_menu(site: Path) -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r":? ([\w/-]+)\.md$", menu, re.MULTILINE)
    built = {str(page.parent.relative_to(site)) for page in site.rglob("index.html")}
    expected = {name.removesuffix("index").rstrip("/") or "." for name in named}
    assert expected == built


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in {"index", "command", "ultrarefiner"}])
def test_every_public_name_is_on_its_rooms_page(site: Path, room: str) -> None:
    module = importlib.import_module(f"ultrarefiner.{room}")
    page = (site / "reference" / room / "index.html").read_text()
    anchors = set(re.findall(r"id=\"ultrarefiner\.([\w.]+)\"", page))
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name, found in vars(module).items() if getattr(found, "__module__", "") == module.__name__]
    missing = [name for name in names if not {f"{room}.{name}", f"{room}.{name}.{name}"} & anchors]
    assert not missing


def test_the_front_door_lists_every_name(site: Path) -> None:
    import ultrarefiner as ur

    page = (site / "reference" / "ultrarefiner" / "index.html").read_text()
    assert [name for name in ur.__all__ if f">{name}<" not in page] == []


def test_examples_are_shown_as_code_and_formulas_as_formulas(site: Path) -> None:
    for name, text in pages(site):
        assert "<p>&gt;&gt;&gt;" not in text, name
        assert not re.search(r"<blockquote>\s*<blockquote>", text), name
        assert "\x08" not in text, name
        visible = re.sub(r"<(pre|code|annotation|script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\$[^$\n<]{1,80}\$", visible), name


def test_nothing_is_fetched_from_elsewhere_and_no_picture_is_missing(site: Path) -> None:
    for name, text in pages(site):
        assert not FETCHED.search(text), name
        for source in PICTURE.findall(text):
            if not source.startswith("data:"):
                assert ((site / name).parent / source).resolve().exists(), (name, source)


def test_every_command_is_on_the_page_of_commands(site: Path) -> None:
    from ultrarefiner.cli.registry import COMMANDS

    page = (site / "reference" / "command" / "index.html").read_text()
    for words in COMMANDS:
        assert f"ultrarefiner {' '.join(words)}" in page


def test_a_name_of_two_rooms_means_the_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    griffe = pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    links = importlib.import_module("site_docstrings").Docstrings()
    for room in ("prediction", "training"):
        parent = griffe.Module(room, parent=griffe.Module("ultrarefiner"))
        told = griffe.Class("Other", parent=parent, docstring=griffe.Docstring("See `Prediction` and `SAMRefiner`."))
        links.on_object(obj=told)
        sam = "[`SAMRefiner`][ultrarefiner.systems.SAMRefiner]"
        assert told.docstring.value == f"See [`Prediction`][ultrarefiner.{room}.Prediction] and {sam}."


def test_a_link_to_a_file_that_is_not_there_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that MkDocs does not see for itself, because they lead out of its folder, too."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    hooks = importlib.import_module("site_hooks")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/train.md"))
    linked = "[a](../faq.md#x), [b](../../pyproject.toml), [c](../../CHANGELOG.md)"
    assert hooks.on_page_markdown(linked, page) == "[a](../faq.md#x), b, [c](../changes.md)"
    for gone in ("gone.md", "../../examples/gone.py", "../../gone.md#there"):
        with pytest.raises(FileNotFoundError, match=rf"how-to/train\.md links to {re.escape(gone.partition('#')[0])}"):
            hooks.on_page_markdown(f"Read [this]({gone}).", page)


def test_the_menu_is_a_list_of_titles() -> None:
    """No page is named twice."""
    menu = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)["nav"]
    found: list[str] = []

    def walk(part: object) -> None:
        if isinstance(part, str):
            found.append(part)
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            walk(inner)

    walk(menu)
    assert len(found) == len(set(found))
    assert all(page.endswith(".md") for page in found)
