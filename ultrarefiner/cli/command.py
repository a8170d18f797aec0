"""Commands, their flags, their exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch

_FAILED, _INTERRUPTED = 1, 130

SWITCHES = frozenset({"colour", "keep_in_memory", "measures", "progress", "sheet", "synthetic"})
"""Flags that are true or false; they may stand alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what follows ``ultrarefiner``; None takes the shell's.

    Returns:
        0 if all went well, 1 if something was wrong with the input, which standard error says in a sentence, and 130
        after Ctrl-C. A wrong flag exits with 2.

    Example:
        >>> import tempfile
        >>> main(["simulate", "--out", tempfile.mkdtemp(), "--phantoms", "2", "--samples", "3", "--size", "48"])
        3 masks in ... (3 written now). Dice: 0.6-0.8 ...
        0
    """
    try:
        from jsonargparse import auto_cli

        known = commands()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"ultrarefiner needs the package {error.name}: pip install 'ultrarefiner[cli]'.\n")
        return _FAILED
    given = sys.argv[1:] if arguments is None else arguments
    _let_the_library_talk()
    try:
        # A dictionary of commands, so that one command is a subcommand, too.
        told = auto_cli(known, args=_flags(given), as_positional=False)
    except KeyboardInterrupt:
        sys.stderr.write("ultrarefiner: stopped; the same command goes on from here.\n")
        return _INTERRUPTED
    except torch.OutOfMemoryError as error:
        sys.stderr.write(f"ultrarefiner: {error}\nGive a smaller batch_size, or precision bf16-mixed.\n")
        return _FAILED
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        sys.stderr.write(f"ultrarefiner: {error}\n")
        return _FAILED
    sys.stdout.write(f"{told}\n")
    return 0


def commands() -> dict[str, Any]:
    """Every command by its name; imported here, as each brings optional packages."""
    from ultrarefiner.cli.cache import cache
    from ultrarefiner.cli.simulate import simulate
    from ultrarefiner.cli.train import automedsam, autosam

    training = {"_help": "Train a system, measure it, draw it.", "autosam": autosam, "automedsam": automedsam}
    return {"cache": cache, "simulate": simulate, "train": training}


def _let_the_library_talk() -> None:
    """Print what this library reports, and only that."""
    logger = logging.getLogger("ultrarefiner")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def _flags(arguments: Sequence[str]) -> list[str]:
    """``--shard-size`` is ``--shard_size``, a bare ``--synthetic`` is true, ``--no-progress`` is false."""
    flags = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if not argument.startswith("--"):
            flags.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and name in SWITCHES and following.startswith("-"):
            equals, value = "=", "true"
        elif not equals and name.removeprefix("no_") in SWITCHES and name.startswith("no_"):
            name, equals, value = name.removeprefix("no_"), "=", "false"
        flags.append(f"--{name}{equals}{value}")
    return flags
