"""Out-of-fold predictions: each case by a network that never saw it, so that phase 2 learns from real failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.data import CoarsePredictions, FittedCases, Folds, collate
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.ops.logits import resize_logits
from ultrarefiner.systems.at_size import AtSize, main_logits
from ultrarefiner.training.coarse import CoarseRecipe
from ultrarefiner.training.handover import load_coarse
from ultrarefiner.training.identity import names_of
from ultrarefiner.training.loading import FittedSet
from ultrarefiner.training.loop import train
from ultrarefiner.training.provenance import remembered


def predict_out_of_fold(
    recipe: Callable[[int], CoarseRecipe],
    dataset: FittedCases,
    folds: Folds,
    *,
    folder: Location,
    validation: FittedSet | None = None,
    **options: Any,
) -> CoarsePredictions:
    """Train one coarse network for each fold on all other folds, and predict the fold with it.

    Each fold's training can be stopped and resumed as any other (`train`); a fold that is done is read, not trained
    again. ``fold0/`` has the first network's checkpoints, ``fold0.pt`` its predictions, ``predictions.pt`` all of them.
    Started once a device (Fabric's "ddp"), every process predicts all cases and writes the same files.

    To keep a fold for testing and one for choosing checkpoints out of it, give the others alone: a subset of the
    data set and ``folds.within(its names)``.

    Args:
        recipe: called with the fold's number; returns phase 1 with a new network.
        dataset: the fitted cases.
        folds: of these cases.
        folder: gets networks and predictions.
        validation: cases by which each network's best checkpoint is chosen, in no fold; None takes the last.
        options: as `train` takes them: epochs, batch_size and others.

    Returns:
        A prediction of every case of the data set.

    Raises:
        ValueError: the folds are not those of the data set or split a group, a validation case is among them, or the
            folder holds predictions of other cases, or networks that were trained with other settings.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.data import Phantoms, group_folds
        >>> cases = Phantoms(4, size=(32, 32))
        >>> made = predict_out_of_fold(
        ...     lambda fold: CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1)), FittedCases(cases, 32),
        ...     group_folds(cases, folds=2), folder=tempfile.mkdtemp(), epochs=1, batch_size=2,
        ...     tensorboard=False, progress=False,
        ... )
        >>> sorted(made.names), [len(names) for names in made.trained_on]
        (['phantom 0', 'phantom 1', 'phantom 2', 'phantom 3'], [2, 2])
    """
    folder = Path(folder)
    folds.check(dataset.dataset)
    empty = [fold for fold in range(folds.count) if not folds.validation(fold)]
    if folds.count < 2 or empty:
        message = (
            f"folds must be at least 2, each with a case, but there are {folds.count}"
            f"{f' and fold {empty[0]} is empty' if empty else ''}; draw them with group_folds."
        )
        raise ValueError(message)
    _refuse_shared(names_of(validation) if validation is not None else None, dataset.names)
    parts: list[CoarsePredictions] = []
    for fold in range(folds.count):
        path, held_out, rest = folder / f"fold{fold}.pt", folds.validation(fold), folds.training(fold)
        run = folder / f"fold{fold}"
        if path.exists():
            parts.append(_read(path, held_out, rest))
            if not (run / "last.pt").exists():
                continue
        made = recipe(fold)
        # Of a fold that is done this only makes sure that it was trained with the same settings.
        result = train(made, dataset.subset(rest), validation=validation, folder=run, **options)
        if path.exists():
            continue
        load_coarse(made.network, result.best)
        progress = bool(options.get("progress", True))
        parts.append(predict_cases(made.network, dataset.subset(held_out), trained_on=rest, progress=progress))
        parts[-1].save(path)
    together = parts[0].joined(*parts[1:]).of(dataset.names)
    together.save(folder / "predictions.pt")
    return together


@torch.no_grad()
def predict_cases(
    network: nn.Module,
    dataset: FittedCases,
    *,
    trained_on: Iterable[str] | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> CoarsePredictions:
    """What a coarse network makes of cases that it has not seen, at its own resolution.

    Args:
        network: in place; it is left in evaluation mode. Of an `AtSize` the small logits are kept, before they are
            resized.
        dataset: the cases, in the square in which phases 2 and 3 see them.
        trained_on: the names of the cases that the network was trained on; None for what it remembers (`train` and
            `load_coarse` note it).
        batch_size: images at once.
        progress: show a progress bar on a terminal.

    Returns:
        The predictions.

    Raises:
        ValueError: a case is among those that the network was trained on, nobody knows which those are, or a batch
            size below 1.

    Example:
        >>> from ultrarefiner.data import Phantoms
        >>> cases = FittedCases(Phantoms(2, size=(32, 32)), 32)
        >>> predict_cases(AtSize(nn.Conv2d(1, 1, 3, padding=1), 16), cases, trained_on=()).logits.shape
        torch.Size([2, 1, 16, 16])
    """
    learnt = remembered(network) if trained_on is None else tuple(trained_on)
    if learnt is None or batch_size < 1:
        message = (
            f"batch_size must be at least 1, but it is {batch_size}."
            if batch_size < 1
            else "trained_on must name the cases that the network was trained on, for it does not remember any; load "
            "it with load_coarse, or give the names, () for none."
        )
        raise ValueError(message)
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    logits: list[Tensor] = []
    with progress_bar(len(dataset), "predict", "image", shown=progress) as bar:
        for start in range(0, len(dataset), batch_size):
            batch = collate([dataset[index] for index in range(start, min(start + batch_size, len(dataset)))])
            images = batch.images.to(device)
            answer = main_logits(network.at_size(images) if isinstance(network, AtSize) else network(images))
            side = max(answer.shape[-2:])
            logits.append(resize_logits(answer.float(), (side, side)).cpu())
            bar.update(len(images))
    networks = (0,) * len(dataset)
    return CoarsePredictions(dataset.names, torch.cat(logits), networks, (learnt,), type(dataset.fit).__qualname__)


def _refuse_shared(validation: list[str] | None, names: tuple[str, ...]) -> None:
    shared = sorted(set(validation or ()) & set(names))
    if shared:
        message = (
            f"validation must hold no case of the folds, for it chooses their networks, but {len(shared)} are in both, "
            f"the first is {shared[0]!r}; leave them out of one."
        )
        raise ValueError(message)


def _read(path: Path, held_out: tuple[str, ...], rest: tuple[str, ...]) -> CoarsePredictions:
    made = CoarsePredictions.load(path)
    if set(made.names) != set(held_out) or [set(names) for names in made.trained_on] != [set(rest)]:
        message = (
            f"{path} holds predictions of {len(made)} cases by a network that was trained on "
            f"{len(made.trained_on[0])}, but of other ones than this fold's {len(held_out)} and {len(rest)}; go on "
            "with the folds it was begun with, or give another folder."
        )
        raise ValueError(message)
    return made
