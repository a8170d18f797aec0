"""``ultrarefiner train coarse``: phase 1, and predictions of cases that a network has not seen, for phase 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ultrarefiner.cli.flag_checks import refuse_negative
from ultrarefiner.cli.phase_network import NUMBERS, CoarseNetwork, NetworkName
from ultrarefiner.cli.phase_record import PhaseRecord
from ultrarefiner.cli.phase_report import coarse_tables
from ultrarefiner.cli.phase_setting import PhaseSetting, unseen
from ultrarefiner.cli.phase_start import same_start
from ultrarefiner.cli.setting import Augment, augmentation, is_first_process
from ultrarefiner.cli.split import Split, kept_folds
from ultrarefiner.data import CoarsePredictions, FittedCases
from ultrarefiner.training import CoarseRecipe, TrainingResult, load_coarse, predict_cases, predict_out_of_fold

RUN = "coarse"
PREDICTIONS = "predictions.pt"
"""In the run's folder: masks for phase 2, each by a network that had not seen the case."""


def coarse(
    network: NetworkName = "light",
    backbone: str | None = None,
    weights: Path | None = None,
    pretrained: bool = True,
    size: int | None = None,
    frame: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float = 1e-4,
    batch_size: int | None = None,
    epochs: int | None = None,
    augment: Augment | None = None,
    out_of_fold: int | None = None,
    measures: bool = False,
    **options: Any,
) -> str:
    """Train a coarse network, phase 1.

    What it was trained with stays beside its checkpoint (phase.json), and later phases with the same out build it from
    that. Its masks of the cases that choose are kept (predictions.pt), so that phase 2 is chosen by what it will see.

    Args:
        network: light is a U-Net on a backbone of timm's; transunet and microsegnet are trained as published (SGD,
            polynomial decay), on images that are padded to a square; unet is a small one of MONAI's.
        backbone: of light a name of timm's, by default tf_efficientnet_lite0; of transunet and microsegnet
            r50_vit_b16, vit_b16, r50_vit_l16 or tiny.
        weights: ImageNet-21k weights of transunet or microsegnet to begin with, R50+ViT-B_16.npz.
        pretrained: begin light with ImageNet's weights, which ultrarefiner[pretraining] brings.
        size: side of the network's input; by default 224.
        frame: side of the square that images are fitted to before the network stretches them; by default its size.
        learning_rate: by default 0.001; of transunet and microsegnet 0.01.
        weight_decay: of all parameters.
        batch_size: images in a batch, in each process; by default 8, of transunet 24.
        epochs: passes over the training cases; by default 40 for light, 150 for transunet, 10 for microsegnet, 50 for
            unet.
        augment: how images are moved and shaded; by default as published for transunet and microsegnet, else as the
            data set was published with, or for ultrasound.
        out_of_fold: number of folds of the training cases, at least 2. Each is predicted by a further network that is
            trained on the others; train refiner learns from those masks. A later call may add them.
        measures: S-measure, E-measure, weighted and mean F-measure and sensitivity too (PySODMetrics).
        options: the rest.

    Returns:
        The results on what is reported.
    """
    numbers = NUMBERS[network]
    setting = PhaseSetting(epochs=numbers.epochs if epochs is None else epochs, **options)
    refuse_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    split = setting.split()
    parts = CoarseNetwork.named(network, backbone=backbone, size=size, channels=split.training[0].image.shape[0])
    parts.refuse_weights(weights, pretrained=pretrained)
    _refuse_folds(out_of_fold, split)
    begins = {"weights": None if weights is None else weights.name, "pretrained": network == "light" and pretrained}
    changes: dict[str, Any] = {
        "learning_rate": numbers.learning_rate if learning_rate is None else learning_rate,
        "weight_decay": weight_decay,
    }
    if augment is not None or network in ("light", "unet"):
        changes["augmentation"] = augmentation(augment, setting.dataset)

    def recipe(number: int) -> CoarseRecipe:
        torch.manual_seed(setting.seed + number)
        return parts.recipe(parts.begin(weights, pretrained=pretrained), **changes)

    return _run(
        recipe,
        parts,
        setting,
        split,
        begins=begins,
        frame=parts.size if frame is None else frame,
        loop={**numbers.loop, "batch_size": numbers.batch_size if batch_size is None else batch_size},
        out_of_fold=out_of_fold,
        measures=measures,
    )


