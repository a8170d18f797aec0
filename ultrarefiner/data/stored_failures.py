"""Simulated failures read from files."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.data.batches import FittedCases
from ultrarefiner.data.failure_files import Shard, mask_digest, read_manifest, read_settings
from ultrarefiner.data.fit import FittedCase
from ultrarefiner.data.fitted_view import FittedView
from ultrarefiner.simulation.resolution import probability_at_size

_OPEN = 16  # archives at once


class StoredFailures(FittedView):
    """Fitted cases with the simulated failures that `write_failures` left in a folder, for phase 2.

    Args:
        dataset: the fitted cases that the failures were made from; their square may be another.
        folder: where the files are; all shards must be there. Every true mask is read once, to compare it with that
            which was damaged.

    Attributes:
        names: the names of the cases behind the samples, in order.

    Raises:
        FileNotFoundError: the folder holds no failures, or not all of them.
        ValueError: the failures are of cases that the data set does not have, of other true masks, or of another kind
            of square; while reading, a damaged archive.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> from ultrarefiner.data import SimulatedFailures, write_failures
        >>> from ultrarefiner.simulation import FailureSimulator
        >>> cases, folder = FittedCases(Phantoms(2, size=(48, 64)), 64), tempfile.mkdtemp()
        >>> made = SimulatedFailures(cases, FailureSimulator(), samples=5)
        >>> written = write_failures(made, folder, progress=False)
        >>> stored = StoredFailures(cases, folder)
        >>> bool((stored[3].coarse_probability - made[3].coarse_probability).abs().max() < 0.003)
        True
    """

    def __init__(self, dataset: FittedCases, folder: Location) -> None:
        super().__init__(dataset)
        self.folder = Path(folder)
        self._settings = read_settings(self.folder)
        fit = type(dataset.fit).__qualname__
        if fit != self._settings["fit"]:
            message = (
                f"dataset must be fitted by {self._settings['fit']}, as the failures in {folder} are, but it is by "
                f"{fit}; fit it so, or write them again."
            )
            raise ValueError(message)
        self.manifest = read_manifest(self.folder)
        self.names = tuple(row.case for row in self.manifest)
        place = {name: index for index, name in enumerate(dataset.names)}
        unknown = sorted(set(self.names) - place.keys())
        if unknown:
            message = (
                f"{folder} holds failures of {len(unknown)} cases that the data set lacks, the first is "
                f"{unknown[0]!r}; give the cases that they were made from."
            )
            raise ValueError(message)
        self._cases = [place[name] for name in self.names]
        for name, digest in self._settings["cases"].items():
            if name in place and mask_digest(dataset.dataset[place[name]].mask) != digest:
                message = (
                    f"{folder} holds failures of another true mask of {name!r} than the data set's; give the masks "
                    "that they were made from, or write the failures again."
                )
                raise ValueError(message)
        self._archives: dict[tuple[int, int], zipfile.ZipFile] = {}

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers: how the failures were made."""
        return {"masks": "stored", "made": self._settings}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> FittedCase:
        self.check_index(index)
        case = self.dataset[self._cases[index]]
        mask = probability_at_size(self._stored(index)[None, None], case.mask.shape[-2:])[0]
        return replace(case, coarse_probability=mask.to(case.mask.dtype))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archives": {}}

    def _stored(self, index: int) -> Tensor:
        shard = Shard(self.folder, index // self._settings["shard_size"])
        key = (os.getpid(), shard.number)  # a forked process must not share a file's position with its parent
        try:
            if key not in self._archives:
                while len(self._archives) >= _OPEN:  # the oldest; systems allow a process a few hundred files
                    self._archives.pop(next(iter(self._archives))).close()
                self._archives[key] = zipfile.ZipFile(shard.archive)
            self._archives[key] = self._archives.pop(key)  # used last, closed last
            with self._archives[key].open(shard.picture(index)) as stream, Image.open(stream) as picture:
                return torch.from_numpy(np.array(picture)).float() / 255
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            message = (
                f"{shard.archive} is damaged or gone ({error}); delete it and run the command that wrote it again, "
                "which makes this one anew."
            )
            raise ValueError(message) from error
