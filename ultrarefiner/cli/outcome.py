"""What a command hands back to the shell."""

from __future__ import annotations

from dataclasses import dataclass

DONE, FAILED, WRONG_FLAG, SOME_BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = (
    f"Exit codes: {DONE} all was done; {FAILED} something was wrong with the input, and standard error says what; "
    f"{WRONG_FLAG} a wrong flag; {SOME_BROKEN} some files were broken and the others were done; {INTERRUPTED} stopped "
    "with Ctrl-C."
)
"""For the end of every help text."""


@dataclass(frozen=True)
class Outcome:
    """What a command that can be done in part has to say; other commands return their text alone.

    Attributes:
        text: for standard output.
        failures: sentences for standard error, one a line.
        exit_code: of the process.

    Example:
        >>> Outcome("4 of 5 images segmented.", ("a.png is broken.",), SOME_BROKEN).exit_code
        3
    """

    text: str
    failures: tuple[str, ...] = ()
    exit_code: int = DONE
