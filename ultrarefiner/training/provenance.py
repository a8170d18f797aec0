"""Which cases left a trace in a network: nobody validates on what any phase was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ultrarefiner.training.identity import inner_sets, names_of

_ATTRIBUTE = "_learnt_from"


def learnt_names(dataset: Any, parts: Iterable[nn.Module] = ()) -> tuple[str, ...] | None:
    """The names of all cases that leave a trace in what is trained, each once, sorted.

    They are those of the data set, those that trained the networks behind its coarse masks (``learnt_from``), and those
    that earlier phases trained the parts or modules in them on, as `load_coarse` and `load_refiner` noted. None if
    nobody knows: a data set has no names, or a checkpoint that was loaded did not say.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> learnt_names(FittedCases(Phantoms(2, size=(32, 32)), 32))
        ('phantom 0', 'phantom 1')
    """
    own = names_of(dataset)
    if own is None:
        return None
    names = {*own, *_behind(dataset)}
    for part in parts:
        earlier = remembered(part)
        if earlier is None and any(hasattr(module, _ATTRIBUTE) for module in part.modules()):
            return None
        names.update(earlier or ())
    return tuple(sorted(names))


def remember(part: nn.Module, names: Iterable[str] | None) -> None:
    """Note on a module and all in it what it was trained on; no weight, nothing that a state dict has."""
    noted = None if names is None else tuple(names)
    for module in part.modules():  # it may be taken apart, or put into another
        setattr(module, _ATTRIBUTE, noted)


def learnt_so_far(own: tuple[str, ...] | None, module: nn.Module) -> list[str] | None:
    """What a run learns from, and what its module learnt from before; None if one of them is unknown."""
    noted = any(hasattr(part, _ATTRIBUTE) for part in module.modules())
    earlier = remembered(module) if noted else ()
    return None if own is None or earlier is None else sorted({*own, *earlier})


def remembered(part: nn.Module) -> tuple[str, ...] | None:
    """What `remember` noted on a module or on any in it; None if nothing, or that nobody knows."""
    noted = [getattr(module, _ATTRIBUTE) for module in part.modules() if hasattr(module, _ATTRIBUTE)]
    if not noted or None in noted:
        return None
    return tuple(sorted({name for names in set(noted) for name in names}))


def refuse_leak(dataset: Any, validation: Any, parts: Iterable[nn.Module] = ()) -> None:
    """Raise if a case that validates leaves a trace in what is trained, or shares its group with one that does.

    Cases of one name are taken for one case, unless both data sets read files and these lie elsewhere: a folder "train"
    and a folder "val" may both have a "000.png". Groups are compared where both read from the same folder.

    Raises:
        ValueError: it does.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> refuse_leak(FittedCases(Phantoms(2), 32), FittedCases(Phantoms(2, seed=1), 32))
    """
    if validation is None:
        return
    learnt, own, held = set(learnt_names(dataset, parts) or ()), _files(dataset), _files(validation)
    direct = set(names_of(dataset) or ())
    leaked = [name for name in names_of(validation) or () if name in learnt and not _elsewhere(name, own, held, direct)]
    if leaked:
        message = (
            f"validation must hold no case that is trained on, but {len(leaked)} of its {len(validation)} are, the "
            f"first is {leaked[0]!r}; split the cases with group_folds, and use the same folds in every phase. (Other "
            "cases of the same name get another one with `join`.)"
        )
        raise ValueError(message)
    groups = {(folder, group) for _, folder, group in own.values()}
    split = [name for name, (_, folder, group) in held.items() if (folder, group) in groups]
    if split:
        message = (
            f"validation must hold no case of a group that is trained on, but {len(split)} are, the first is "
            f"{split[0]!r} of the group {held[split[0]][2]!r}; split the cases with group_folds, which keeps patients "
            "and near-duplicates together."
        )
        raise ValueError(message)


def refuse_seen(learnt: Sequence[str] | None, unseen: Sequence[Any], path: object) -> None:
    """Raise if a checkpoint was trained on a case that is to be unseen, or if nobody can know.

    Args:
        learnt: what the checkpoint says that it was trained on; None if it says nothing.
        unseen: data sets.
        path: of the checkpoint.

    Raises:
        ValueError: it was, or it does not say, or a data set has no names.
    """
    known = set(learnt or ())
    for dataset in unseen:
        names = names_of(dataset)
        if learnt is None or names is None:
            message = (
                f"unseen cannot be checked: {path} does not say what it was trained on"
                if learnt is None
                else f"unseen must hold data sets that have names, but one is a {type(dataset).__name__} without"
            )
            raise ValueError(f"{message}; leave unseen out to go without the check.")
        seen = [name for name in names if name in known]
        if seen:
            message = (
                f"{path} was trained on {len(seen)} cases that are to be unseen, the first is {seen[0]!r}; use the "
                "same folds in every phase. (Other cases of the same name get another one with `join`.)"
            )
            raise ValueError(message)


def _behind(dataset: Any) -> set[str]:
    """What trained the networks behind the coarse masks of a data set or of those inside it."""
    own = getattr(dataset, "learnt_from", None)
    if own is not None:
        return set(own)
    return {name for inner in inner_sets(dataset) for name in _behind(inner)}


def _files(dataset: Any) -> dict[str, tuple[Path, Path, str]]:
    """By name the image's file, its folder and the group, for a data set that reads files."""
    files = getattr(dataset, "files", None)
    if isinstance(files, tuple) and all(hasattr(case, "image") and hasattr(case, "group") for case in files):
        wanted = set(names_of(dataset) or ())
        return {
            case.name: (path := Path(case.image).resolve(), path.parent, case.group)
            for case in files
            if case.name in wanted
        }
    found = {name: place for inner in inner_sets(dataset) for name, place in _files(inner).items()}
    own = names_of(dataset)
    return found if own is None else {name: found[name] for name in set(own) & found.keys()}


def _elsewhere(name: str, own: dict[str, Any], held: dict[str, Any], direct: set[str]) -> bool:
    """Whether two cases of one name are known to be of two files."""
    return name in direct and name in own and name in held and own[name][0] != held[name][0]
