"""The files of stored failures: shards of pictures, a table for each, and how all of it was made."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.data.tables import read_table

FORMAT = "ultrarefiner simulated failures 1"
COLUMNS = ("sample", "case", "seed", "dice", "bin", "reached", "edits")


@dataclass(frozen=True)
class Shard:
    """Two files of a folder: consecutive samples, and what is known of them.

    Attributes:
        folder: where they are.
        number: from 0.
    """

    folder: Path
    number: int

    @property
    def archive(self) -> Path:
        """The pictures."""
        return self.folder / f"shard-{self.number:05d}.zip"

    @property
    def table(self) -> Path:
        """The table."""
        return self.folder / f"shard-{self.number:05d}.csv"

    def picture(self, sample: int) -> str:
        """The name of a sample's picture in the archive."""
        return f"{sample:08d}.png"


def all_shards(folder: Path, settings: dict[str, Any]) -> list[Shard]:
    """Those that there are when all is written."""
    return [Shard(folder, number) for number in range(math.ceil(settings["samples"] / settings["shard_size"]))]


@dataclass(frozen=True)
class FailureRow:
    """A line of the manifest.

    Attributes:
        sample: its number.
        case: the name of the case whose true mask was damaged.
        seed: of the data set.
        dice: at 0.5, with the true mask, in the square where it was made.
        bin: the wanted range of Dice such as "0.8-0.9"; "complete" or "no lesion" where none was wanted.
        reached: whether the Dice lies in it.
        edits: the kinds of errors, joined by "+".
    """

    sample: int
    case: str
    seed: int
    dice: float
    bin: str
    reached: bool
    edits: str


def read_manifest(folder: Location) -> list[FailureRow]:
    """What is known of every sample, in order.

    Args:
        folder: that `ultrarefiner simulate` wrote.

    Returns:
        A row for each sample: which case it is of, how it was drawn, and how good it is.

    Raises:
        FileNotFoundError: a shard is missing, or there are no failures.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.cli import main
        >>> folder = tempfile.mkdtemp()
        >>> _ = main(["simulate", "--out", folder, "--phantoms", "2", "--samples", "3", "--size", "48"])
        3 masks in ...
        >>> len(read_manifest(folder))
        3
    """
    settings = read_settings(Path(folder))
    rows: list[FailureRow] = []
    for shard in all_shards(Path(folder), settings):
        if not shard.archive.exists():
            message = (
                f"{folder} lacks {shard.archive.name}: not all of the {settings['samples']} samples were written; run "
                "the command that makes them again, and it goes on."
            )
            raise FileNotFoundError(message)
        rows += [
            FailureRow(
                int(row["sample"]), row["case"], int(row["seed"]), float(row["dice"]), row["bin"],
                row["reached"] == "yes", row["edits"],
            )
            for row in read_table(shard.table, list(COLUMNS))
        ]  # fmt: skip
    return rows


def mask_digest(mask: Tensor) -> str:
    """What tells a true mask, as it lies on disk, from another.

    Example:
        >>> import torch
        >>> mask_digest(torch.zeros(1, 2, 3)) == mask_digest(torch.zeros(1, 3, 2))
        False
    """
    content = repr(tuple(mask.shape)).encode() + np.packbits(mask.numpy() > 0.5).tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def read_settings(folder: Path) -> dict[str, Any]:
    """How the failures in a folder were made.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, or of something else.
    """
    path = folder / "settings.json"
    if not path.is_file():
        message = f"there are no simulated failures in {folder} (no settings.json); write them with `write_failures`."
        raise FileNotFoundError(message)
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is damaged ({error}); delete it and run the command that made it again."
        raise ValueError(message) from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        message = f"{path} must say format {FORMAT!r}, but it does not; give a folder that `write_failures` wrote."
        raise ValueError(message)
    return settings
