"""From the shell's words to a function's arguments, by its signature and docstring."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser

from ultrarefiner.cli.outcome import EXIT_CODES
from ultrarefiner.cli.registry import COMMANDS, GROUPS, Command

_ALONE = frozenset({"help", "print_config", "version"})
_TRUTHS = frozenset({"true", "false", "yes", "no", "null"})
# Names of files may hold bytes that are no text, which Python writes as letters that YAML refuses.
_CARRIED = {0xDC00 + byte: 0x10DC00 + byte for byte in range(0x80, 0x100)}
_GIVEN = {carried: given for given, carried in _CARRIED.items()}


class CommandParser(ArgumentParser):
    """A parser that takes flags by their whole names alone, and remembers which of them are true or false.

    argparse would take ``--device`` for ``--devices``, which are other things: a place, and a number.

    Args:
        options: of jsonargparse's parser.

    Example:
        >>> parser = CommandParser(prog="ultrarefiner")
        >>> _ = parser.add_argument("--quick", type=bool, default=False, help="be quick.")
        >>> parser.switches
        {'quick'}
    """

    def __init__(self, **options: Any) -> None:
        self.switches: set[str] = set()
        super().__init__(**{"allow_abbrev": False, **options})

    def add_argument(self, *names: str, **options: Any) -> Any:
        """Add an argument, as in jsonargparse."""
        if options.get("type") is bool:
            self.switches.update(name.removeprefix("--") for name in names)
        return super().add_argument(*names, **options)


def command_parser(words: Sequence[str], command: Command) -> CommandParser:
    """The parser of one command: its function's parameters, and ``--config`` and ``--print_config``.

    Args:
        words: that name the command.
        command: which is imported here.

    Raises:
        ModuleNotFoundError: it needs a package that is not installed.

    Example:
        >>> parser = command_parser(["download"], COMMANDS["download",])
        >>> parser.parse_args(["--list=true"]).list
        True
    """
    usage = f"%(prog)s {command.shown} [flags]" if command.positional else "%(prog)s [flags]"
    parser = CommandParser(
        prog=" ".join(["ultrarefiner", *words]),
        usage=usage,
        description=command.told,
        epilog=f"A flag that is true or false may stand alone, or after no_: --progress, --no_progress. {EXIT_CODES}",
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of flags, as --print_config writes it; flags win over it."
    )
    function = command.load()
    parser.add_function_arguments(function, as_group=False, as_positional=False)
    parser.switches.update(name for name, kind in get_type_hints(function).items() if kind == bool | None)
    return parser


def overview(words: Sequence[str], version: str) -> argparse.ArgumentParser:
    """A parser that only tells: all commands, or those of a group, in a line each. It imports none of them.

    Args:
        words: none, or the name of a group.
        version: what ``--version`` says.

    Example:
        >>> "Train AutoSAM" in overview(["train"], "1.0").format_help()
        True
    """
    parser = argparse.ArgumentParser(
        prog=" ".join(["ultrarefiner", *words]),
        description=GROUPS[words[0]] if words else "Segment ultrasound images, refine the masks with SAM, train both.",
        epilog=f"{EXIT_CODES} Each command has its own --help, and reads and writes YAML: --config, --print_config.",
        allow_abbrev=False,
    )
    if not words:
        parser.add_argument("--version", action="version", version=f"ultrarefiner {version}", help="show the version")
    places = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, told in _lines(words).items():
        places.add_parser(name, help=told.replace("%", "%%"))
    return parser


def spelt_out(arguments: Sequence[str], switches: set[str], positional: str | None) -> list[str]:
    """Flags as jsonargparse reads them, from flags as people write them.

    ``--shard-size 5`` is ``--shard_size=5``; a bare ``--synthetic`` is true and ``--no-progress`` false; words without
    a flag, wherever they stand, are the values of one flag; what follows ``--`` is such words. Files of flags come
    first, so that flags win over them. Bytes that are no text become letters, which `as_given` turns back.

    Args:
        arguments: after the words that name the command.
        switches: flags that are true or false.
        positional: the flag of the words without one, which takes a single word, too; None leaves them, to be refused.

    Example:
        >>> spelt_out(["a.png", "--flips", "b.png", "--no-panels", "--batch-size", "4"], {"flips", "panels"}, "paths")
        ['--flips=true', '--panels=false', '--batch_size=4', '--paths=["a.png", "b.png"]']
    """
    flags: list[str] = []
    words: list[str] = []
    left = [argument.translate(_CARRIED) for argument in arguments]
    while left:
        argument = left.pop(0)
        if argument == "--":
            words += left
            break
        if not argument.startswith("--"):
            (flags if argument.startswith("-") else words).append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        following = left[0] if left else "--"
        if not equals and name in switches:
            equals, value = "=", left.pop(0) if following.lower() in _TRUTHS else "true"
        elif not equals and name.startswith("no_") and name.removeprefix("no_") in switches:
            name, equals, value = name.removeprefix("no_"), "=", "false"
        elif not equals and name not in _ALONE and not following.startswith("--"):
            equals, value = "=", left.pop(0)
        if name == positional and equals and not value.startswith("["):
            words.append(value)
        else:
            flags.append(f"--{name}{equals}{value}")
    flags.sort(key=lambda flag: not flag.startswith("--config"))
    if positional is None:
        return flags + words
    return [*flags, f"--{positional}=[{', '.join(map(_quoted, words))}]"] if words else flags


def as_given(value: Any) -> Any:
    r"""A flag's value with the bytes of file names as they were given.

    Example:
        >>> as_given([Path(word) for word in spelt_out(["a\udcff"], set(), None)]) == [Path("a\udcff")]
        True
    """
    if isinstance(value, list):
        return [as_given(one) for one in value]
    return type(value)(str(value).translate(_GIVEN)) if isinstance(value, (str, Path)) else value


def _quoted(word: str) -> str:
    """A word in quotes for YAML, of which JSON's escapes are no part where a character has more than 16 bits."""
    plain = (letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in word)
    return f'"{"".join(plain)}"'


def _lines(words: Sequence[str]) -> dict[str, str]:
    """What stands under these words, each with its line."""
    found: dict[str, str] = {}
    for names, command in COMMANDS.items():
        if names[: len(words)] == tuple(words):
            name = names[len(words)]
            found[name] = GROUPS.get(name, command.told) if not words else command.told
    return found
