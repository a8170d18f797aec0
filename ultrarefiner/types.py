"""What passes between the rooms: small frozen dataclasses, one meaning a field.

Letters in the shapes: ``b`` images, ``k`` masks of each image, ``n`` points of each mask, ``m`` candidate masks that
SAM proposes for one prompt, ``h w`` height and width; of `Clicks`, ``n`` clicks and ``d`` axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """What SAM is told about each mask.

    Coordinates are pixel *indices* of SAM's input frame (the first pixel's centre is 0; SAM adds the half pixel
    itself). A part that is ``None`` is not given to SAM.

    Attributes:
        points: (x, y) of every point.
        labels: 1 for lesion, 0 for background, -1 for SAM's "not a point".
        boxes: (x0, y0, x1, y1).
        mask_logits: the mask prompt, at a quarter of the frame's side.
        valid: False where the mask was empty: nothing of that mask's prompts carries information or a gradient.
        positive_probability: how much each point means lesion, in [0, 1], in place of ``labels``: its token then lies
            between those of SAM's two labels, so that a gradient reaches it.
        tokens: sparse prompt embeddings that were not made from points or boxes; they follow those that were.
        dense_embedding: in place of the embedding of ``mask_logits``, on the image embedding's raster.
    """

    points: Float[Tensor, "b k n 2"] | None
    labels: Int[Tensor, "b k n"] | None
    boxes: Float[Tensor, "b k 4"] | None
    mask_logits: Float[Tensor, "b k low_h low_w"] | None
    valid: Bool[Tensor, "b k"]
    positive_probability: Float[Tensor, "b k n"] | None = None
    tokens: Float[Tensor, "b k t d"] | None = None
    dense_embedding: Float[Tensor, "b k d embedding_h embedding_w"] | None = None


@dataclass(frozen=True)
class MaskCandidates:
    """What SAM answers to each prompt: ``m`` masks at low resolution and how good it believes each to be.

    Attributes:
        logits: mask logits in SAM's frame at a quarter of its side.
        iou: SAM's own estimate of each candidate's intersection over union (not clamped to [0, 1]).
    """

    logits: Float[Tensor, "b k m low_h low_w"]
    iou: Float[Tensor, "b k m"]


@dataclass(frozen=True)
class Refinement:
    """What a `SAMRefiner` returns.

    Attributes:
        logits: refined mask logits, on the pixels of the mask that came in.
        iou: SAM's estimate for the selected mask; 0 where the mask was empty.
        candidates: SAM's answer before selection.
        prompts: what SAM was told.
        boxes: the regions that SAM looked at, (x0, y0, x1, y1) in pixel *edges* of the image; None without a cropper.
    """

    logits: Float[Tensor, "b k h w"]
    iou: Float[Tensor, "b k"]
    candidates: MaskCandidates
    prompts: Prompts
    boxes: Float[Tensor, "b k 4"] | None


@dataclass(frozen=True)
class RefinedSegmentation:
    """What an `UltraRefiner` returns: the coarse mask, the refined mask and how one became the other.

    Attributes:
        coarse_logits: what the coarse network said, on the image's pixels.
        coarse_probability: its sigmoid.
        refined_logits: the final mask (after gate and acceptance rule, if there are any).
        refined_probability: its sigmoid.
        iou: SAM's estimate for the mask it proposed; 0 where the coarse mask was empty.
        prompts: what SAM was told.
        refinement: all that the refiner returned, before the gate.
        gate: the share of SAM's mask in the final mask, in [0, 1]; None without a gate.
        accepted: which refined masks the acceptance rule let pass; the others are the coarse masks. None without a
            rule, and in training mode.
    """

    coarse_logits: Float[Tensor, "b k h w"]
    coarse_probability: Float[Tensor, "b k h w"]
    refined_logits: Float[Tensor, "b k h w"]
    refined_probability: Float[Tensor, "b k h w"]
    iou: Float[Tensor, "b k"]
    prompts: Prompts
    refinement: Refinement
    gate: Float[Tensor, "b k h w"] | None
    accepted: Bool[Tensor, "b k"] | None = None


@dataclass(frozen=True)
class PromptedSegmentation:
    """What a system returns that prompts SAM by itself, with no mask, click or box to start from.

    Attributes:
        logits: mask logits on the image's pixels.
        low_logits: the same in SAM's frame at a quarter of its side.
        iou: SAM's estimate of each mask's intersection over union.
        prompts: what SAM was told.
    """

    logits: Float[Tensor, "b k h w"]
    low_logits: Float[Tensor, "b k low_h low_w"]
    iou: Float[Tensor, "b k"]
    prompts: Prompts


@dataclass(frozen=True)
class MultiScaleLogits:
    """What a network with deep supervision answers: its mask, and the same mask from coarser stages of its decoder.

    Attributes:
        logits: the mask; what everything but the loss uses.
        side_logits: coarse to fine, each (b, k, h', w') at its own resolution.
    """

    logits: Float[Tensor, "b k h w"]
    side_logits: tuple[Float[Tensor, "b k _ _"], ...]


@dataclass(frozen=True)
class Clicks:
    """What a person clicked: voxels, and whether each lies in the object.

    Positions are voxel *indices* in the order of the array's axes: (z, y, x) of a volume (b, 1, d, h, w), (y, x) of an
    image (b, 1, h, w). (The points of `Prompts`, which SAM is told, are (x, y).)

    Attributes:
        positions: whole numbers, 0 for the first voxel of an axis.
        positive: True for a click that says "object here", False for "background here".
        valid: False for padding, where there was no click.

    Example:
        >>> import torch
        >>> clicks = Clicks.at([(2, 3)], positive=[True]).then(Clicks.at([(5, 1)], positive=[False]))
        >>> clicks.positions, clicks.positive
        (tensor([[[2, 3],
                  [5, 1]]]), tensor([[ True, False]]))
    """

    positions: Int[Tensor, "b n d"]
    positive: Bool[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]

    @classmethod
    def at(
        cls, positions: Sequence[Sequence[int]], *, positive: Sequence[bool], device: torch.device | str | None = None
    ) -> Clicks:
        """Clicks into one volume or image.

        Args:
            positions: one click or more, each its indices in the order of the array's axes.
            positive: for each, whether it lies in the object.
            device: where to put them.

        Raises:
            ValueError: there is no click, or positions and labels are not equally many.
        """
        if not len(positions) or len(positions) != len(positive):
            message = (
                "positions and positive must hold one entry for each of at least one click, but hold "
                f"{len(positions)} and {len(positive)}; for no click at all use Clicks.none."
            )
            raise ValueError(message)
        where = torch.tensor([[int(index) for index in one] for one in positions], device=device)
        labels = torch.tensor([bool(one) for one in positive], device=device)
        return cls(where[None], labels[None], torch.ones_like(labels)[None])

    @classmethod
    def none(cls, batch: int, dimensions: int, *, device: torch.device | str | None = None) -> Clicks:
        """No click yet: n is 0.

        Args:
            batch: how many volumes or images.
            dimensions: their axes, 2 or 3.
            device: where to put them.
        """
        nothing = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        return cls(torch.zeros(batch, 0, dimensions, dtype=torch.long, device=device), nothing, nothing)

    def then(self, later: Clicks) -> Clicks:
        """These clicks, and later ones after them.

        Args:
            later: clicks into the same volumes or images.
        """
        return Clicks(
            torch.cat([self.positions, later.positions], 1),
            torch.cat([self.positive, later.positive], 1),
            torch.cat([self.valid, later.valid], 1),
        )
