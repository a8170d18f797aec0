"""Phase 1: the coarse network alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.recipe import (
    ParameterGroup,
    Prediction,
    Recipe,
    StepResult,
    dice_of_images,
    full_precision,
)


@dataclass(frozen=True, eq=False)
class CoarseRecipe(Recipe):
    """Train a segmentation network on true masks.

    Args:
        network: any module from images (b, c, h, w) to logits (b, k, h, w).
        learning_rate: of all its parameters.
        weight_decay: AdamW's.
        augmentation: called with images, masks and a generator; None trains on the images as they are.
        loss: called with logits and true masks.
        frozen: from which epoch named parts of the network train; None for never (`Unfreezing`).

    Example:
        >>> recipe = CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1), learning_rate=3e-4)
        >>> recipe.settings()["learning_rate"]
        0.0003

    Phase 1 of UltraRefiner (github.com/Autzoko/UltraRefiner).
    """

    network: nn.Module
    _: KW_ONLY
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=DiceBCELoss)
    frozen: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    @property
    def unfreezing(self) -> Unfreezing:
        """As given by ``frozen``."""
        return Unfreezing(self.frozen)

    def parts(self) -> Mapping[str, nn.Module]:
        """The network, as "coarse"."""
        return {"coarse": self.network}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One."""
        return [ParameterGroup("coarse", self.network, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Loss of the network's masks."""
        images, masks = augmented(self.augmentation, batch, generator)
        logits = self.network(images)
        loss = self.loss(logits, masks)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The network's masks."""
        return Prediction(self.network(batch.images).sigmoid())


def augmented(augmentation: nn.Module | None, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and masks of a batch as the network is to see them."""
    if augmentation is None:
        return batch.images, batch.masks
    with full_precision(batch.images):
        images, masks = augmentation(batch.images, batch.masks, generator)
    return images, masks
