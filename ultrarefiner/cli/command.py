"""Commands, their flags, their exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

_FAILED, _INTERRUPTED = 1, 130


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
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        # A dictionary of commands, so that one command is a subcommand, too.
        told = auto_cli(known, args=[_flag(argument) for argument in given], as_positional=False)
    except KeyboardInterrupt:
        sys.stderr.write("ultrarefiner: stopped; the same command goes on from here.\n")
        return _INTERRUPTED
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"ultrarefiner: {error}\n")
        return _FAILED
    sys.stdout.write(f"{told}\n")
    return 0


def commands() -> dict[str, Any]:
    """Every command by its name; imported here, as each brings optional packages."""
    from ultrarefiner.cli.simulate import simulate

    return {"simulate": simulate}


def _flag(argument: str) -> str:
    """``--shard-size`` is ``--shard_size``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
