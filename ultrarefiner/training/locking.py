"""A run's folder is held by one run: a second one would write over its checkpoints and tables."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Windows has no such locks: there nothing is refused.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

LOCK = ".lock"

_held: set[int] = set()  # descriptors of this process


@contextmanager
def hold_folder(fabric: Any, folder: Path) -> Iterator[None]:
    """Hold a run's folder within this context, on behalf of all processes of the run.

    The first process takes an advisory lock (flock) on ``.lock`` in the folder, which names it. The kernel releases it
    however the process ends, be it by ``kill -9``; the file stays and means nothing. Where the file system or the
    platform has no locks, nothing is held and nothing refused.

    Args:
        fabric: launched; its other processes wait until the lock is taken.
        folder: of the run; made if there is none.

    Raises:
        BlockingIOError: another run holds the folder; in every process of this one.
    """
    held, refusal = _take(folder) if fabric.is_global_zero else (None, None)
    try:
        refusal = fabric.broadcast(refusal)
        if refusal is not None:
            raise BlockingIOError(refusal)
        yield
    finally:
        if held is not None:
            _held.discard(held)
            os.close(held)


def _take(folder: Path) -> tuple[int | None, str | None]:
    """The descriptor that holds the lock, None without locks; or why it was refused."""
    if _fcntl is None:
        return None, None
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 1000).decode(errors="replace").split()
        os.close(file)
        return None, _refusal(folder, holder)
    except OSError:  # a file system without locks
        os.close(file)
        return None, None
    _held.add(file)
    os.ftruncate(file, 0)
    os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
    return file, None


def _refusal(folder: Path, holder: list[str]) -> str:
    # A holder that has just taken the lock has not yet written who it is.
    who = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
    return (
        f"folder must be of no run that is still going, but {who} holds {folder}; wait until it has ended, end it, or "
        "train into another folder."
    )


def _let_go() -> None:
    """In a forked process, which reads ahead and may live longer: the lock would live as long."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
