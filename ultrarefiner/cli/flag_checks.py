"""Flags that make no sense: without effect beside the others, numbers below zero, a folder that takes no files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

_DEVICES = re.compile(r"auto|-1|[0-9]+(,[0-9]+)*")


def refuse_idle(idle: Mapping[str, bool]) -> None:
    """Raise if a flag is given that has no effect beside the others.

    Args:
        idle: for each such flag what it is about and what is there instead, and whether it is so.

    Raises:
        ValueError: one is so; the first is told.

    Example:
        >>> refuse_idle({"share is of mixed failures, but failures are 'simple'": False})
    """
    found = [sentence for sentence, there in idle.items() if there]
    if found:
        message = f"{found[0]}; leave the flag out, or change the other one."
        raise ValueError(message)


def refuse_negative(**numbers: float | int | None) -> None:
    """Raise if a rate or a weight is below zero or not finite.

    Args:
        numbers: by their flags; None says nothing.

    Raises:
        ValueError: one is; the first is told.

    Example:
        >>> refuse_negative(learning_rate=1e-3, weight_decay=0.0, iou_weight=None)
    """
    for name, number in numbers.items():
        if number is not None and not 0 <= number < math.inf:
            message = f"{name} must be a finite number of at least 0, but it is {number}."
            raise ValueError(message)


def refuse_devices(devices: int | str, *, on_cpu: bool) -> None:
    """Raise if the flag devices is neither a number of devices, nor which, nor "auto".

    Args:
        devices: the flag.
        on_cpu: whether this machine computes on its CPU, which has no numbered devices.

    Raises:
        ValueError: so it is.

    Example:
        >>> refuse_devices("0,1", on_cpu=False)
    """
    wrong = devices < 1 and devices != -1 if isinstance(devices, int) else not _DEVICES.fullmatch(devices)
    if wrong or (on_cpu and devices != "auto" and not (isinstance(devices, int) and devices > 0)):
        which = "a number of processes from 1 on" if on_cpu else "how many from 1 on, which (such as 0,1), -1 for all"
        message = (
            f"devices must be {which}, or auto, but it is {devices!r}; the kind of device is named by --accelerator "
            "(auto, cpu, cuda, mps)."
        )
        raise ValueError(message)


def refuse_no_folder(out: Path) -> None:
    """Raise if nothing can be written into a folder, which need not be there yet.

    Args:
        out: the flag.

    Raises:
        ValueError: a file is in the way, or this user may not write there.

    Example:
        >>> import tempfile
        >>> refuse_no_folder(Path(tempfile.mkdtemp()) / "runs" / "first")
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        message = f"out must be a folder, but {there} is a file; give another out."
        raise ValueError(message)
    if not os.access(there, os.W_OK | os.X_OK):
        message = f"out must be a folder to write to, but this user may not write to {there}; give another out."
        raise ValueError(message)
