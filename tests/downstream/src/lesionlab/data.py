"""A data set of its own: the members that the library asks for, and no base class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ultrarefiner.data import Case, Cases, FittedCases, Folds, group_folds


@dataclass(frozen=True)
class Discs:
    """Grey discs on noise."""

    numbers: tuple[int, ...]
    unseen: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"disc {number}" for number in self.numbers)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple("unknown" for _ in self.numbers)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"patient {number // 2}" for number in self.numbers)

    def subset(self, names: Iterable[str]) -> Discs:
        wanted = set(names)
        return Discs(
            tuple(number for number, name in zip(self.numbers, self.names, strict=True) if name in wanted), self.unseen
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Case:
        number = self.numbers[index]
        y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
        mask = (((x - 20 - 3 * number) ** 2 + (y - 24) ** 2) < 100).float()[None]
        noise = torch.rand(1, 48, 64, generator=torch.Generator().manual_seed(number))
        return Case(self.names[index], 0.5 * mask + 0.5 * noise, mask, self.labels[index], self.groups[index])


def split(cases: Cases, *, size: int) -> tuple[FittedCases, FittedCases]:
    """Training and validation, no patient in both."""
    folds: Folds = group_folds(cases, folds=3, seed=0)
    folds.check(cases)
    first, second = (cases.subset(names) for names in (folds.training(0), folds.validation(0)))
    return FittedCases(first, size), FittedCases(second, size)
