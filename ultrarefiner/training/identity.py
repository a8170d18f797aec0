"""Which cases a run is about: what tells two folds of equal size apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ultrarefiner.checkpoints.settings import describe


def describe_cases(dataset: Any) -> dict[str, Any]:
    """How many cases, their square's side (or volume's sides), and a digest of both with the names in their order.

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
    made = [_made(inner) for inner in inner_sets(dataset)]
    return {} if not any(made) else made[0] if len(made) == 1 else {"coarse": made}


def inner_sets(dataset: Any) -> list[Any]:
    """The data sets that a wrapper such as PyTorch's Subset or ConcatDataset is made of."""
    several = getattr(dataset, "datasets", None)
    if isinstance(several, (list, tuple)):
        return list(several)
    inner = getattr(dataset, "dataset", None)
    return [] if inner is None else [inner]


def names_of(dataset: Any) -> list[str] | None:
    """The name of every case, where the data set or one inside it has names."""
    names = getattr(dataset, "names", None)
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == len(dataset):
        return [str(name) for name in names]
    if isinstance(getattr(dataset, "datasets", None), (list, tuple)):
        each = [names_of(part) for part in inner_sets(dataset)]
        return None if None in each else [name for part in each for name in part or ()]
    inner = getattr(dataset, "dataset", None)
    if inner is not None:
        found, indices = names_of(inner), getattr(dataset, "indices", None)
        if found is None or indices is None:
            return found if indices is None and found is not None and len(found) == len(dataset) else None
        return [found[index] for index in indices]
    if isinstance(dataset, (list, tuple)) and all(hasattr(case, "name") for case in dataset):
        return [str(case.name) for case in dataset]
    return None


def _size(dataset: Any) -> int | list[int] | None:
    if isinstance(dataset, (list, tuple)):
        image = getattr(next(iter(dataset), None), "image", None)
        return None if image is None else int(image.shape[-1])
    size = getattr(getattr(dataset, "fit", None), "size", None)
    if size is not None:
        return [int(side) for side in size] if isinstance(size, Sequence) else int(size)
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _size(inner)


def _fit(dataset: Any) -> str | None:
    fit = getattr(dataset, "fit", None)
    if fit is not None:
        return type(fit).__qualname__
    inner = getattr(dataset, "dataset", None)
    return None if inner is None else _fit(inner)
