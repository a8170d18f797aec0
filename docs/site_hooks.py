"""What MkDocs does to the pages besides: formulas, pages that are drawn from the code, links that leave the folder.

* ``$formula$`` becomes MathML while the site is built, so that no page fetches a script.
* CHANGELOG.md, the notebooks, the measurements of benchmarks/ and the cards of models that come with the package are
  pages, too; links to them lead there, and links to other files of the repository become plain text.
* ``<!-- names -->`` and ``<!-- commands -->`` are tables drawn from the package.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
PRETRAINED = ROOT / "ultrarefiner" / "pretrained"
sys.path.append(str(Path(__file__).parent))

from site_docstrings import places  # noqa: E402 (beside this file, which MkDocs loads by its path)

FORMULA = re.compile(r"(?<![\\$\w])\$(\S(?:[^$\n]*[^\s\\$])?)\$(?!\w)")
BLOCK = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
FENCED = re.compile(r"(^```.*?^```[ ]*$)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`[^`\n]+`)")


def brought_along() -> dict[str, Path]:
    """Pages whose files are elsewhere in the repository."""
    pages = {"changes.md": ROOT / "CHANGELOG.md"}
    pages |= {f"notebooks/{path.stem}.md": path for path in sorted((ROOT / "examples").glob("0*.ipynb"))}
    pages |= {f"measurements/{path.name}": path for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))}
    pages |= {f"models/{path.parent.name}/index.md": path for path in sorted(PRETRAINED.glob("*/README.md"))}
    return pages


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere; a notebook as it is kept, with its outputs and pictures."""
    for place, path in brought_along().items():
        if path.suffix != ".ipynb":
            files.append(File.generated(config, place, abs_src_path=str(path)))
            continue
        body, parts = MarkdownExporter().from_filename(str(path), {"output_files_dir": f"{path.stem}_files"})
        files.append(File.generated(config, place, content=body))
        for name, content in parts["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for path in sorted(PRETRAINED.glob("*/*.png")):
        files.append(File.generated(config, f"models/{path.parent.name}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Everything but code: formulas and links; then what is drawn from the package."""
    place = page.file.src_uri
    parts = FENCED.split(markdown)
    parts[::2] = [_text(part, place) for part in parts[::2]]
    markdown = "".join(parts)
    if place.startswith("reference/"):
        markdown += hidden_names(Path(place).stem)
    if "<!-- names -->" in markdown:
        markdown = markdown.replace("<!-- names -->", names_table())
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_helps())
    return markdown


def _text(text: str, place: str) -> str:
    parts = CODE.split(text)
    for index in range(0, len(parts), 2):
        part = BLOCK.sub(lambda found: convert(found[1], display="block"), parts[index])
        parts[index] = FORMULA.sub(lambda found: convert(found[1]), part)
    text = "".join(parts)
    return LINK.sub(lambda found: _link(found, place), text)


def _link(found: re.Match[str], place: str) -> str:
    label, target, anchor = found[1], found[2], found[3] or ""
    source = brought_along().get(place)
    here = source.parent if source else ROOT / "docs" / posixpath.dirname(place)
    path = (here / target).resolve()
    if not path.exists():
        message = f"{place} links to {target}, which must be a file of the repository, and is not there; mend the link."
        raise FileNotFoundError(message)
    known = {kept.resolve(): name for name, kept in brought_along().items()}
    if path in known:
        inside = known[path]
    elif path.is_relative_to(ROOT / "docs"):
        if not source:
            return found[0]
        inside = path.relative_to(ROOT / "docs").as_posix()
    else:
        return label  # a file of the repository that is no page
    return f"[{label}]({posixpath.relpath(inside, posixpath.dirname(place) or '.')}{anchor})"


def hidden_names(room: str) -> str:
    """Blocks for the public names of a room that a file of the same name hides from griffe."""
    hidden = [place for place in places().values() if place.split(".")[1] == room and place.count(".") == 3]
    options = "{show_root_heading: true, show_root_toc_entry: true, show_root_full_path: false}"
    return "".join(f"\n\n::: {place}\n    options: {options}\n" for place in sorted(hidden))


def names_table() -> str:
    """What the front door has, each name with the first sentence of its docstring and a link to its room."""
    import inspect

    import ultrarefiner as ur

    lines, known = ["| name | what it is |", "|:--|:--|"], places()
    for name in sorted(ur.__all__, key=str.lower):
        found = getattr(ur, name)
        if inspect.ismodule(found):
            room = name.rpartition(".")[2]
            lines.append(f"| [`{name}`]({room}.md) | {_first_line(found)} |")
        elif name == "__version__":
            lines.append(f"| `{name}` | the version of the package |")
        else:  # a name that no room documents is a KeyError, which stops the build
            lines.append(f"| [`{name}`][{known[name]}] | {_first_line(found)} |")
    return "\n".join(lines)


def _first_line(found: Any) -> str:
    return (found.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def command_helps() -> str:
    """The help text of every command."""
    from ultrarefiner.cli.parsing import command_parser
    from ultrarefiner.cli.registry import COMMANDS

    os.environ["COLUMNS"] = "110"  # wide enough for names of flags
    parts = []
    for words, command in COMMANDS.items():
        told = command_parser(list(words), command).format_help().replace("\b", "")
        parts.append(f"## ultrarefiner {' '.join(words)}\n\n{command.told}\n\n```text\n{told.strip()}\n```\n")
    return "\n".join(parts)
