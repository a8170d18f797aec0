"""Files of tensors: a kill while writing leaves the old file whole, and reading never executes anything."""

from __future__ import annotations

import os
import pickle
import socket
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

Location = str | os.PathLike[str]

_DOWNLOAD_AGAIN = "Download or copy it again and compare its size with the original."


@contextmanager
def replaced_file(path: Location, *, shared: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when it is complete.

    What is written goes to a hidden name in the same folder, is forced to the disk, then takes the place of
    ``path`` in one step of the file system: whoever reads ``path`` sees the old file or the new one, never a
    part of one, even after a ``kill -9``. An exception inside the block leaves the old file as it was.

    Args:
        path: the file; its folder is made if there is none.
        shared: whether other processes may write the same file at the same moment; each then has a hidden name of its
            own, and the last to finish is the one that stays.

    Yields:
        A file open for writing bytes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replaced_file(path) as file:
        ...     written = file.write(b"done")
        >>> path.read_bytes()
        b'done'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One fixed name, so that what a killed process left behind is overwritten and does not pile up.
    own = f".{socket.gethostname()}-{os.getpid()}" if shared else ""
    part = path.with_name(f".{path.name}{own}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def sweep_parts(folder: Location) -> None:
    """Delete what killed processes of this machine left behind in a folder while they wrote shared files.

    Example:
        >>> sweep_parts("nowhere")
    """
    if os.name != "posix":  # elsewhere asking whether a process lives may end it
        return
    for path in Path(folder).glob(f".*.{socket.gethostname()}-*.part"):
        number = path.name.removesuffix(".part").rsplit("-", 1)[-1]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue


def claim_file(path: Location, content: bytes) -> bool:
    """Create a file with its content in one step, unless it is there: of several processes exactly one does.

    Args:
        path: the file; its folder is made if there is none.
        content: all of it.

    Returns:
        Whether this call created it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "settings.json"
        >>> claim_file(path, b"1"), claim_file(path, b"2"), path.read_bytes()
        (True, False, b'1')
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        os.link(part, path)  # unlike a renaming it fails where the name is taken
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    _flush_folder(path.parent)
    return True


def write_tensors(path: Location, payload: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write tensors, numbers, strings and containers of them, in one step (`replaced_file`).

    Args:
        path: the file, in PyTorch's format (".pt" or ".pth" by custom).
        payload: what to write; `read_tensors` gives it back.
        shared: whether other processes may write the same file at the same moment (`replaced_file`).

    Raises:
        ValueError: the name ends in ".safetensors", which is another format.
        OSError: the file could not be written, as on a full disk; a file of that name stays as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> write_tensors(path, {"weight": torch.ones(2), "epoch": 3})
        >>> read_tensors(path)
        {'weight': tensor([1., 1.]), 'epoch': 3}
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        message = f"path must be a PyTorch file, but it is {path}; name it {path.stem}.pt."
        raise ValueError(message)
    with replaced_file(path, shared=shared) as file:
        try:
            torch.save(dict(payload), file)
        except RuntimeError as error:  # PyTorch's word for a disk that is full
            message = f"{path} could not be written ({error}); is the disk full?"
            raise OSError(message) from error


def read_tensors(path: Location) -> dict[str, Any]:
    """Read a file of tensors onto the CPU. Code that a pickle carries is never executed.

    Args:
        path: PyTorch's format; safetensors if the name ends in ".safetensors" (``pip install
            ultrarefiner[weights]``); NumPy's arrays by name if it is such an archive.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, is a pickle of more than tensors, or is no checkpoint at
            all.
        ModuleNotFoundError: a safetensors file, and that package is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save({"bias": torch.ones(2)}, path)
        >>> read_tensors(path)
        {'bias': tensor([1., 1.])}
        >>> read_tensors("nowhere.pt")
        Traceback (most recent call last):
        FileNotFoundError: There is no file nowhere.pt (looked in ...); check the name, or download it first.
    """
    path = Path(path)
    if not path.is_file():
        what = f"{path} is a folder, not a file" if path.is_dir() else f"There is no file {path.name}"
        message = f"{what} (looked in {path.parent.resolve()}); check the name, or download it first."
        raise FileNotFoundError(message)
    content = _read_npz(path) if _holds_arrays(path) else _READERS.get(path.suffix, _read_torch)(path)
    if not isinstance(content, Mapping):
        message = (
            f"{path} must hold a dictionary of tensors, but it holds a {type(content).__name__}; "
            "save the model's state_dict() instead."
        )
        raise ValueError(message)
    return dict(content)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_explain_pickle(path, str(error))) from error
    except PermissionError as error:
        message = f"{path} may not be read by this user; change its permissions, or copy it to where you may read."
        raise PermissionError(message) from error
    except (EOFError, RuntimeError, OSError, KeyError, AttributeError, ValueError) as error:
        message = f"{path} ({path.stat().st_size:,} bytes) is truncated or damaged. {_DOWNLOAD_AGAIN}"
        raise ValueError(message) from error


def _explain_pickle(path: Path, reason: str) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    complaint = [line.strip() for line in reason.splitlines() if "Unsupported" in line or "GLOBAL" in line]
    if complaint and start.startswith((b"PK", b"\x80")):
        return (
            f"{path} holds more than tensors, numbers, strings and containers of them, so it was not loaded and "
            "nothing in it was executed. If you trust its author, open it once in a process of its own with "
            "torch.load(..., weights_only=False) and save only the state_dict() to a new file. "
            f"PyTorch says: {complaint[0]}"
        )
    return (
        f"{path} is not a PyTorch file, or it is damaged: it starts with {start!r}. {_DOWNLOAD_AGAIN} "
        "(A web page that was saved instead of the file starts with b'<'.)"
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        message = f"{path.name} needs the package safetensors: pip install 'ultrarefiner[weights]'."
        raise ModuleNotFoundError(message) from error
    try:
        tensors: dict[str, Any] = load_file(path, device="cpu")
    except SafetensorError as error:
        size = path.stat().st_size
        message = f"{path} ({size:,} bytes) is truncated, damaged or no safetensors file ({error}). {_DOWNLOAD_AGAIN}"
        raise ValueError(message) from error
    return tensors


def _holds_arrays(path: Path) -> bool:
    """Whether a file is NumPy's archive, whatever it is called."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist()) and all(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _read_npz(path: Path) -> dict[str, Any]:
    """Arrays by name; a pickled object among them is refused, not opened."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        size = path.stat().st_size
        message = (
            f"{path} ({size:,} bytes) is truncated, damaged, or holds more than arrays of numbers ({error}); nothing "
            f"in it was executed. {_DOWNLOAD_AGAIN}"
        )
        raise ValueError(message) from error


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": _read_safetensors, ".npz": _read_npz}


def _flush_folder(folder: Path) -> None:
    """Force the new name to the disk, where folders can be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
