"""Phase 3: the coarse network and the refiner together, the gradient flowing through the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import DiceBCELoss, IoURegressionLoss, QualityAwareLoss, WeightAnchor
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.gating import gated
from ultrarefiner.training.coarse import augmented
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.recipe import (
    ParameterGroup,
    Prediction,
    Recipe,
    StepResult,
    check_cache,
    dice_of_images,
    refuse_side_logits,
)
from ultrarefiner.training.refiner import IMAGE_ENCODER, iou_term, refuse_embeddings, thawing


@dataclass(frozen=True, eq=False)
class JointRecipe(Recipe):
    """Train an `UltraRefiner` end to end.

    Build it after the weights of phases 1 and 2 are loaded: the anchor remembers the coarse network as it is
    now. Where the data set brings SAM's embeddings (`ultrarefiner.data.CachedEmbeddings`), the image encoder does not
    run; the coarse network does.

    Args:
        model: coarse network, refiner and perhaps a gate. Its ``gradient_scale`` is the factor on what the
            refined mask's loss sends to the coarse network.
        coarse_learning_rate: of the coarse network.
        refiner_learning_rate: of the refiner and the gate.
        weight_decay: AdamW's; the coarse network has none while it is anchored, or the two would fight.
        coarse_weight: weight of the coarse mask's loss.
        refined_weight: weight of the refined mask's loss.
        iou_weight: weight of the loss on SAM's own estimate of its masks' quality.
        stored_weight: weight of a second refined loss, on the coarse masks that the data set brings (`PredictedCases`,
            `SimulatedFailures`, `Mixed`). The coarse network has seen the training images, and on those its masks are
            better than they will ever be again; failures on images that nobody had seen keep refiner and gate in
            practice. 0 leaves such masks alone.
        anchor_weight: weight of the mean squared distance of the coarse network's weights from where they are
            now.
        freeze_coarse_epochs: first epoch in which the coarse network trains.
        freeze_refiner_epochs: first epoch in which the refiner trains.
        freeze_image_encoder: whether SAM's image encoder never trains.
        frozen: from which epoch further named parts train, for instance ``{"coarse.encoder": None}``.
        augmentation: called with images, masks and a generator; None for none.
        coarse_loss: called with coarse logits and true masks.
        loss: called with refined logits, true masks and coarse masks.
        iou_loss: called as `IoURegressionLoss`.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> from ultrarefiner.systems import SAMRefiner
        >>> coarse, refiner = nn.Conv2d(1, 1, 3, padding=1), SAMRefiner(build_sam("tiny", image_size=64))
        >>> recipe = JointRecipe(UltraRefiner(coarse=coarse, refiner=refiner), freeze_coarse_epochs=2)
        >>> recipe.unfreezing.starts
        {'coarse': 2, 'refiner': 0, 'refiner.sam.image_encoder': None}

    Phase 3 of UltraRefiner (github.com/Autzoko/UltraRefiner).
    """

    YOUNGER: ClassVar[tuple[str, ...]] = ("stored_weight",)

    model: UltraRefiner
    _: KW_ONLY
    coarse_learning_rate: float = 1e-5
    refiner_learning_rate: float = 1e-5
    weight_decay: float = 1e-4
    coarse_weight: float = 0.3
    refined_weight: float = 0.7
    iou_weight: float = 0.1
    stored_weight: float = 0.0
    anchor_weight: float = 0.0
    freeze_coarse_epochs: int = 0
    freeze_refiner_epochs: int = 0
    freeze_image_encoder: bool = True
    frozen: Mapping[str, int | None] = field(default_factory=dict)
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    coarse_loss: nn.Module = field(default_factory=DiceBCELoss)
    loss: nn.Module = field(default_factory=QualityAwareLoss)
    iou_loss: nn.Module = field(default_factory=IoURegressionLoss)
    _anchor: WeightAnchor | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        refuse_side_logits(self.loss)
        refuse_side_logits(self.coarse_loss)
        if self.anchor_weight:
            object.__setattr__(self, "_anchor", WeightAnchor(self.model.coarse))

    @property
    def module(self) -> UltraRefiner:
        """The whole model."""
        return self.model

    @property
    def unfreezing(self) -> Unfreezing:
        """Coarse network and refiner from their epochs, the image encoder if it is to, the gate always."""
        starts = {"coarse": self.freeze_coarse_epochs, "refiner": self.freeze_refiner_epochs}
        never = {f"refiner.{IMAGE_ENCODER}": None} if self.freeze_image_encoder else {}
        return Unfreezing({**starts, **never, **self.frozen})

    def parts(self) -> Mapping[str, nn.Module]:
        """All that it is made of."""
        gate = {} if self.model.gate is None else {"gate": self.model.gate}
        return {"coarse": self.model.coarse, "refiner": self.model.refiner, **gate}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One for each part; those that are frozen now are in them, too."""
        coarse_decay = 0.0 if self.anchor_weight else self.weight_decay
        return [
            ParameterGroup(
                name,
                part,
                self.coarse_learning_rate if name == "coarse" else self.refiner_learning_rate,
                coarse_decay if name == "coarse" else self.weight_decay,
            )
            for name, part in self.parts().items()
        ]

    def check_data(self, dataset: Any) -> None:
        """Stored embeddings must be of this refiner's SAM."""
        check_cache(dataset, self.model.refiner.sam, self.model.refiner.input_policy)

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Segment, refine, and compare both masks with the truth."""
        trains = {"freeze_image_encoder must be True": not self.freeze_image_encoder}
        hindrances = {**trains, **thawing(self.frozen, f"refiner.{IMAGE_ENCODER}")}
        refuse_embeddings(batch, self.augmentation, self.model.refiner, hindrances)
        seen = augmented(self.augmentation, batch, generator)
        images, masks = seen.images, seen.masks
        out = self.model(images, seen.content_sizes, embeddings=seen.embeddings)
        coarse = self.coarse_loss(out.coarse_logits, masks)
        refined = self.loss(out.refined_logits, masks, out.coarse_probability)
        iou = iou_term(self.iou_loss, self.model.refiner, out.refinement, masks, images)
        loss = self.coarse_weight * coarse + self.refined_weight * refined + self.iou_weight * iou
        terms = {"coarse": coarse.detach(), "refined": refined.detach(), "iou": iou.detach()}
        if self.stored_weight:
            stored = self._stored_loss(seen)
            loss = loss + self.stored_weight * stored
            terms["stored"] = stored.detach()
        if self._anchor is not None:
            drift = self._anchor()
            loss = loss + self.anchor_weight * drift
            terms["anchor"] = drift.detach()
        terms["coarse_dice"] = dice_of_images(out.coarse_probability, masks).mean()
        return StepResult(loss, terms, dice_of_images(out.refined_probability, masks).mean())

    def _stored_loss(self, batch: Batch) -> Tensor:
        """Of refining the coarse masks that came with the images."""
        coarse = batch.coarse_probability
        if coarse is None:
            message = (
                "stored_weight must be 0 for a data set without coarse masks, but it is "
                f"{self.stored_weight}; wrap the data set in PredictedCases, SimulatedFailures or Mixed."
            )
            raise ValueError(message)
        refinement = self.model.refiner(
            batch.images if batch.embeddings is None else None,
            coarse,
            embeddings=batch.embeddings,
            image_size=batch.images.shape[-2:],
            content_sizes=batch.content_sizes,
        )
        logits, _, _ = gated(self.model.gate, batch.images, coarse, refinement)
        value: Tensor = self.loss(logits, batch.masks, coarse)
        return value

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The refined masks, and the coarse ones they came from."""
        out = self.model(batch.images, batch.content_sizes, embeddings=batch.embeddings)
        return Prediction(out.refined_probability, out.coarse_probability)
