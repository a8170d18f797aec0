"""Which cases train, which choose the checkpoint, which are reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data import Folds, Phantoms, group_folds

_PHANTOMS = (64, 16, 16)


@dataclass(frozen=True)
class Split:
    """Sets without a case in common, and without a group in common where the groups are known.

    Attributes:
        training: trains.
        validation: chooses the checkpoint.
        tests: are reported, and nothing else, by name.
        note: what a reader of the report must know about them.
    """

    training: Any
    validation: Any
    tests: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def split_cases(
    cases: Any, out: Path, *, fold: int, folds: int, seed: int, tests: Mapping[str, Any] | None = None
) -> Split:
    """One fold is reported, the next one chooses, the rest trains; groups stay together.

    Where there are published test parts, those are reported and the fold chooses. The folds are kept in ``folds.tsv``,
    so that the same command sees the same ones.

    Args:
        cases: the data set.
        out: the folder.
        fold: which fold.
        folds: how many there are, at least 3.
        seed: of the folds.
        tests: published test parts, by name.

    Raises:
        ValueError: fewer than 3 folds, no such fold, or a ``folds.tsv`` of other cases, another number or seed.

    Example:
        >>> import tempfile
        >>> split = split_cases(Phantoms(9), Path(tempfile.mkdtemp()), fold=0, folds=3, seed=0)
        >>> len(split.training), len(split.validation), len(split.tests["fold 0"])
        (3, 3, 3)
    """
    if folds < 3 or not 0 <= fold < folds:
        message = f"folds must be at least 3 and fold one of them, from 0, but they are {folds} and {fold}."
        raise ValueError(message)
    found = kept_folds(cases, out, folds=folds, seed=seed)
    if tests:
        validation, reported = found.validation(fold), dict(tests)
        away = set(validation)
    else:
        test, validation = found.validation(fold), found.validation((fold + 1) % folds)
        away, reported = {*test, *validation}, {f"fold {fold}": cases.subset(test)}
    training = [name for name in cases.names if name not in away]
    kept = cases.subset(training)
    return Split(kept, cases.subset(validation), reported, _note(cases, kept, reported, published=bool(tests)))


def synthetic_split(seed: int) -> Split:
    """Three sets of phantoms.

    Example:
        >>> split = synthetic_split(0)
        >>> len(split.training), len(split.validation), len(split.tests["phantoms"])
        (64, 16, 16)
    """
    training, validation, test = (Phantoms(count, seed=3 * seed + index) for index, count in enumerate(_PHANTOMS))
    return Split(training, validation, {"phantoms": test})


def _note(cases: Any, training: Any, tests: Mapping[str, Any], *, published: bool) -> str:
    """What is known, or unknown, about patients on both sides."""
    sides = "the published parts" if published else "the folds"
    if len(set(cases.groups)) == len(cases):
        return (
            f"Every case is a group of its own: images of one patient or near-duplicates may stand on both sides of "
            f"{sides}, and figures then flatter. Give groups where they are known."
        )
    shared = {which: len(set(training.groups) & set(test.groups)) for which, test in tests.items()}
    told = [f"{count} groups (patients) of {which} are trained on, too" for which, count in shared.items() if count]
    return f"{'; '.join(told)}: nothing is measured on new patients." if told else ""


def kept_folds(cases: Any, out: Path, *, folds: int, seed: int) -> Folds:
    """The folds of a folder, drawn where there are none yet, and kept in its ``folds.tsv``.

    Args:
        cases: all that are folded.
        out: the folder.
        folds: how many there are.
        seed: of the folds.

    Raises:
        ValueError: a ``folds.tsv`` of other cases, other groups, another number or another seed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> kept_folds(Phantoms(4), folder, folds=2, seed=0) == kept_folds(Phantoms(4), folder, folds=2, seed=0)
        True
    """
    path, digest = out / "folds.tsv", hashlib.sha256("\n".join(cases.groups).encode()).hexdigest()
    kept = out / "folds.groups"
    if path.exists():
        found = Folds.load(path)
        found.check(cases)
        if kept.exists() and kept.read_text() != digest:
            message = f"{path} was drawn with other groups; give the same groups as before, or another out."
            raise ValueError(message)
        if (found.count, found.seed) != (folds, seed):
            message = (
                f"{path} holds {found.count} folds of seed {found.seed}, but {folds} of seed {seed} were asked for; "
                "give the same, or another out."
            )
            raise ValueError(message)
        return found
    found = group_folds(cases, folds=folds, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    with replaced_file(kept, shared=True) as file:
        file.write(digest.encode())
    found.save(path)
    return found
