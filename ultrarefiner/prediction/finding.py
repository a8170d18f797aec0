"""Which files are pictures: folders searched, mask files and earlier results left out, and said so."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.data.cases import natural_key
from ultrarefiner.data.folder import PICTURE_SUFFIXES
from ultrarefiner.data.nifti import SUFFIXES as NIFTI_SUFFIXES
from ultrarefiner.prediction.dicom import is_dicom
from ultrarefiner.prediction.reading import DICOM_SUFFIXES, stem_of

TABLE_NAME = "predictions.csv"
RESULT_FOLDERS = ("masks", "coarse", "probabilities", "panels")

_ENDINGS = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES, *NIFTI_SUFFIXES)
_MASK = re.compile(r"(?P<name>.+)_mask(_[0-9]+)?")


@dataclass(frozen=True)
class FoundFile:
    """A file to predict.

    Attributes:
        path: absolute.
        name: what its results are called: its path below the folder that was given, or its own name if the file itself
            was given; without its ending. Not yet unique.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class FoundFiles:
    """What was found.

    Attributes:
        files: in the order in which they were given, each once; in natural order within a folder.
        problems: (what was given, a sentence) for what is not there and for folders without a picture.
        notes: sentences on files that were passed over.
    """

    files: tuple[FoundFile, ...]
    problems: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def find_pictures(
    given: str | Path | Iterable[str | Path], *, recursive: bool = False, results: str | Path | None = None
) -> FoundFiles:
    """The pictures among files and in folders: PNG, JPEG, TIFF, BMP and their like, DICOM, NIfTI.

    A file that is given is taken whatever it is called. In a folder, pictures are known by their endings, DICOM also by
    its first bytes. Left out are hidden files, mask files that stand beside their image ("a_mask.png" and
    "a_mask_1.png" beside "a.png", as in BUSI), the results of earlier runs (``masks`` and its like beside a
    ``predictions.csv``), and other files; notes say so. Nothing is opened but what has no known ending.

    Args:
        given: files and folders, in any mixture.
        recursive: whether folders inside folders are searched; links to folders are not followed.
        results: the folder that results are written to.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("a10.png", "a2.png", "a2_mask.png", "notes.txt"):
        ...     _ = (root / name).write_bytes(b"")
        >>> found = find_pictures(root)
        >>> [file.name for file in found.files]
        ['a2', 'a10']
        >>> found.notes[0]
        '1 mask file was left out (a2_mask.png); give it by name to predict it.'
    """
    files: dict[Path, FoundFile] = {}
    problems: list[tuple[str, str]] = []
    masks: list[str] = []
    others: list[str] = []
    for one in [given] if isinstance(given, (str, Path)) else given:
        path = Path(os.path.abspath(one))  # noqa: PTH100 - links stay what the user called them
        if not path.is_dir():
            if os.path.lexists(path):
                files.setdefault(path, FoundFile(path, stem_of(path)))
            else:
                problems.append((str(one), f"there is no file or folder {one}; check the path"))
            continue
        try:
            inside = _in_folder(path, recursive=recursive, results=results, masks=masks, others=others)
        except OSError as error:
            problems.append((str(one), f"the folder {one} cannot be read ({error.strerror}); check its permissions"))
            continue
        if not inside:
            problems.append((str(one), _no_picture(path, recursive=recursive)))
        for file in inside:
            files.setdefault(file.path, file)
    notes = (
        *_note(masks, "mask file", "give it by name to predict it"),
        *_note(others, "file without a picture's ending", "give it by name to try it"),
    )
    return FoundFiles(tuple(files.values()), tuple(problems), notes)


def unique_names(files: Sequence[FoundFile], taken: dict[Path, str], *, several: Collection[Path]) -> list[str]:
    """A name for each file that no other has, whatever the case of its letters.

    A file keeps the name that it had in an earlier run. Of two files "a.png" and "a.jpg" the second becomes "a_jpg",
    then "a_2" and so on. A file of several pictures, whose results are called "a_slice000" and so on, shares its name's
    beginning with no other.

    Args:
        files: those of this run.
        taken: names given before, by path.
        several: which files hold several pictures.

    Example:
        >>> paths = [Path("/x/a.png"), Path("/x/A.jpg"), Path("/y/a.jpg")]
        >>> unique_names([FoundFile(path, path.stem) for path in paths], {}, several=())
        ['a', 'A_jpg', 'a_2']
    """
    used = {name.casefold() for name in taken.values()}
    wide = {taken[path].casefold() for path in several if path in taken}
    names = []
    for file in files:
        if file.path not in taken:
            taken[file.path] = next(
                name for name in _candidates(file) if not _clashes(name.casefold(), used, wide, file.path in several)
            )
            used.add(taken[file.path].casefold())
            if file.path in several:
                wide.add(taken[file.path].casefold())
        names.append(taken[file.path])
    return names


def _candidates(file: FoundFile) -> Iterator[str]:
    folder, _, last = file.name.rpartition("/")
    raw = os.fsencode(last)
    if len(raw) > 180:  # "_slice000.png" and the hidden name while writing must fit in the 255 bytes of a file system
        last = raw[:160].decode(errors="ignore") + "~"
    name = f"{folder}/{last}" if folder else last
    yield name
    ending = file.path.name[len(stem_of(file.path)) :].strip(".").replace(".", "_").lower()
    if ending:
        yield f"{name}_{ending}"
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


_PART = re.compile(r"(.+)_(slice|frame)[0-9]+")


def _clashes(name: str, used: set[str], wide: set[str], several: bool) -> bool:
    part = _PART.fullmatch(name)
    return (
        name in used
        or (part is not None and part[1] in wide)
        or (several and any((of := _PART.fullmatch(one)) is not None and of[1] == name for one in used))
    )


def _in_folder(
    root: Path, *, recursive: bool, results: str | Path | None, masks: list[str], others: list[str]
) -> list[FoundFile]:
    own = None if results is None else os.path.abspath(results)  # noqa: PTH100 - as above
    found: list[FoundFile] = []
    os.listdir(root)  # noqa: PTH208 - raises where the folder may not be read, which os.walk passes over
    for folder, inside, names in os.walk(root):
        place = Path(folder)
        earlier = folder == own or TABLE_NAME in names
        kept = [one for one in inside if not one.startswith(".") and not (earlier and one in RESULT_FOLDERS)]
        inside[:] = sorted(kept, key=natural_key) if recursive else []
        stems = {stem_of(name) for name in names if name.lower().endswith(_ENDINGS)}
        for name in sorted(names, key=natural_key):
            if name.startswith("."):
                continue
            path = place / name
            mask = _MASK.fullmatch(stem_of(name))
            if not name.lower().endswith(_ENDINGS) and not is_dicom(path):
                if not (earlier and name.lower().endswith((".csv", ".json", ".md"))):
                    others.append(name)
            elif mask is not None and mask["name"] in stems:
                masks.append(name)
            else:
                found.append(FoundFile(path, (path.relative_to(root).parent / stem_of(name)).as_posix()))
    return found


def _no_picture(path: Path, *, recursive: bool) -> str:
    inside = [] if recursive else [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    more = " It has folders inside: recursive=True (--recursive) searches them." if inside else ""
    return (
        f"the folder {path} has no pictures ({', '.join(_ENDINGS)}); give the folder that holds them, or files by name."
        f"{more}"
    )


def _note(names: list[str], what: str, remedy: str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    some = f"1 {what} was" if len(names) == 1 else f"{len(names)} {what.replace('file', 'files', 1)} were"
    return [f"{some} left out ({shown}); {remedy if len(names) == 1 else remedy.replace(' it', ' them')}."]
