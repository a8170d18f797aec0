"""Which cases a run is about: what tells two folds of equal size apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ultrarefiner.checkpoints.settings import describe


def describe_cases(dataset: Any) -> dict[str, Any]:
    """How many cases, their square's side, and a digest of both with the names in their order.

    No case is loaded for it. A data set says its names itself (``names``), or it is a subset or a fitted view of one
    that does, or a list of cases. Where there are none, the digest knows only the number and the side.

    Args:
        dataset: as `train` takes it.

    Returns:
        "cases", "size" and "fit", how they came into their square (None if unknown), "digest" (SHA-256), and "coarse",
        how its coarse masks are made, if the data set has ``settings()``.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> whole = Phantoms(4, size=(32, 32))
        >>> one, other = (FittedCases(whole.subset([f"phantom {i}" for i in fold]), 32) for fold in ((0, 1), (2, 3)))
        >>> first, second = describe_cases(one), describe_cases(other)
        >>> first["cases"] == second["cases"], first["size"], first["digest"] == second["digest"]
        (True, 32, False)
    """
    names, size, fit = names_of(dataset), _size(dataset), _fit(dataset)
    digest = hashlib.sha256(repr((len(dataset), size, names)).encode()).hexdigest()
    return {"cases": len(dataset), "size": size, "fit": fit, "digest": digest, **_made(dataset)}


def _made(dataset: Any) -> dict[str, Any]:
    """How the coarse masks are made, as the data set or one inside it says."""
    if getattr(dataset, "settings", None) is not None:
        return {"coarse": describe(dataset, "data")}
    inner = getattr(dataset, "dataset", None)
    return {} if inner is None else _made(inner)


def learnt_names(dataset: Any) -> tuple[str, ...]:
    """The names of all cases that leave a trace in what is trained on a data set, each once, sorted.

    They are those of the data set, and those that trained the networks behind its coarse masks (``learnt_from``).

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> learnt_names(FittedCases(Phantoms(2, size=(32, 32)), 32))
        ('phantom 0', 'phantom 1')
    """
    return tuple(sorted({*(names_of(dataset) or ()), *getattr(dataset, "learnt_from", ())}))


def refuse_leak(dataset: Any, validation: Any) -> None:
    """Raise if a case that validates leaves a trace in what is trained.

    Raises:
        ValueError: it does.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> refuse_leak(FittedCases(Phantoms(2), 32), FittedCases(Phantoms(2, seed=1), 32))
    """
    learnt = set(learnt_names(dataset)) if validation is not None else set()
    leaked = [name for name in names_of(validation) or () if name in learnt] if learnt else []
    if leaked:
        message = (
            f"validation must hold no case that is trained on, but {len(leaked)} of its {len(validation)} are, the "
            f"first is {leaked[0]!r}; split the cases with group_folds, and use the same folds in every phase."
        )
        raise ValueError(message)


def names_of(dataset: Any) -> list[str] | None:
    """The name of every case, where the data set or one inside it has names."""
    names = getattr(dataset, "names", None)
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == len(dataset):
        return [str(name) for name in names]
    inner = getattr(dataset, "dataset", None)
    if inner is not None:
        found, indices = names_of(inner), getattr(dataset, "indices", None)
        if found is None or indices is None:
            return found if indices is None and found is not None and len(found) == len(dataset) else None
        return [found[index] for index in indices]
    if isinstance(dataset, (list, tuple)) and all(hasattr(case, "name") for case in dataset):
        return [str(case.name) for case in dataset]
    return None


def _size(dataset: Any) -> int | None:
    if isinstance(dataset, (list, tuple)):
        image = getattr(next(iter(dataset), None), "image", None)
        return None if image is None else int(image.shape[-1])
    size = getattr(getattr(dataset, "fit", None), "size", None)
    if size is not None:
        return int(size)
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _size(inner)


def _fit(dataset: Any) -> str | None:
    fit = getattr(dataset, "fit", None)
    if fit is not None:
        return type(fit).__qualname__
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _fit(inner)
