"""Which cases train, which choose the checkpoint, which are reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.data import Folds, Phantoms, group_folds

_PHANTOMS = (64, 16, 16)


@dataclass(frozen=True)
class Split:
    """Three sets without a case, or a group, in common.

    Attributes:
        training: trains.
        validation: chooses the checkpoint.
        test: is reported, and nothing else.
    """

    training: Any
    validation: Any
    test: Any


def split_cases(cases: Any, out: Path, *, fold: int, folds: int, seed: int) -> Split:
    """One fold is reported, the next one chooses, the rest trains; groups stay together.

    The folds are kept in ``folds.tsv``, so that the same command sees the same ones.

    Args:
        cases: the data set.
        out: the folder.
        fold: which fold is reported.
        folds: how many there are, at least 3.
        seed: of the folds.

    Raises:
        ValueError: fewer than 3 folds, no such fold, or a ``folds.tsv`` of other cases, another number or seed.

    Example:
        >>> import tempfile
        >>> split = split_cases(Phantoms(9), Path(tempfile.mkdtemp()), fold=0, folds=3, seed=0)
        >>> len(split.training), len(split.validation), len(split.test)
        (3, 3, 3)
    """
    if folds < 3 or not 0 <= fold < folds:
        message = f"folds must be at least 3 and fold one of them, from 0, but they are {folds} and {fold}."
        raise ValueError(message)
    path = out / "folds.tsv"
    if path.exists():
        found = Folds.load(path)
        found.check(cases)
        if (found.count, found.seed) != (folds, seed):
            message = (
                f"{path} holds {found.count} folds of seed {found.seed}, but {folds} of seed {seed} were asked for; "
                "give the same, or another out."
            )
            raise ValueError(message)
    else:
        found = group_folds(cases, folds=folds, seed=seed)
        out.mkdir(parents=True, exist_ok=True)
        found.save(path)
    test, validation = found.validation(fold), found.validation((fold + 1) % folds)
    training = [name for name in found.training(fold) if name not in set(validation)]
    return Split(cases.subset(training), cases.subset(validation), cases.subset(test))


def synthetic_split(seed: int) -> Split:
    """Three sets of phantoms.

    Example:
        >>> [len(part) for part in vars(synthetic_split(0)).values()]
        [64, 16, 16]
    """
    return Split(*(Phantoms(count, seed=3 * seed + index) for index, count in enumerate(_PHANTOMS)))
