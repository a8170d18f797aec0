"""SAM without a prompt: what makes the prompts trains, SAM stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import DiceBCELoss, project_weak_box_loss
from ultrarefiner.ops.boxes import fill_box, jitter_box, tight_box
from ultrarefiner.systems import AutoMedSAM, AutoSAM
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


class FrozenSAMRecipe(Recipe):
    """What both have in common: a model around a frozen ``sam``, which may be told stored embeddings."""

    model: Any

    @property
    def module(self) -> nn.Module:
        """The system."""
        system: nn.Module = self.model
        return system

    @property
    def unfreezing(self) -> Unfreezing:
        """SAM never trains."""
        return Unfreezing({"sam": None})

    def parts(self) -> Mapping[str, nn.Module]:
        """The system, as "coarse": `load_coarse` takes it over into `UltraRefiner`."""
        return {"coarse": self.module}

    def check_data(self, dataset: Any) -> None:
        """Stored embeddings must be of this SAM."""
        check_cache(dataset, self.model.sam, self.model.input_policy)


@dataclass(frozen=True, eq=False)
class AutoSAMRecipe(FrozenSAMRecipe):
    """Train AutoSAM's generator on true masks; SAM is frozen.

    Args:
        model: the system.
        learning_rate: of the generator.
        weight_decay: AdamW's.
        augmentation: called with images, masks and a generator; None for none, and with stored embeddings.
        loss: called with logits and true masks, on the images' pixels.

    Raises:
        ValueError: a loss that wants side logits; while training, stored embeddings and an augmentation.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> from ultrarefiner.systems import build_autosam_generator
        >>> generator = build_autosam_generator("tiny", channels=64, size=4)
        >>> recipe = AutoSAMRecipe(AutoSAM(build_sam("tiny", image_size=64), generator, input_size=64))
        >>> recipe.unfreezing
        Unfreezing(starts={'sam': None})

    Shaharabany et al., "AutoSAM", arXiv 2306.06370 (github.com/talshaharabany/AutoSAM): 3e-4, 1e-4, cross entropy and
    Dice, there with Adam.
    """

    model: AutoSAM
    _: KW_ONLY
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=DiceBCELoss)

    def __post_init__(self) -> None:
        refuse_side_logits(self.loss)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One; SAM's parameters are in it and skipped."""
        return [ParameterGroup("generator", self.model.generator, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Segment, and compare with the truth."""
        refuse_moved_embeddings(batch, self.augmentation)
        seen = augmented(self.augmentation, batch, generator)
        logits = self.model(seen.images, embeddings=seen.embeddings).logits
        loss: Tensor = self.loss(logits, seen.masks)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), seen.masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The system's masks."""
        return Prediction(self.model(batch.images, embeddings=batch.embeddings).logits.sigmoid())


@dataclass(frozen=True, eq=False)
class AutoMedSAMRecipe(FrozenSAMRecipe):
    """Train AutoMedSAM's prompt module from tight boxes alone; SAM is frozen.

    A case's box is the tight box of its mask, so a data set that knows boxes only has rectangles for masks
    (`ultrarefiner.data.BoxTable`). The checkpoint is chosen by the overlap of boxes: that of the prediction's own tight
    box with the given one, as a Dice of rectangles; no mask is looked at. With ``choose_by="mask"`` it is chosen by the
    Dice of masks, where there are true ones.

    Args:
        model: the system.
        learning_rate: of the prompt module.
        weight_decay: AdamW's.
        augmentation: called with images, masks and a generator; None for none, and with stored embeddings. One that
            rotates makes the boxes of rectangles loose.
        loss: called with logits and boxes (x0, y0, x1, y1) in pixel edges; by default `project_weak_box_loss` for
            images of SAM's size.
        jitter: each side of a box moves by up to this share of the box's side, drawn anew in each step; 0 for none.
        choose_by: "box" or "mask".

    Raises:
        ValueError: a number or a word out of range; while training, stored embeddings and an augmentation.

    Example:
        >>> from ultrarefiner.prompts import PromptModule
        >>> from ultrarefiner.sam import build_sam
        >>> model = AutoMedSAM(build_sam("tiny", image_size=64), PromptModule(channels=64, hidden=8, image_size=64))
        >>> AutoMedSAMRecipe(model, jitter=0.05).unfreezing
        Unfreezing(starts={'sam': None})

    Automatic MedSAM (github.com/vinhnamhai321/AutoMedSAM); Gaillochet et al., arXiv 2409.20293: 1e-3, 1e-4, there with
    Adam and stored embeddings.
    """

    model: AutoMedSAM
    _: KW_ONLY
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    augmentation: nn.Module | None = None
    loss: nn.Module | None = None
    jitter: float = 0.0
    choose_by: str = "box"

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 0.5 or self.choose_by not in ("box", "mask"):
            message = (
                "jitter must be a share of a box's side in [0, 0.5) and choose_by 'box' or 'mask', but they are "
                f"{self.jitter} and {self.choose_by!r}."
            )
            raise ValueError(message)
        if self.loss is None:
            object.__setattr__(self, "loss", project_weak_box_loss(size=self.model.input_policy.size))

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One."""
        return [ParameterGroup("prompt_module", self.model.prompt_module, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Segment, and ask what the boxes ask."""
        refuse_moved_embeddings(batch, self.augmentation)
        seen = augmented(self.augmentation, batch, generator)
        boxes = jitter_box(tight_box(seen.masks > 0.5), self.jitter, generator)
        logits = automatic_logits(self.model, seen)
        loss: Tensor = cast("nn.Module", self.loss)(logits, boxes)
        return StepResult(loss, {"boxes": loss.detach()}, self.dice(logits.detach().sigmoid(), seen.masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The masks."""
        return Prediction(automatic_logits(self.model, batch).sigmoid())

    @property
    def score_name(self) -> str:
        """What chooses: "Dice of boxes", or "Dice" of masks."""
        return "Dice" if self.choose_by == "mask" else "Dice of boxes"

    def dice(self, probability: Tensor, masks: Tensor) -> Tensor:
        """Of the masks, or of their tight boxes.

        Args:
            probability: (b, 1, h, w).
            masks: (b, 1, h, w), the true ones.

        Returns:
            (b,), in [0, 1].
        """
        if self.choose_by == "mask":
            return dice_of_images(probability, masks)
        return dice_of_images(fill_box(probability), fill_box(masks))


@dataclass(frozen=True, eq=False)
class MaskedAutoMedSAMRecipe(FrozenSAMRecipe):
    """Train AutoMedSAM's prompt module on true masks: what the same model reaches where masks are there.

    Args:
        model: the system.
        learning_rate: of the prompt module.
        weight_decay: AdamW's.
        augmentation: called with images, masks and a generator; None for none, and with stored embeddings.
        loss: called with logits and true masks, on the images' pixels.

    Raises:
        ValueError: a loss that wants side logits; while training, stored embeddings and an augmentation.

    Example:
        >>> from ultrarefiner.prompts import PromptModule
        >>> from ultrarefiner.sam import build_sam
        >>> model = AutoMedSAM(build_sam("tiny", image_size=64), PromptModule(channels=64, hidden=8, image_size=64))
        >>> MaskedAutoMedSAMRecipe(model).unfreezing
        Unfreezing(starts={'sam': None})
    """

    model: AutoMedSAM
    _: KW_ONLY
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    augmentation: nn.Module | None = None
    loss: nn.Module = field(default_factory=DiceBCELoss)

    def __post_init__(self) -> None:
        refuse_side_logits(self.loss)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One."""
        return [ParameterGroup("prompt_module", self.model.prompt_module, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Segment, and compare with the truth."""
        refuse_moved_embeddings(batch, self.augmentation)
        seen = augmented(self.augmentation, batch, generator)
        logits = automatic_logits(self.model, seen)
        loss: Tensor = self.loss(logits, seen.masks)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), seen.masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The masks."""
        return Prediction(automatic_logits(self.model, batch).sigmoid())


def automatic_logits(model: AutoMedSAM, batch: Batch) -> Tensor:
    """The model's masks of a batch, from stored embeddings where it has them."""
    stored, size = batch.embeddings, batch.images.shape[-2:]
    images = batch.images if stored is None else None
    found: Tensor = model(images, embeddings=stored, image_size=None if stored is None else size).logits
    return found


def refuse_moved_embeddings(batch: Batch, augmentation: nn.Module | None) -> None:
    """Raise if images would be moved whose embeddings were stored.

    Raises:
        ValueError: they would.
    """
    if batch.embeddings is not None and augmentation is not None:
        message = (
            "augmentation must be None with stored embeddings, which are of the images as they are; or train without "
            "CachedEmbeddings."
        )
        raise ValueError(message)
