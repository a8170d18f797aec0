"""Published weights, fetched once: a progress bar, a check, and a name only for what is whole."""

from __future__ import annotations

import logging
import os
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO
from uuid import uuid4

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.checkpoints.known_files import KNOWN_FILES, KnownFile

_LOGGER = logging.getLogger("ultrarefiner")
_VARIABLE = "ULTRAREFINER_CACHE"
_CHUNK = 2**18
_TIMEOUT = 30  # seconds without a byte


def cache_folder() -> Path:
    """Where `download` keeps files.

    Returns:
        The environment variable ``ULTRAREFINER_CACHE`` if it is set, else the system's folder for caches
        (``~/.cache/ultrarefiner`` on Linux). The folder need not exist yet.

    Raises:
        ModuleNotFoundError: the variable is not set, and the package pooch is not installed.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict("os.environ", ULTRAREFINER_CACHE="/data/weights"):
        ...     cache_folder().as_posix()
        '/data/weights'
    """
    moved = os.environ.get(_VARIABLE)
    return Path(moved).expanduser() if moved else Path(_pooch().os_cache("ultrarefiner"))


def download(name: str, *, folder: Location | None = None, progress: bool = True) -> Path:
    """The path of a published file, downloaded if it is not there yet.

    A file gets its name only when it is whole and its hash is right; until then it is hidden in the same folder under
    a name of its own. So an interrupted download leaves nothing under the name, and processes that download the same
    file at once do not disturb one another. (A process that is killed may leave its hidden ``.part`` file, which may be
    deleted.)

    A file that is there is checked again on every call, which reads it once, and never replaced. Where no hash is
    published, the SHA-256 of what came is logged, to compare it with a copy that you trust.

    Args:
        name: one of `KNOWN_FILES`.
        folder: where the file is kept; None for `cache_folder`.
        progress: whether to show a progress bar on standard error.

    Returns:
        The file, for `load_weights` with the layout that `KNOWN_FILES` names.

    Raises:
        ValueError: the name is not known; or the file, there already or just downloaded, has the wrong hash or size.
        OSError: it could not be downloaded (no connection, a server's refusal, a full disk), or the folder cannot be
            written. The sentence says where to put the file by hand.
        ModuleNotFoundError: the package pooch is not installed (``pip install 'ultrarefiner[weights]'``).

    Example:
        >>> download("sam_vit_x.pth")
        Traceback (most recent call last):
        ValueError: name must be one of sam_vit_b_01ec64.pth, ..., but it is 'sam_vit_x.pth'.
    """
    if name not in KNOWN_FILES:
        message = f"name must be one of {', '.join(KNOWN_FILES)}, but it is {name!r}."
        raise ValueError(message)
    known = KNOWN_FILES[name]
    path = (cache_folder() if folder is None else Path(folder).expanduser()) / name
    if not path.exists():
        _fetch(known, path, progress)
    elif fault := _fault(path, known):
        message = (
            f"{path} is not the published {name}: {fault}. Delete it, and it is downloaded again; or choose another "
            "folder."
        )
        raise ValueError(message)
    return path


def _fetch(known: KnownFile, path: Path, progress: bool) -> None:
    """Download next to the path, check, then give it its name."""
    pooch = _pooch(progress)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    file = _open(part)
    try:
        _receive(file, known, path, pooch.HTTPDownloader(progressbar=progress, chunk_size=_CHUNK, timeout=_TIMEOUT))
        if fault := _fault(part, known):
            message = (
                f"{known.url} sent something else than the published {known.name}: {fault}. Nothing was kept. Try "
                "again; a network that asks for a login sends a web page in its place."
            )
            raise ValueError(message)
        if known.hash is None:
            _LOGGER.info(
                "%s has sha256:%s. No hash of it is published; compare it with a copy that you trust.",
                known.name,
                pooch.file_hash(str(part)),
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _open(part: Path) -> BinaryIO:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        return part.open("wb")
    except OSError as error:
        message = f"{part.parent} cannot be written ({error}); choose another folder, or set {_VARIABLE} to one."
        raise OSError(message) from error


def _receive(file: BinaryIO, known: KnownFile, path: Path, downloader: Any) -> None:
    with file:
        try:
            downloader(known.url, file, None)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:  # what requests raises is one, too
            message = (
                f"{known.url} could not be downloaded ({error}). Try again; or download it elsewhere and put it in "
                f"{path.parent.resolve()} under the name {path.name}."
            )
            raise OSError(message) from error


def _fault(path: Path, known: KnownFile) -> str:
    """What is wrong with a file; empty if nothing is."""
    if known.hash is not None:
        algorithm, _, expected = known.hash.partition(":")
        found = _pooch().file_hash(str(path), alg=algorithm)
        if found != expected:
            return f"its {algorithm} is {found}, but it should be {expected}"
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        return f"it has {size:,} bytes, but it should have {known.size:,}"
    if known.name.endswith(".npz") and not zipfile.is_zipfile(path):
        return "it is no .npz archive"
    return ""


def _pooch(progress: bool = False) -> ModuleType:
    try:
        if progress:
            import_module("tqdm")  # pooch's progress bar
        return import_module("pooch")
    except ModuleNotFoundError as error:
        message = f"download needs the package {error.name}: pip install 'ultrarefiner[weights]'."
        raise ModuleNotFoundError(message) from error