def _run(
    recipe: Callable[[int], CoarseRecipe],
    parts: CoarseNetwork,
    setting: PhaseSetting,
    split: Split,
    *,
    begins: dict[str, Any],
    frame: int,
    loop: dict[str, Any],
    out_of_fold: int | None,
    measures: bool,
) -> str:
    """Train, predict, keep, load the best, measure it on what is reported."""
    first = recipe(0)
    training, validation = setting.fitted(split, frame)
    same_start(setting.run_folder(RUN), **begins)
    result = setting.train(first, training, validation, name=RUN, **loop)
    inside = None
    if out_of_fold is not None:
        inside = predict_out_of_fold(
            lambda fold: recipe(1 + fold),
            training,
            kept_folds(split.training, _inner_folder(setting), folds=out_of_fold, seed=setting.seed),
            validation=validation,
            folder=_inner_folder(setting),
            **setting.loop_options(),
            **loop,
        )
    if not is_first_process():
        return ""
    load_coarse(first.network, result.best, unseen=unseen(split))
    first.network.to(setting.device())
    kept = _store(setting, first, validation, result, inside)
    PhaseRecord(RUN, frame, setting.cases(), asdict(parts)).write(setting.run_folder(RUN))
    table = coarse_tables(first.network, setting, split, frame=frame, batch_size=loop["batch_size"], measures=measures)
    return f"{setting.told(result)}\n{kept}\n\n{table}"


def _inner_folder(setting: PhaseSetting) -> Path:
    return setting.run_folder(RUN) / "out_of_fold"


def _refuse_folds(count: int | None, split: Split) -> None:
    """Raise before hours of training if the training cases have too few groups for as many folds."""
    groups = len(set(split.training.groups))
    if count is not None and not 2 <= count <= groups:
        message = (
            f"out_of_fold must be at least 2 folds of the training cases and at most {groups}, the number of their "
            f"groups, but it is {count}."
        )
        raise ValueError(message)


def stored_predictions(setting: PhaseSetting) -> CoarsePredictions | None:
    """What phase 1 left for phase 2; None if nothing."""
    path = setting.run_folder(RUN) / PREDICTIONS
    return CoarsePredictions.load(path) if path.exists() else None


def covers(predictions: CoarsePredictions | None, cases: Any) -> bool:
    """Whether all cases have a stored mask."""
    return predictions is not None and set(cases.names) <= set(predictions.names)


def _store(
    setting: PhaseSetting,
    recipe: CoarseRecipe,
    validation: FittedCases,
    result: TrainingResult,
    inside: CoarsePredictions | None,
) -> str:
    """Keep the masks of the cases that choose, and those of training cases that are there; what is kept, in words."""
    path = setting.run_folder(RUN) / PREDICTIONS
    earlier = _inner_folder(setting) / PREDICTIONS
    if inside is None and earlier.exists():
        inside = CoarsePredictions.load(earlier)
    names = (*validation.names, *(() if inside is None else inside.names))
    kept = CoarsePredictions.load(path) if path.exists() else None
    # The same network again may differ in the last bit on another device, and phase 2 could then not go on.
    fresh = kept is not None and path.stat().st_mtime >= result.best.stat().st_mtime and set(kept.names) == set(names)
    if not fresh:
        outside = predict_cases(recipe.network, validation, progress=setting.progress)
        (outside if inside is None else inside.joined(outside)).save(path)
    out_of_fold = 0 if inside is None else len(inside)
    return f"masks for train refiner, of {len(validation)} cases that choose and {out_of_fold} that train: {path}"
