"""How the papers trained their coarse networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ultrarefiner.data import Augmentation
from ultrarefiner.losses import DeepSupervision, DiceBCELoss
from ultrarefiner.training.annotation_guided import AnnotationGuidedRecipe
from ultrarefiner.training.coarse import CoarseRecipe
from ultrarefiner.training.schedule import Polynomial, Schedule

_SGD = partial(torch.optim.SGD, momentum=0.9)


@dataclass(frozen=True)
class PublishedRun:
    """The numbers of a published training run that are no recipe's.

    Attributes:
        epochs: passes over the data.
        batch_size: images in a batch.
        image_size: side of the square that images are stretched to (`StretchToSquare`).
        folds: of the cross-validation; 0 where the data have a test set of their own.
        schedule: of the learning rate.
    """

    epochs: int
    batch_size: int
    image_size: int
    folds: int
    schedule: Schedule = field(default_factory=Polynomial)

    def options(self) -> dict[str, Any]:
        """What `train` is to be told: ``train(recipe, cases, folder=..., **run.options())``.

        Example:
            >>> TRANSUNET.options()["epochs"], TRANSUNET.options()["clip_norm"]
            (150, None)
        """
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "schedule": self.schedule,
            "clip_norm": None,
        }


TRANSUNET = PublishedRun(epochs=150, batch_size=24, image_size=224, folds=5)
"""TransUNet as coarse network: 5 folds, 150 epochs of batches of 24."""

MICROSEGNET = PublishedRun(epochs=10, batch_size=8, image_size=224, folds=0)
"""MicroSegNet: 55 patients train, 20 test; 10 epochs of batches of 8 slices."""


def transunet_recipe(network: nn.Module, **changes: Any) -> CoarseRecipe:
    """Phase 1 of TransUNet with the numbers with which UltraRefiner trains it.

    SGD with learning rate 0.01, momentum 0.9 and weight decay 1e-4; half of cross entropy and half of Dice; half of the
    images are flipped, and all are rotated by up to 20 degrees to either side. (The published code rotates half of
    them, without interpolation.) The numbers of the run are in `TRANSUNET`.

    Args:
        network: from `ultrarefiner.build_transunet`, best with ImageNet-21k weights; one with two classes in
            `ForegroundLogits`.
        changes: other values of `CoarseRecipe`'s fields.

    Returns:
        A recipe for `train`.

    Example:
        >>> recipe = transunet_recipe(nn.Conv2d(1, 1, 3, padding=1), learning_rate=0.02)
        >>> type(recipe.optimizer()).__name__, recipe.learning_rate
        ('SGD', 0.02)

    Chen et al., "TransUNet", arXiv 2102.04306; UltraRefiner (github.com/Autzoko/UltraRefiner).
    """
    published: dict[str, Any] = {
        "learning_rate": 0.01,
        "weight_decay": 1e-4,
        "algorithm": _SGD,
        "loss": DiceBCELoss(dice_weight=0.5, bce_weight=0.5),
        "augmentation": Augmentation(
            scale=(1.0, 1.0), translation=0.0, gamma=(1.0, 1.0), gain=(1.0, 1.0), speckle=0.0, blur=0.0
        ),
    }
    return CoarseRecipe(network, **{**published, **changes})


def microsegnet_recipe(network: nn.Module, **changes: Any) -> AnnotationGuidedRecipe:
    """Phase 1 of MicroSegNet.

    SGD as for TransUNet; cross entropy at 1/8, 1/4 and 1/2 and annotation-guided cross entropy with w = 12 on the mask
    (`DeepSupervision.paper`; the published code's own loss is `DeepSupervision.published_code`); no augmentation. The
    numbers of the run are in `MICROSEGNET`.

    Args:
        network: from `ultrarefiner.build_microsegnet`.
        changes: other values of `AnnotationGuidedRecipe`'s fields.

    Returns:
        A recipe for `train`.

    Example:
        >>> microsegnet_recipe(nn.Conv2d(1, 1, 3, padding=1), annotator="prediction").augmentation is None
        True

    Jiang et al., "MicroSegNet", arXiv 2305.19956 (github.com/mirthAI/MicroSegNet).
    """
    published: dict[str, Any] = {
        "learning_rate": 0.01,
        "weight_decay": 1e-4,
        "algorithm": _SGD,
        "loss": DeepSupervision.paper(),
        "augmentation": None,
    }
    return AnnotationGuidedRecipe(network, **{**published, **changes})
