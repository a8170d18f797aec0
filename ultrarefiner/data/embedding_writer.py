"""Arrays of embeddings and the journals beside them, written so that a kill or a full disk costs little."""

from __future__ import annotations

import io
import json
import os
import time
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class EmbeddingWriter:
    """Appends embeddings to arrays of one process: first the numbers, then the line that says they are there.

    Rows are written as a file is, not through a memory map, where a full disk ends the process with SIGBUS. An array
    has its full length from the start, as a hole that takes no room; the end of the context cuts off what was not
    needed.

    Args:
        folder: where the files are.
        part: which process this is; it begins the names of the files.
        rows: the most in one array.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with EmbeddingWriter(folder, 0, rows=9) as writer:
        ...     writer.write([("a", "digest of a"), ("b", "digest of b")], np.ones((2, 3, 1, 1), np.float16))
        >>> [np.load(path).shape for path in folder.glob("part0-*.npy")]
        [(2, 3, 1, 1)]
    """

    def __init__(self, folder: Path, part: int, *, rows: int) -> None:
        self._folder = folder
        # Of this call alone, so that a second one of the same part writes no file of the first.
        self._stem = f"part{part}-{uuid.uuid4().hex[:8]}"
        self._rows = rows
        self._name = ""
        self._file: io.FileIO | None = None
        self._shape: tuple[int, ...] = ()
        self._row = self._arrays = 0

    def __enter__(self) -> EmbeddingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def write(self, keys: Sequence[tuple[str, str]], embeddings: np.ndarray) -> None:
        """Write the embeddings of a batch.

        Args:
            keys: name and digest of each image.
            embeddings: float16, one a key.

        Raises:
            OSError: they cannot be written, above all because the disk is full. What earlier calls wrote stays.
        """
        try:
            lines = [self._append(*key, values) for key, values in zip(keys, embeddings, strict=True)]
            if self._file is not None:
                os.fsync(self._file.fileno())
            with (self._folder / f"{self._stem}.jsonl").open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            message = (
                f"the embedding of {keys[0][0]!r} cannot be written to {self._folder} ({error.strerror or error}); "
                f"those before it are kept. Make room (one takes {embeddings[0].nbytes / 1e6:.2g} MB) and fill the "
                "cache again, which goes on from here, or give a folder on another disk."
            )
            raise OSError(message) from error

    def _append(self, name: str, image: str, values: np.ndarray) -> str:
        """Write one row; the line that tells of it."""
        file = self._file
        if file is None or self._row == self._rows:
            file = self._begin(values.shape)
        content = values.astype(np.float16).tobytes()
        _write_all(file, content)
        told = {"name": name, "image": image, "array": self._name, "row": self._row, "stamp": time.time_ns()}
        self._row += 1
        return json.dumps({**told, "checksum": zlib.crc32(content)}) + "\n"

    def _begin(self, shape: tuple[int, ...]) -> io.FileIO:
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._end()
        self._name = f"{self._stem}-{self._arrays:05d}.npy"
        self._arrays += 1
        self._row, self._shape = 0, shape
        self._file = file = io.FileIO(self._folder / self._name, "x")
        header = _header((self._rows, *shape))
        _write_all(file, header)
        file.truncate(len(header) + self._rows * _row_bytes(shape))
        return file

    def _end(self) -> None:
        """Close the array at hand, without the rows that were not needed."""
        file, self._file = self._file, None
        if file is None:
            return
        # If this fails, the array is longer than it need be, and whole all the same.
        with file, suppress(OSError):
            before, after = _header((self._rows, *self._shape)), _header((self._row, *self._shape))
            if 0 < self._row < self._rows and len(before) == len(after):
                file.seek(0)
                _write_all(file, after)
                file.truncate(len(after) + self._row * _row_bytes(self._shape))
                os.fsync(file.fileno())
        if self._row == 0:
            with suppress(OSError):
                (self._folder / self._name).unlink()


def _header(shape: tuple[int, ...]) -> bytes:
    """What an array of float16 begins with; as long for any number of rows, as NumPy leaves room for them to grow."""
    stream = io.BytesIO()
    write: Any = np.lib.format.write_array_header_1_0  # without types in numpy
    write(stream, {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _row_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * np.dtype(np.float16).itemsize


def _write_all(file: io.FileIO, content: bytes) -> None:
    """A file without a buffer may take a part at a time; a full disk is an OSError."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
