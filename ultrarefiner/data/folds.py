"""Folds that split no patient and no near-duplicates, drawn once, kept in a file, used by every phase."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.cases import Cases, natural_key

_TITLE = "# ultrarefiner folds"
_COLUMNS = "name\tfold"


@dataclass(frozen=True)
class Folds:
    """Which fold each case stands in.

    Attributes:
        assignment: from the name of a case to its fold, 0 to count - 1.
        count: how many folds there are.
        seed: what they were drawn with; None for folds that came with the data.

    Raises:
        ValueError: a case's fold is not among 0 to count - 1.

    Example:
        >>> folds = Folds(assignment={"a": 0, "b": 1, "c": 1}, count=2, seed=0)
        >>> folds.training(0), folds.validation(0)
        (('b', 'c'), ('a',))
    """

    assignment: Mapping[str, int]
    count: int
    seed: int | None

    def __post_init__(self) -> None:
        for name, fold in self.assignment.items():
            if not 0 <= fold < self.count:
                message = (
                    f"{name!r} is in fold {fold}, but {self.count} folds are numbered 0 to {self.count - 1}; "
                    "correct the number"
                )
                raise ValueError(message)
        ordered = dict(sorted(self.assignment.items(), key=lambda item: natural_key(item[0])))
        object.__setattr__(self, "assignment", ordered)

    def training(self, fold: int) -> tuple[str, ...]:
        """The names of all cases outside a fold, in natural order."""
        self._check_fold(fold)
        return tuple(name for name, own in self.assignment.items() if own != fold)

    def validation(self, fold: int) -> tuple[str, ...]:
        """The names of the cases in a fold, in natural order."""
        self._check_fold(fold)
        return tuple(name for name, own in self.assignment.items() if own == fold)

    def within(self, names: Iterable[str]) -> Folds:
        """The folds of some of the cases, numbered anew from 0 in the same order; those with no such case are gone.

        What is left when a fold for testing and one for choosing are taken away is folded as before, so out-of-fold
        predictions of training cases need no folds of their own.

        Raises:
            ValueError: a name is in no fold.

        Example:
            >>> Folds({"a": 0, "b": 1, "c": 2}, count=3, seed=0).within(["b", "c"]).assignment
            {'b': 0, 'c': 1}
        """
        wanted = set(names)
        missing = sorted(wanted - set(self.assignment), key=natural_key)
        if missing:
            message = (
                f"{len(missing)} of {len(wanted)} names are in no fold, the first is {missing[0]!r}; take names of the "
                "data set that was folded"
            )
            raise ValueError(message)
        left = sorted({fold for name, fold in self.assignment.items() if name in wanted})
        number = {fold: index for index, fold in enumerate(left)}
        kept = {name: number[fold] for name, fold in self.assignment.items() if name in wanted}
        return Folds(assignment=kept, count=len(left), seed=self.seed)

    def check(self, dataset: Cases) -> None:
        """Make sure that these folds are of this data set: the same names, and no group is split.

        Raises:
            ValueError: a case has no fold, a name is not in the data set, or a group is split.
        """
        names = set(dataset.names)
        for alone, problem in (
            (names - set(self.assignment), "cases of the data set have no fold"),
            (set(self.assignment) - names, "names in the folds are not in the data set"),
        ):
            if alone:
                message = (
                    f"{len(alone)} {problem}, the first is {min(alone, key=natural_key)!r}: the folds have "
                    f"{len(self.assignment)} names and the data set {len(names)}; load the folds of this data "
                    "set, or draw them again"
                )
                raise ValueError(message)
        fold_of: dict[str, int] = {}
        for name, group in zip(dataset.names, dataset.groups, strict=True):
            if fold_of.setdefault(group, self.assignment[name]) != self.assignment[name]:
                message = (
                    f"the folds split the group {group!r}: {name!r} is in fold {self.assignment[name]}, "
                    f"another case of it in fold {fold_of[group]}; draw the folds again with these groups"
                )
                raise ValueError(message)

    def save(self, path: str | Path) -> None:
        """Write the folds to a text file: a header with seed and counts, then one "name, tab, fold" a line.

        It appears whole or not at all (`ultrarefiner.checkpoints.files.replaced_file`); its folder is made if there
        is none.

        Raises:
            ValueError: a name holds a tab or a line break.
        """
        odd = [name for name in self.assignment if any(mark in name for mark in "\t\n\r")]
        if odd:
            message = f"the name {odd[0]!r} has a tab or a line break and fits no table; rename the case"
            raise ValueError(message)
        head = [_TITLE, f"# folds\t{self.count}", f"# seed\t{self.seed}", f"# cases\t{len(self.assignment)}"]
        rows = [f"{name}\t{fold}" for name, fold in self.assignment.items()]
        with replaced_file(path) as stream:
            stream.write("\n".join([*head, _COLUMNS, *rows, ""]).encode())

    @classmethod
    def load(cls, path: str | Path) -> Folds:
        """Read what `save` wrote; then `check` it against the data set.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no table of folds, or lines are missing.
        """
        path = Path(path)
        if not path.is_file():
            message = f"there are no folds at {path}; draw them with group_folds and save them there"
            raise FileNotFoundError(message)
        try:
            title, *head, columns = (lines := path.read_text(encoding="utf-8").split("\n"))[:5]
            count, seed, cases = (line.split("\t")[1] for line in head)
            pairs = [(name, int(fold)) for name, fold in (line.split("\t") for line in lines[5:-1])]
            if title != _TITLE or columns != _COLUMNS or lines[-1]:
                raise ValueError(f"it starts with {title!r} and ends with {lines[-1]!r}")
            if not len(dict(pairs)) == len(pairs) == int(cases):
                raise ValueError(f"its header counts {cases} cases, {len(dict(pairs))} were read")
            return cls(dict(pairs), count=int(count), seed=None if seed == "None" else int(seed))
        except (ValueError, IndexError) as error:
            message = f"{path} is not a whole file of folds ({error}); restore it, or draw the folds again"
            raise ValueError(message) from error

    def _check_fold(self, fold: int) -> None:
        if not 0 <= fold < self.count:
            message = f"fold must be one of 0 to {self.count - 1}, got {fold}; there are {self.count} folds"
            raise ValueError(message)


def group_folds(dataset: Cases, *, folds: int = 5, seed: int = 0) -> Folds:
    """Draw folds of about the same size and the same share of every label, each group whole in one fold.

    Every fold gets at least one group. The same cases give the same folds, in whatever order they come. Labels with
    fewer cases than folds are counted as one.

    Args:
        dataset: whatever has names, labels and groups.
        folds: how many, at least 2.
        seed: another seed gives other folds.

    Returns:
        The folds. Save them: another version of scikit-learn may draw others from the same seed.

    Raises:
        ValueError: fewer than 2 folds, fewer groups than folds, or a data set that is kept for testing alone.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> folds = group_folds(Phantoms(10), folds=5, seed=0)
        >>> [len(folds.validation(fold)) for fold in range(5)]
        [2, 2, 2, 2, 2]

    References:
        ``sklearn.model_selection.StratifiedGroupKFold``, which draws them.
    """
    if dataset.unseen:
        message = (
            "this data set is kept as an unseen test set and is not split; to train on it all the same, make "
            "a CaseDataset of its files"
        )
        raise ValueError(message)
    most = len(set(dataset.groups))
    if not 2 <= folds <= most:
        message = f"folds must be 2 to {most}, the number of groups, got {folds}; ask for another number"
        raise ValueError(message)
    cases = sorted(zip(dataset.names, dataset.labels, dataset.groups, strict=True), key=_by_name)
    names, labels, groups = zip(*cases, strict=True)
    fold_of = _stratified(_with_rare_as_one(labels, folds), groups, folds=folds, seed=seed)
    _fill_empty(fold_of, Counter(groups), folds)
    assignment = {name: fold_of[group] for name, group in zip(names, groups, strict=True)}
    return Folds(assignment=assignment, count=folds, seed=seed)


def _stratified(labels: Sequence[str], groups: Sequence[str], *, folds: int, seed: int) -> dict[str, int]:
    """The fold of every group."""
    # Imported here: it takes seconds, and nothing but drawing folds needs it.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a label that cannot stand in every fold
        parts = list(splitter.split(np.zeros(len(labels)), labels, groups))
    return {groups[index]: fold for fold, (_, members) in enumerate(parts) for index in members}


def _fill_empty(fold_of: dict[str, int], sizes: Mapping[str, int], folds: int) -> None:
    """Give each fold that scikit-learn left empty, as it may with few groups, a small group of a fold with several."""
    for empty in sorted(set(range(folds)) - set(fold_of.values())):
        groups_in = Counter(fold_of.values())
        spare = [group for group, fold in fold_of.items() if groups_in[fold] > 1]
        fold_of[min(spare, key=lambda group: (sizes[group], natural_key(group)))] = empty


def _with_rare_as_one(labels: Sequence[str], folds: int) -> list[str]:
    sizes = Counter(labels)
    return [label if sizes[label] >= folds else "\0rare" for label in labels]


def _by_name(case: tuple[str, str, str]) -> tuple[tuple[int, str], ...]:
    return natural_key(case[0])
