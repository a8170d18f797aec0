"""Names of results: no two files share one, on any file system, and a file keeps its own from run to run."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ultrarefiner.prediction.finding import FoundFile
from ultrarefiner.prediction.reading import stem_of

_PART = re.compile(r"(.+)_(slice|frame)[0-9]+")
_ENDINGS = (".png", ".nii.gz")  # of what is written


def unique_names(files: Sequence[FoundFile], taken: dict[Path, str], *, several: Collection[Path]) -> list[str]:
    """A name for each file that no other has, whatever the case of its letters and the way its accents are stored.

    A file keeps the name that it had in an earlier run. Of two files "a.png" and "a.jpg" the second becomes "a_jpg",
    then "a_2" and so on. A file of several pictures, whose results are called "a_slice000" and so on, shares its name's
    beginning with no other. A folder whose name ends as a result's does gets a "_": the mask of "a.jpg" is "a.png", and
    where that is a folder it could not be written.

    Args:
        files: those of this run.
        taken: names given before, by path; new ones are added.
        several: which files, of this run and before, hold several pictures.

    Example:
        >>> paths = [Path("/x/a.png"), Path("/x/A.jpg"), Path("/y/a.jpg")]
        >>> unique_names([FoundFile(path, path.stem) for path in paths], {}, several=())
        ['a', 'A_jpg', 'a_2']
    """
    given = _Given()
    for path, name in taken.items():
        given.add(name, several=path in several)
    names = []
    for file in files:
        if file.path not in taken:
            many = file.path in several
            taken[file.path] = next(name for name in _candidates(file) if not given.clashes(name, several=many))
            given.add(taken[file.path], several=many)
        names.append(taken[file.path])
    return names


def file_name_of(path: Path, picture: str) -> str:
    """The name of a file's results, from the name of one of its pictures.

    Args:
        path: of the file.
        picture: what its row in the table is called.

    Example:
        >>> file_name_of(Path("/x/clip.dcm"), "clip_frame007"), file_name_of(Path("/x/a_frame007.png"), "a_frame007")
        ('clip', 'a_frame007')
    """
    part = _PART.fullmatch(picture)
    alone = part is None or picture.rpartition("/")[2] == stem_of(path)
    return picture if alone or part is None else part[1]


class _Given:
    """Names that are given already."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.wide: set[str] = set()  # of files with several pictures
        self.parts: set[str] = set()  # "a" where there is an "a_frame000"

    def add(self, name: str, *, several: bool) -> None:
        key = _key(name)
        part = _PART.fullmatch(key)
        self.names.add(key)
        if several:
            self.wide.add(key)
        if part is not None:
            self.parts.add(part[1])

    def clashes(self, name: str, *, several: bool) -> bool:
        key = _key(name)
        part = _PART.fullmatch(key)
        return key in self.names or (part is not None and part[1] in self.wide) or (several and key in self.parts)


def _key(name: str) -> str:
    """What two names have in common that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _candidates(file: FoundFile) -> Iterator[str]:
    *folders, last = file.name.split("/")
    raw = os.fsencode(last)
    if len(raw) > 180:  # "_slice000.png" and the hidden name while writing must fit in the 255 bytes of a file system
        last = raw[:160].decode(errors="ignore") + "~"
    name = "/".join([*(f"{one}_" if one.lower().endswith(_ENDINGS) else one for one in folders), last])
    yield name
    ending = file.path.name[len(stem_of(file.path)) :].strip(".").replace(".", "_").lower()
    if ending:
        yield f"{name}_{ending}"
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1
