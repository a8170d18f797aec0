"""Batches in an order that depends on the seed and the epoch alone, shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ultrarefiner.data import Batch, FittedCase, FittedVolume, SeededSampler, VolumeBatch, collate
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.training.identity import inner_sets
from ultrarefiner.training.plan import Plan


@runtime_checkable
class FittedSet(Protocol):
    """Cases by index, fitted to one square or one size: `FittedCases`, `FittedVolumes`, a subset of them, a list."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> FittedCase | FittedVolume:
        """One of them; the same each time."""
        ...


def collate_of(dataset: Any) -> Callable[[Any], Batch | VolumeBatch]:
    """How a data set's cases are stacked: `collate`, unless it or one inside it has a method of that name.

    Example:
        >>> collate_of([]) is collate
        True
    """
    own = getattr(dataset, "collate", None)
    if callable(own):
        return cast("Callable[[Any], VolumeBatch]", own)
    inner = inner_sets(dataset)
    return collate_of(inner[0]) if inner else collate


class SharedBatches(Sampler[list[int]]):
    """The batches of one process in one epoch, from any batch on.

    All processes see equally many cases, so that none waits for another: the first cases of the order are
    used once more where the number does not divide. On one process every case is seen exactly once, in one epoch or
    over several if an epoch is a part of the data (``Plan.epoch_size``).

    Args:
        plan: the run's numbers.
        rank: which process this is.

    Example:
        >>> batches = SharedBatches(Plan(epochs=1, batch_size=2, cases=5), rank=0)
        >>> batches.begin(epoch=0)
        >>> whole = list(batches)
        >>> batches.begin(epoch=0, skip=1)
        >>> [len(batch) for batch in whole], list(batches) == whole[1:]
        ([2, 2, 1], True)
    """

    def __init__(self, plan: Plan, *, rank: int) -> None:
        self._plan = plan
        self._rank = rank
        self._sampler = SeededSampler(plan.cases, seed=plan.seed)
        self._epoch = 0
        self._skip = 0

    def begin(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch, and how many of its batches were already seen."""
        self._epoch = epoch
        self._skip = skip

    def __len__(self) -> int:
        return self._plan.batches_per_epoch - self._skip

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        order += list(islice(cycle(order), -len(order) % self._plan.processes))
        mine = order[self._rank :: self._plan.processes]
        size = self._plan.batch_size
        for start in range(self._skip * size, len(mine), size):
            yield mine[start : start + size]

    def _order(self) -> list[int]:
        """The cases of this epoch: where it begins and ends within passes over all cases, each in its own order."""
        length, cases = self._plan.cases_per_epoch, self._plan.cases
        start, order = self._epoch * length, []
        while length > 0:
            turn, begun = divmod(start, cases)
            self._sampler.begin(turn)
            order += list(self._sampler)[begun : begun + length]
            start += cases - begun
            length -= cases - begun
        return order


class TrainingData:
    """The training set as batches.

    Args:
        dataset: what `collate` takes, by index.
        plan: the run's numbers.
        rank: which process this is.
        workers: processes that read ahead; 0 reads in this one.
        pin_memory: whether batches are put where a GPU can fetch them.
    """

    def __init__(self, dataset: FittedSet, plan: Plan, *, rank: int, workers: int, pin_memory: bool) -> None:
        self._batches = SharedBatches(plan, rank=rank)
        self._seed = plan.seed
        # Without a generator of its own the loader would draw its workers' seed from the global one, at a
        # moment that differs between a run and a resumed run.
        self._generator = torch.Generator()
        self._loader = DataLoader(
            cast("Dataset[Any]", dataset),
            batch_sampler=self._batches,
            collate_fn=collate_of(dataset),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=self._generator,
        )

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[Batch | VolumeBatch]:
        """The batches of an epoch, without the first ``skip``."""
        self._batches.begin(epoch, skip=skip)
        self._generator.manual_seed(stable_seed("loader", self._seed, epoch))
        return iter(self._loader)


class ValidationData:
    """The validation set as batches with their cases' indices. Each process has its share; none comes twice.

    Args:
        dataset: what `collate` takes, by index.
        plan: the run's numbers.
        rank: which process this is.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: there is no case.
    """

    def __init__(self, dataset: FittedSet, plan: Plan, *, rank: int, workers: int) -> None:
        if len(dataset) < 1:
            message = "validation must hold at least one case, but it is empty; check its split, or pass None."
            raise ValueError(message)
        self.cases = len(dataset)
        mine = range(rank, self.cases, plan.processes)
        size = plan.batch_size
        self._batches = [list(mine[start : start + size]) for start in range(0, len(mine), size)]
        self._loader = DataLoader(
            cast("Dataset[Any]", dataset),
            batch_sampler=self._batches,
            collate_fn=collate_of(dataset),
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[tuple[list[int], Batch | VolumeBatch]]:
        yield from zip(self._batches, self._loader, strict=True)
