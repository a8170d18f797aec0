"""Phase 1 with a loss that is told where two annotators disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ultrarefiner.data import Batch
from ultrarefiner.losses import AGBCELoss
from ultrarefiner.systems.at_size import main_logits
from ultrarefiner.training.coarse import CoarseRecipe
from ultrarefiner.training.recipe import full_precision
from ultrarefiner.types import MultiScaleLogits

Annotator = Callable[[Tensor, torch.Generator], Tensor]
"""True masks and a generator to masks of another annotator."""


@dataclass(frozen=True, eq=False)
class AnnotationGuidedRecipe(CoarseRecipe):
    """Train a segmentation network on true masks, harder where another annotation differs from them.

    Args:
        loss: called with logits, true masks and the other annotation: `AGBCELoss`, or a `DeepSupervision` of it.
        annotator: where the other annotation comes from. "second" takes the data's (``Batch.other_masks``);
            "prediction" takes the network's own mask at 0.5 of this very step, so that its errors are the hard pixels;
            anything else is called with true masks and a generator and simulates one (`SimpleFailures`).

    Raises:
        ValueError: an unknown annotator, or a loss that compares no annotations; while training, no second annotation
            in the data.

    Example:
        >>> recipe = AnnotationGuidedRecipe(nn.Conv2d(1, 1, 3, padding=1), annotator="prediction")
        >>> recipe.settings()["annotator"]
        'prediction'

    Jiang et al., "MicroSegNet", arXiv 2305.19956 (github.com/mirthAI/MicroSegNet).
    """

    _: KW_ONLY
    loss: nn.Module = field(default_factory=AGBCELoss)
    annotator: Literal["second", "prediction"] | Annotator = "second"
    guided: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.annotator) and self.annotator not in ("second", "prediction"):
            message = (
                "annotator must be 'second', 'prediction' or something that simulates one from true masks and a "
                f"generator, but it is {self.annotator!r}."
            )
            raise ValueError(message)

    def loss_of(self, answer: Tensor | MultiScaleLogits, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss, with the other annotation.

        Args:
            answer: (b, k, h, w) logits, or several of them.
            batch: with other masks.
            generator: of the step.

        Returns:
            A scalar.
        """
        value: Tensor = self.loss(answer, batch.masks, self._other(answer, batch, generator))
        return value

    def _other(self, answer: Tensor | MultiScaleLogits, batch: Batch, generator: torch.Generator) -> Tensor:
        if not isinstance(self.annotator, str):
            with full_precision(batch.masks), torch.no_grad():
                return self.annotator(batch.masks, generator)
        if self.annotator == "prediction":
            return (main_logits(answer).detach() >= 0).to(batch.masks.dtype)
        if batch.other_masks is None:
            message = (
                "dataset must have a second annotation for every case (Case.other_mask), but it has none; train with "
                "annotator='prediction', or with a simulated one such as SimpleFailures()."
            )
            raise ValueError(message)
        return batch.other_masks
