"""With what weights a run began: ``start.json``, so that it goes on from those alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ultrarefiner.checkpoints.files import replaced_file

FILE = "start.json"


def same_start(folder: Path, **start: str | bool | None) -> None:
    """Remember what a run begins with, and refuse to go on with another beginning.

    A checkpoint knows the settings of its run, but not where its first weights came from: a run that was stopped
    would go on silently, whatever the flags now say of them.

    Args:
        folder: of the run; where it has no ``last.pt`` nothing was begun yet.
        start: by their flags, as plain values.

    Raises:
        ValueError: the run there began with others, or the file is damaged.

    Example:
        >>> import tempfile
        >>> same_start(Path(tempfile.mkdtemp()), encoder="imagenet", sam_weights=None)
    """
    path, last = folder / FILE, folder / "last.pt"
    if not last.exists():
        with replaced_file(path, shared=True) as file:
            file.write(json.dumps(start).encode())
        return
    if not path.exists():  # a run of an earlier version
        return
    for name, before in _read(path).items():
        if name in start and start[name] != before:
            message = (
                f"{last} is of a run that began with {name} {before!r}, but now it is {start[name]!r}; give the same, "
                "or another out."
            )
            raise ValueError(message)


def _read(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        message = f"{path} is damaged ({error}); delete it, or train into another out."
        raise ValueError(message) from error
    return found if isinstance(found, dict) else {}
