"""Phase 1: the coarse network alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.ops.logits import resize_logits
from ultrarefiner.systems.at_size import main_logits
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
from ultrarefiner.types import MultiScaleLogits


@dataclass(frozen=True, eq=False)
class CoarseRecipe(Recipe):
    """Train a segmentation network on true masks.

    Args:
        network: any module from images (b, c, h, w) to logits (b, k, h', w'), or to `MultiScaleLogits` of them; logits
            of another resolution are resized to the images'.
        learning_rate: of all its parameters.
        weight_decay: of all its parameters.
        algorithm: makes the optimiser from parameter groups: a class of PyTorch, or a `functools.partial` of one.
        augmentation: called with images, masks and a generator; None trains on the images as they are.
        loss: called with logits and true masks. One whose ``takes_side_logits`` is true, `DeepSupervision`, gets all
            that the network returns; with any other, side heads do not learn.
        frozen: from which epoch named parts of the network train; None for never (`Unfreezing`).

    Raises:
        ValueError: a loss that compares two annotations (`AnnotationGuidedRecipe` has them); while training, a network
            with another number of logits than there are masks.

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
    algorithm: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=DiceBCELoss)
    frozen: Mapping[str, int | None] = field(default_factory=dict)
    guided: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if bool(getattr(self.loss, "compares_annotations", False)) != self.guided:
            expected = "compares two annotations" if self.guided else "compares no annotations"
            message = (
                f"loss must be one that {expected}, but it is {type(self.loss).__name__}; give it to "
                f"{'CoarseRecipe' if self.guided else 'AnnotationGuidedRecipe'}."
            )
            raise ValueError(message)

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
        """Loss of the network's masks.

        Raises:
            ValueError: the network returns another number of logits than there are masks.
        """
        seen = augmented(self.augmentation, batch, generator)
        answer = self._answer(seen.images)
        logits = main_logits(answer)
        if logits.shape[1] != seen.masks.shape[1]:
            message = (
                f"network must return one logit for each of the {seen.masks.shape[1]} masks, but it returned "
                f"{logits.shape[1]}; wrap a network with a softmax over background and lesions in ForegroundLogits."
            )
            raise ValueError(message)
        loss = self.loss_of(answer if getattr(self.loss, "takes_side_logits", False) else logits, seen, generator)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), seen.masks).mean())

    def loss_of(
        self,
        answer: Tensor | MultiScaleLogits,
        batch: Batch,
        generator: torch.Generator,  # noqa: ARG002 - for recipes that derive from this one
    ) -> Tensor:
        """The loss of what the network answered: logits on the images' pixels, and side logits where the loss asks.

        Args:
            answer: (b, k, h, w) logits, or several of them.
            batch: what they answer to.
            generator: of the step.

        Returns:
            A scalar.
        """
        value: Tensor = self.loss(answer, batch.masks)
        return value

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The network's masks."""
        return Prediction(main_logits(self._answer(batch.images)).sigmoid())

    def _answer(self, images: Tensor) -> Tensor | MultiScaleLogits:
        """On the images' pixels, as `UltraRefiner` brings them there."""
        answer = self.network(images)
        logits = main_logits(answer)
        logits = resize_logits(logits if logits.dtype == torch.float64 else logits.float(), images.shape[-2:])
        return replace(answer, logits=logits) if isinstance(answer, MultiScaleLogits) else logits


def augmented(augmentation: nn.Module | None, batch: Batch, generator: torch.Generator) -> Batch:
    """A batch as the network is to see it: images, all its masks, and where their content now ends.

    A flip or a rotation moves second annotations, coarse masks and the content, too.

    Args:
        augmentation: called with images, masks and a generator; None for none. For a batch with coarse masks its
            ``view`` is called instead, which leaves soft masks soft (`Augmentation.view`).
        batch: fitted cases.
        generator: of the step.

    Returns:
        The batch; its content sizes are the (height, width) from the frame's top left corner within which all of each
        image's content lies.

    Raises:
        ValueError: a batch with coarse masks, and an augmentation that cannot move them.
    """
    if augmentation is None:
        return batch
    content = inside_content(batch.content_sizes, batch.images.shape[-2:]).to(batch.masks.dtype)
    true = [batch.masks, *(() if batch.other_masks is None else (batch.other_masks,)), content]
    coarse = batch.coarse_probability
    with full_precision(batch.images):
        if coarse is None:
            images, moved = augmentation(batch.images, torch.cat(true, 1), generator)
        else:
            images, soft = _soft_view(augmentation)(batch.images, torch.cat([*true, coarse], 1), generator)
            moved, coarse = soft[:, : -coarse.shape[1]] >= 0.5, soft[:, -coarse.shape[1] :]
    count = batch.masks.shape[1]
    return batch._replace(
        images=images,
        masks=moved[:, :count].to(batch.masks.dtype),
        other_masks=None if batch.other_masks is None else moved[:, count:-1].to(batch.masks.dtype),
        coarse_probability=coarse,
        content_sizes=_extent(moved[:, -1] > 0),
    )


def _extent(there: Tensor) -> Tensor:
    """(height, width) from the top left corner within which a mask (b, h, w) lies; at least a pixel."""
    height, width = there.shape[-2:]
    rows = torch.arange(1, height + 1, device=there.device) * there.any(2)
    columns = torch.arange(1, width + 1, device=there.device) * there.any(1)
    # Nothing is left where all content was moved out of the frame; a region needs a pixel.
    return torch.stack([rows.amax(1), columns.amax(1)], 1).clamp(min=1)


def _soft_view(augmentation: nn.Module) -> Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]:
    view: Any = getattr(augmentation, "view", None)
    if view is None:
        message = (
            "augmentation must have a method view(images, masks, generator) that leaves soft masks soft, "
            f"for the data set has coarse masks, but {type(augmentation).__name__} has none; derive from Augmentation, "
            "or pass None."
        )
        raise ValueError(message)
    return cast("Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]", view)
