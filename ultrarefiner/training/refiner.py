"""Phase 2: the refiner alone, on failures of a coarse network, simulated or predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.losses import IoURegressionLoss, QualityAwareLoss
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import SAMRefiner
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
    full_precision,
    refuse_side_logits,
)
from ultrarefiner.types import Refinement

IMAGE_ENCODER = "sam.image_encoder"


@dataclass(frozen=True, eq=False)
class RefinerRecipe(Recipe):
    """Train a `SAMRefiner` to repair coarse masks.

    Where the data set brings coarse masks (`SimulatedFailures`, `PredictedCases`, `Mixed` of
    `ultrarefiner.data`), those are repaired. Otherwise true masks are damaged anew in every step, on the device; for
    validation each case is damaged by its own seed, in the same way in every epoch, so that scores can be compared.
    The prompts are made by the refiner itself, that is, exactly as in phase 3. Where the data set brings SAM's
    embeddings (`ultrarefiner.data.CachedEmbeddings`), the image encoder does not run.

    Args:
        refiner: the refiner.
        failures: called with true masks and a generator; returns damaged soft masks: `FailureSimulator`, or an
            `AtResolution` of it. Unused where the data set brings coarse masks.
        learning_rate: of all parameters that train.
        weight_decay: AdamW's.
        train_image_encoder: whether SAM's image encoder trains, too; it holds 96 % of ViT-B's parameters.
        frozen: from which epoch further named parts of the refiner train, None for never:
            ``{"sam.image_encoder.backbone.blocks.0": None}``, say.
        gate: trained along: the mask that is compared with the truth is blended as `UltraRefiner` blends it. None for
            SAM's own mask. Failures of networks on images that they never saw teach it whom to trust; in phase 3 the
            coarse masks are of images that the network was trained on.
        augmentation: called with images, masks and a generator before the masks are damaged; None for none.
        loss: called with refined logits, true masks and damaged masks.
        iou_weight: weight of the loss on SAM's own estimate of its masks' quality, by which it selects.
        iou_loss: that loss.
        validation_seed: seed of the failures in validation.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> recipe = RefinerRecipe(SAMRefiner(build_sam("tiny", image_size=64)))
        >>> recipe.unfreezing
        Unfreezing(starts={'sam.image_encoder': None})

    Phase 2 of UltraRefiner (github.com/Autzoko/UltraRefiner).
    """

    YOUNGER: ClassVar[tuple[str, ...]] = ("frozen", "gate")

    refiner: SAMRefiner
    _: KW_ONLY
    failures: Callable[[Tensor, torch.Generator], Tensor] = field(default_factory=FailureSimulator)
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    train_image_encoder: bool = False
    frozen: Mapping[str, int | None] = field(default_factory=dict)
    gate: nn.Module | None = None
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=QualityAwareLoss)
    iou_weight: float = 0.1
    iou_loss: nn.Module = field(default_factory=IoURegressionLoss)
    validation_seed: int = 0
    _module: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        refuse_side_logits(self.loss)
        object.__setattr__(self, "_module", self.refiner if self.gate is None else nn.ModuleDict(dict(self.parts())))

    @property
    def module(self) -> nn.Module:
        """The refiner, or the refiner and the gate."""
        return self._module

    @property
    def unfreezing(self) -> Unfreezing:
        """The image encoder never trains, unless it is to; and what ``frozen`` says."""
        never = {} if self.train_image_encoder else {IMAGE_ENCODER: None}
        starts = {**never, **self.frozen}
        if self.gate is not None:  # beside which the refiner is a part of the model
            starts = {f"refiner.{name}" if name else "refiner": start for name, start in starts.items()}
        return Unfreezing(starts)

    def parts(self) -> Mapping[str, nn.Module]:
        """The refiner, as "refiner", and the gate, as "gate"."""
        return {"refiner": self.refiner, **({} if self.gate is None else {"gate": self.gate})}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One for each part."""
        return [
            ParameterGroup(name, part, self.learning_rate, self.weight_decay) for name, part in self.parts().items()
        ]

    def check_data(self, dataset: Any) -> None:
        """Stored embeddings must be of this SAM."""
        check_cache(dataset, self.refiner.sam, self.refiner.input_policy)

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Damage the masks, if need be, refine them, compare."""
        trains = {"train_image_encoder must be False": self.train_image_encoder}
        hindrances = {**trains, **thawing(self.frozen, IMAGE_ENCODER)}
        refuse_embeddings(batch, self.augmentation, self.refiner, hindrances)
        seen = augmented(self.augmentation, batch, generator)
        images, masks = seen.images, seen.masks
        damaged = seen.coarse_probability
        if damaged is None:
            with full_precision(masks):
                damaged = self.failures(masks, generator)
        refinement = self._refined(seen, damaged)
        logits, probability, _ = gated(self.gate, images, damaged, refinement)
        refined = self.loss(logits, masks, damaged)
        iou = iou_term(self.iou_loss, self.refiner, refinement, masks, images)
        terms = {
            "refined": refined.detach(),
            "iou": iou.detach(),
            "coarse_dice": dice_of_images(damaged, masks).mean(),
        }
        dice = dice_of_images(probability, masks).mean()
        return StepResult(refined + self.iou_weight * iou, terms, dice)

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:
        """Refine the data set's coarse masks, or true ones damaged by each case's own seed, whatever its batch."""
        damaged = batch.coarse_probability
        if damaged is None:
            damaged = self._damaged_alone(batch.masks, cases)
        refinement = self._refined(batch, damaged)
        return Prediction(gated(self.gate, batch.images, damaged, refinement)[1], damaged)

    def _refined(self, batch: Batch, damaged: Tensor) -> Refinement:
        """From the images, or from their stored embeddings."""
        stored, size = batch.embeddings, batch.images.shape[-2:]
        images = batch.images if stored is None else None
        found: Refinement = self.refiner(
            images, damaged, embeddings=stored, image_size=size, content_sizes=batch.content_sizes
        )
        return found

    def _damaged_alone(self, masks: Tensor, cases: Sequence[int]) -> Tensor:
        generators = [
            torch.Generator().manual_seed(stable_seed("failure", self.validation_seed, case)) for case in cases
        ]
        with full_precision(masks):
            return torch.cat([self.failures(mask[None], drawn) for mask, drawn in zip(masks, generators, strict=True)])


def refuse_embeddings(
    batch: Batch, augmentation: nn.Module | None, refiner: SAMRefiner, hindrances: Mapping[str, bool]
) -> None:
    """Raise if a batch brings stored embeddings, and something needs others.

    Args:
        batch: with embeddings or without.
        augmentation: of the recipe.
        refiner: that would be told them.
        hindrances: further ones: what must be otherwise, and whether it is in the way.

    Raises:
        ValueError: something is in the way.
    """
    if batch.embeddings is None:
        return
    all_hindrances = {
        "augmentation must be None": augmentation is not None,
        **hindrances,
        "the refiner must have no cropper": refiner.cropper is not None,
    }
    wrong = [what for what, there in all_hindrances.items() if there]
    if wrong:
        message = (
            f"{' and '.join(wrong)} with stored embeddings, which are of whole images as they are; or train "
            "without CachedEmbeddings."
        )
        raise ValueError(message)


def thawing(frozen: Mapping[str, int | None], part: str) -> dict[str, bool]:
    """Hindrances for `refuse_embeddings`: names of a part, or inside it, that are to train some day.

    Args:
        frozen: from which epoch named parts train, None for never.
        part: the dotted name of the image encoder.

    Example:
        >>> thawing({"sam.mask_decoder": 1, "sam.image_encoder.neck": 2}, "sam.image_encoder")
        {"frozen['sam.image_encoder.neck'] must be None": True}
    """
    within = {name: start for name, start in frozen.items() if f"{name}.".startswith(f"{part}.")}
    return {f"frozen[{name!r}] must be None": start is not None for name, start in within.items()}


def iou_term(loss: nn.Module, refiner: SAMRefiner, refinement: Refinement, masks: Tensor, images: Tensor) -> Tensor:
    """The loss of SAM's IoU head, in the frame where its candidates are.

    Args:
        loss: called with predicted IoU, candidates, true masks in their frame, and which masks were not
            empty.
        refiner: the refiner, for its frame.
        refinement: what it returned.
        masks: true masks.
        images: what it saw.

    Returns:
        A scalar.
    """
    candidates = refinement.candidates
    with torch.no_grad():  # the regions depend on the coarse mask, but the truth in them is a label
        target = refiner.in_sam_frame(masks, refinement.boxes, images.shape[-2:])
    value: Tensor = loss(candidates.iou, candidates.logits, target, refinement.prompts.valid)
    return value
