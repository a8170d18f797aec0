"""Which files are pictures: folders searched, mask files and earlier results left out, and said so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    its first bytes. Left out are mask files that stand beside their image ("a_mask.png" and "a_mask_1.png" beside
    "a.png", as in BUSI), other files, and folders inside that are empty or not to be searched, and notes say so; of
    hidden files and the results of earlier runs (``masks`` and its like beside a ``predictions.csv``) nothing is said.
    No file is opened but those without a known ending.

    Args:
        given: files and folders, in any mixture.
        recursive: whether folders inside folders are searched; links to folders are not followed.
        results: the folder that results are written to.

    Returns:
        The files in the order of their names (numbers by their value), what could not be taken, and notes.

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
    passed = _PassedOver()
    for one in [given] if isinstance(given, (str, Path)) else given:
        path = Path(os.path.abspath(one))  # noqa: PTH100 - links stay what the user called them
        if not path.is_dir():
            if os.path.lexists(path):
                files.setdefault(path, FoundFile(path, stem_of(path)))
            else:
                problems.append((str(one), f"there is no file or folder {one}; check the path"))
            continue
        here = _PassedOver()
        inside = _in_folder(path, recursive=recursive, results=results, passed=here)
        problems += here.locked
        if not inside and not here.locked:
            problems.append((str(one), _no_picture(path, below=bool(here.unsearched))))
            here.unsearched.clear()
        for file in inside:
            files.setdefault(file.path, file)
        passed.add(here)
    return FoundFiles(tuple(files.values()), tuple(problems), passed.notes())


@dataclass
class _PassedOver:
    """Names of what a search left out, and folders that may not be read, with a sentence each."""

    masks: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    locked: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: _PassedOver) -> None:
        for names, more in zip(vars(self).values(), vars(other).values(), strict=True):
            names += more

    def notes(self) -> tuple[str, ...]:
        told = (
            (self.masks, "mask file was", "mask files were", "give {} by name to predict {}"),
            (self.others, "file without a picture's ending was", "files without a picture's ending were",
             "give {} by name to try {}"),
            (self.unsearched, "folder inside was", "folders inside were", "recursive=True (--recursive) searches {}"),
            (self.empty, "empty folder was", "empty folders were", "nothing is in {}"),
        )  # fmt: skip
        return tuple(_note(*one) for one in told if one[0])


def _in_folder(root: Path, *, recursive: bool, results: str | Path | None, passed: _PassedOver) -> list[FoundFile]:
    own = None if results is None else os.path.abspath(results)  # noqa: PTH100 - as above
    found: list[FoundFile] = []

    def locked(error: OSError) -> None:
        reason = f"the folder {error.filename} cannot be read ({error.strerror}); check its permissions"
        passed.locked.append((str(error.filename), reason))

    for folder, inside, names in os.walk(root, onerror=locked):
        place = Path(folder)
        earlier = folder == own or TABLE_NAME in names
        kept = [one for one in inside if not one.startswith(".") and not (earlier and one in RESULT_FOLDERS)]
        if place != root and not inside and not names:
            passed.empty.append(place.relative_to(root).as_posix())
        if not recursive:
            passed.unsearched += [one for one in sorted(kept, key=natural_key) if not _of_results(place / one, own)]
        inside[:] = sorted(kept, key=natural_key) if recursive else []
        stems = {stem_of(name) for name in names if name.lower().endswith(_ENDINGS)}
        for name in sorted(names, key=natural_key):
            if name.startswith("."):
                continue
            path = place / name
            mask = _MASK.fullmatch(stem_of(name))
            if not name.lower().endswith(_ENDINGS) and not is_dicom(path):
                if not (earlier and name.lower().endswith((".csv", ".json", ".md"))):
                    passed.others.append(name)
            elif mask is not None and mask["name"] in stems:
                passed.masks.append(name)
            else:
                found.append(FoundFile(path, (path.relative_to(root).parent / stem_of(name)).as_posix()))
    return found


def _of_results(folder: Path, own: str | None) -> bool:
    return str(folder) == own or (folder / TABLE_NAME).is_file()


def _no_picture(path: Path, *, below: bool) -> str:
    more = " It has folders inside: recursive=True (--recursive) searches them." if below else ""
    return (
        f"the folder {path} has no pictures ({', '.join(_ENDINGS)}); give the folder that holds them, or files by name."
        f"{more}"
    )


def _note(names: list[str], one: str, several: str, remedy: str) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    some, them = (one, "it") if len(names) == 1 else (several, "them")
    return f"{len(names)} {some} left out ({shown}); {remedy.replace('{}', them)}."
