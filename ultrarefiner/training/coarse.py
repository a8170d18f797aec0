"""Phase 1: the coarse network alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.systems.at_size import resize_logits
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.recipe import (
    ParameterGroup,
    Prediction,
    Recipe,
    StepResult,
    dice_of_images,
    full_precision,
    inside_content,
)


@dataclass(frozen=True, eq=False)
class CoarseRecipe(Recipe):
    """Train a segmentation network on true masks.

    Args:
        network: any module from images (b, c, h, w) to logits (b, k, h', w'); logits of another resolution are
            resized to the images'.
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
        images, masks, _ = augmented(self.augmentation, batch, generator)
        logits = self._logits(images)
        loss = self.loss(logits, masks)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The network's masks."""
        return Prediction(self._logits(batch.images).sigmoid())

    def _logits(self, images: Tensor) -> Tensor:
        """On the images' pixels, as `UltraRefiner` brings them there."""
        logits: Tensor = self.network(images)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return resize_logits(logits, images.shape[-2:])


def augmented(
    augmentation: nn.Module | None, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images and masks of a batch as the network is to see them, and where their content now ends.

    A flip or a rotation moves the content, too: it goes along as one more mask.

    Args:
        augmentation: called with images, masks and a generator; None for none.
        batch: fitted cases.
        generator: of the step.

    Returns:
        Images, masks, and (height, width) from the frame's top left corner within which all of each image's content
        lies, as integers (b, 2).
    """
    if augmentation is None:
        return batch.images, batch.masks, batch.content_sizes
    height, width = batch.images.shape[-2:]
    content = inside_content(batch.content_sizes, (height, width)).to(batch.masks.dtype)
    with full_precision(batch.images):
        images, moved = augmentation(batch.images, torch.cat([batch.masks, content], 1), generator)
    there = moved[:, -1] > 0
    rows = torch.arange(1, height + 1, device=there.device) * there.any(2)
    columns = torch.arange(1, width + 1, device=there.device) * there.any(1)
    # Nothing is left where all content was moved out of the frame; a region needs a pixel.
    return images, moved[:, :-1], torch.stack([rows.amax(1), columns.amax(1)], 1).clamp(min=1)
