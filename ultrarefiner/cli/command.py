"""The command ``ultrarefiner``: find what was asked for, run it, answer the shell."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ultrarefiner.cli.outcome import FAILED, INTERRUPTED, Outcome
from ultrarefiner.cli.parsing import as_given, command_parser, overview, spelt_out
from ultrarefiner.cli.registry import COMMANDS, Command, asked_for


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Only the command that was asked for is imported, and with it the packages that it needs; ``predict`` needs none
    beside those that the library is installed with.

    Args:
        arguments: what follows ``ultrarefiner``; None takes the shell's.

    Returns:
        The exit code: 0 if all was done; 1 if something was wrong with the input or a package is missing, which
        standard error says in a sentence, and nothing could be done; 3 if some files were broken and the others were
        done (``predict``, ``download``); 130 after Ctrl-C.

    Raises:
        SystemExit: with 2 for a wrong flag or command; with 0 for ``--help``, ``--version`` and ``--print_config``.

    Example:
        >>> import tempfile
        >>> main(["simulate", "--out", tempfile.mkdtemp(), "--phantoms", "2", "--samples", "3", "--size", "48"])
        3 masks in ... (3 written now). Dice: 0.6-0.8 ...
        0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = asked_for(given)
    if words not in COMMANDS:
        from ultrarefiner import __version__

        overview(words, __version__).parse_args(given[len(words) :])
        return FAILED  # not reached: without a command that is known, the parser exits
    command = COMMANDS[words]
    _let_the_library_talk()
    try:
        parser = command_parser(words, command)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        return _refused(
            f"{' '.join(words)} needs the package {package}: pip install 'ultrarefiner[cli]'.", "ultrarefiner "
        )
    try:
        flags = parser.parse_args(spelt_out(given[len(words) :], parser.switches, command.positional))
    except UnicodeDecodeError as error:  # nothing else is read here
        parser.error(f"--config must be a YAML file of flags, but it is no text ({error.reason}).")
    options = {name: as_given(value) for name, value in vars(flags).items() if name != "config"}
    return _answered(command, command.load(), options)


def _answered(command: Command, function: Callable[..., Any], options: dict[str, Any]) -> int:
    """Run the function and say what came of it."""
    import torch

    try:
        told = function(**options)
    except KeyboardInterrupt:
        _say(sys.stderr, f"ultrarefiner: stopped{'; the same command goes on from here' * command.goes_on}.")
        return INTERRUPTED
    except torch.OutOfMemoryError as error:
        return _refused(f"{error}\nGive a smaller batch_size, or precision bf16-mixed (predict: bf16).")
    except ModuleNotFoundError as error:
        # Where nothing of ours asked for the package in a sentence, Python says that there is no module.
        bare = str(error).startswith("No module named")
        return _refused(f"{error}: pip install 'ultrarefiner[cli]'." if bare else str(error))
    except (ValueError, OSError, FloatingPointError) as error:
        return _refused(str(error))
    outcome = told if isinstance(told, Outcome) else Outcome(told)
    try:
        _say(sys.stdout, outcome.text)
    except BrokenPipeError:  # whoever reads has read enough: what was to be done is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for failure in outcome.failures:
        _say(sys.stderr, failure)
    return outcome.exit_code


def _say(stream: Any, sentence: str) -> None:
    """Write a line at once; names of files may hold what a terminal has no letters for."""
    letters = stream.encoding or "utf-8"
    stream.write(f"{sentence}\n".encode(letters, "backslashreplace").decode(letters))
    stream.flush()


def _refused(sentence: str, start: str = "ultrarefiner: ") -> int:
    _say(sys.stderr, f"{start}{sentence}")
    return FAILED


def _let_the_library_talk() -> None:
    """Print what this library reports, and only that."""
    logger = logging.getLogger("ultrarefiner")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
