"""Every command by its words: where its function is, and what it is for. Nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_ROOM = "ultrarefiner.cli"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: in this room, where its function is.
        function: of which the parameters are the flags.
        told: what it does, in a line: the first one of the function's docstring, kept here, too, so that a list of all
            commands imports none of them.
        positional: the flag that words without a flag are the values of.
        shown: how those words are written in the usage line.
        goes_on: whether the same command goes on where it was stopped.
    """

    module: str
    function: str
    told: str
    positional: str | None = None
    shown: str = ""
    goes_on: bool = True

    def load(self) -> Callable[..., Any]:
        """Import the function, and with it the packages that it needs.

        Raises:
            ModuleNotFoundError: one of them is not installed.
        """
        function: Callable[..., Any] = getattr(import_module(f"{_ROOM}.{self.module}"), self.function)
        return function


GROUPS = {"train": "Train a system or one phase of it, measure it, draw it."}
"""Words that are followed by another one."""

COMMANDS: dict[tuple[str, ...], Command] = {
    ("predict",): Command(
        "predict", "predict", "Segment images and refine their masks.", positional="paths", shown="IMAGE | FOLDER ..."
    ),
    ("evaluate",): Command(
        "evaluate", "evaluate", "Measure a model, or masks that are there, against true masks.", goes_on=False
    ),
    ("train", "coarse"): Command("train_coarse", "coarse", "Train a coarse network, phase 1."),
    ("train", "refiner"): Command(
        "train_refiner",
        "refiner",
        "Train a refiner, phase 2: SAM learns to repair coarse masks, simulated or predicted ones.",
    ),
    ("train", "joint"): Command(
        "train_joint", "joint", "Train coarse network and refiner together, phase 3, and compare coarse with refined."
    ),
    ("train", "autosam"): Command(
        "train", "autosam", "Train AutoSAM: a network makes SAM's dense prompt from the image, SAM is frozen."
    ),
    ("train", "automedsam"): Command(
        "train",
        "automedsam",
        "Train Automatic MedSAM from tight boxes alone: a small module makes the prompts from SAM's own embedding.",
    ),
    ("train", "correction"): Command(
        "train_correction", "correction", "Train a correction by clicks for images, and measure Dice over clicks."
    ),
    ("simulate",): Command(
        "simulate",
        "simulate",
        "Write simulated failures of true masks: shards of PNG pictures, a manifest, a contact sheet of every kind.",
    ),
    ("cache",): Command(
        "cache",
        "cache",
        "Compute and keep the embeddings of SAM's image encoder, float16, for training without it.",
    ),
    ("download",): Command(
        "download",
        "download",
        "Download published weights and check them, or list what is known.",
        positional="names",
        shown="NAME ...",
        goes_on=False,
    ),
}
"""In the order of the help text."""


def asked_for(arguments: Sequence[str]) -> tuple[str, ...]:
    """The words at the start that name a command or a group; none where the first word is none.

    Example:
        >>> asked_for(["train", "joint", "--epochs", "3"]), asked_for(["train", "--help"]), asked_for(["--version"])
        (('train', 'joint'), ('train',), ())
    """
    for length in (2, 1):
        words = tuple(arguments[:length])
        if words in COMMANDS or (length == 1 and words and words[0] in GROUPS):
            return words
    return ()
