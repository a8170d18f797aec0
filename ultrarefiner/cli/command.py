"""Commands, their flags, their exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

from ultrarefiner.cli.simulate import simulate

COMMANDS: dict[str, Any] = {"simulate": simulate}

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
        3 masks in ... (3 written now). Dice: 0.60-0.80 ...
        0
    """
    try:
        from jsonargparse import auto_cli
    except ModuleNotFoundError:
        sys.stderr.write("ultrarefiner needs the package jsonargparse: pip install 'ultrarefiner[cli]'.\n")
        return _FAILED
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        # A dictionary of commands, so that one command is a subcommand, too.
        told = auto_cli(COMMANDS, args=None if arguments is None else list(arguments), as_positional=False)
    except KeyboardInterrupt:
        sys.stderr.write("ultrarefiner: stopped; the same command goes on from here.\n")
        return _INTERRUPTED
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"ultrarefiner: {error}\n")
        return _FAILED
    sys.stdout.write(f"{told}\n")
    return 0
