"""Read chosen arrays of an npz archive, with no trust in the file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ultrarefiner.data.plain_pickle import LARGEST, has_letters, load_plain

_LARGEST = 2**33  # bytes of one array: 8 GiB


def read_members(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The members of these names that an archive has: arrays as arrays, pickled ones as plain values (`load_plain`).

    A header that announces more than the file holds is refused before memory is asked for.

    Args:
        path: the archive.
        names: of the members, without ".npy".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive or one of these members is truncated, damaged, larger than 8 GiB, or holds a pickle
            of more than plain values.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "some.npz"
        >>> np.savez(path, a=np.arange(3), b=np.array([{"x": 1}]), c=np.zeros(9))
        >>> read_members(path, ("a", "b", "d"))
        {'a': array([0, 1, 2]), 'b': [{'x': 1}]}
    """
    if not path.is_file():
        message = f"there is no file {path}; check the path."
        raise FileNotFoundError(message)
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            return {name: _member(archive, f"{name}.npy") for name in names if f"{name}.npy" in there}
    except ModuleNotFoundError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        MemoryError,
        RuntimeError,
        NotImplementedError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        message = (
            f"{path} ({path.stat().st_size:,} bytes) cannot be read: {error}. If it is truncated or damaged, copy it "
            "again."
        )
        raise ValueError(message) from error


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    size = archive.getinfo(name).file_size
    if size > _LARGEST:
        message = f"{name} has {size:,} bytes, at most {_LARGEST:,} are read"
        raise ValueError(message)
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call] # NumPy's own gap
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            message = f"{name} is of version {version}, arrays of numbers have 1.0 or 2.0"
            raise ValueError(message)
        shape, fortran, kind = readers[version](file)  # type: ignore[no-untyped-call] # likewise
        if kind.hasobject:
            if kind != np.dtype(object):
                message = f"{name} holds {kind}, numbers or a list of dictionaries are expected"
                raise ValueError(message)
            return load_plain(file.read(LARGEST + 1))
        if kind.kind not in "biufU":
            message = f"{name} holds {kind}, numbers are expected"
            raise ValueError(message)
        needed = prod(shape) * kind.itemsize
        if file.tell() + needed != size:
            message = f"{name} announces {shape} of {kind}, {needed:,} bytes, but {size - file.tell():,} are there"
            raise ValueError(message)
        content = file.read()  # its checksum is verified at the end
        if kind.kind == "U" and not has_letters(content, kind.byteorder):
            message = f"{name} holds strings of letters that do not exist"
            raise ValueError(message)
    array = np.frombuffer(content, dtype=kind)
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)
