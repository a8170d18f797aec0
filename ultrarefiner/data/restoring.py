"""Masks of a fitted image, and what SAM was told about it, back on the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.data.fit import FitToSquare
from ultrarefiner.ops.coordinates import edge_to_index, index_to_edge, pad_frame
from ultrarefiner.types import Prompts


@runtime_checkable
class RefinedBatch(Protocol):
    """Both masks of fitted images, and what SAM was told; `ultrarefiner.prediction.Prediction` is one."""

    @property
    def coarse_probability(self) -> Float[Tensor, "b k s s"]:
        """The coarse network's masks in the square."""

    @property
    def refined_probability(self) -> Float[Tensor, "b k s s"]:
        """The final masks in the square."""

    @property
    def prompts(self) -> Prompts:
        """Points and boxes in pixel indices of the square."""

    @property
    def regions(self) -> Float[Tensor, "b k 4"] | None:
        """What SAM looked at, (x0, y0, x1, y1) in pixel edges of the square; None for all of it."""


@dataclass(frozen=True)
class RestoredMasks:
    """Both masks of one image, and what SAM was told about each of its k masks, on the image's own pixels, on the CPU.

    Attributes:
        coarse_probability: the coarse network's masks.
        refined_probability: the final masks.
        points: the point prompts (x, y) in pixel indices of the image; None if SAM was told none. What was told about
            an empty mask means nothing, see ``refinable``.
        labels: 1 for lesion, 0 for background, -1 for no point.
        box: the box prompt (x0, y0, x1, y1) in pixel indices of the image, or None.
        region: what SAM looked at, (x0, y0, x1, y1) in pixel edges of the image; None for all of it.
        refinable: False where the coarse mask was empty and nothing was asked of SAM.
    """

    coarse_probability: Float[Tensor, "k h w"]
    refined_probability: Float[Tensor, "k h w"]
    points: Float[Tensor, "k n 2"] | None
    labels: Int[Tensor, "k n"] | None
    box: Float[Tensor, "k 4"] | None
    region: Float[Tensor, "k 4"] | None
    refinable: Bool[Tensor, " k"]


def restored_masks(batch: RefinedBatch, index: int, *, fit: FitToSquare, size: Sequence[int]) -> RestoredMasks:
    """One image of a batch of fitted images, back on its own pixels.

    Args:
        batch: what was made of the fitted images.
        index: of the image in the batch.
        fit: the fit into the square.
        size: (height, width) of the image itself.

    Returns:
        The masks, soft and within [0, 1], and the coordinates.

    Raises:
        ValueError: the masks are not of the square's size.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> box, sure = torch.tensor([[[1.5, 3.5, 9.5, 7.5]]]), torch.ones(1, 1, dtype=torch.bool)
        >>> mask = torch.ones(1, 1, 20, 20)
        >>> prompts = Prompts(points=None, labels=None, boxes=box, mask_logits=None, valid=sure)
        >>> batch = SimpleNamespace(coarse_probability=mask, refined_probability=mask, prompts=prompts, regions=None)
        >>> masks = restored_masks(batch, 0, fit=FitToSquare(20), size=(5, 10))
        >>> masks.refined_probability.shape, masks.box
        (torch.Size([1, 5, 10]), tensor([[0.5000, 1.5000, 4.5000, 3.5000]]))
    """
    frame = pad_frame(size, fit.size)
    prompts = batch.prompts

    def of_indices(coordinates: Tensor | None) -> Tensor | None:
        if coordinates is None:
            return None
        return edge_to_index(frame.from_frame(index_to_edge(coordinates[index].float().cpu())))

    def mask(probability: Tensor) -> Tensor:
        # Interpolation may leave [0, 1] by a rounding.
        return fit.restore(probability[index].float().cpu(), size).clamp(0, 1)

    return RestoredMasks(
        coarse_probability=mask(batch.coarse_probability),
        refined_probability=mask(batch.refined_probability),
        points=of_indices(prompts.points),
        labels=None if prompts.labels is None else prompts.labels[index].cpu(),
        box=of_indices(prompts.boxes),
        region=None if batch.regions is None else frame.from_frame(batch.regions[index].float().cpu()),
        refinable=prompts.valid[index].cpu(),
    )
