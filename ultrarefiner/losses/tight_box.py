"""A tight box is touched on all sides: the mask's projections fill its height and its width."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.losses.box_region import aligned_boxes
from ultrarefiner.losses.log_barrier import LogBarrier, log_barrier
from ultrarefiner.losses.per_mask import Reduction, reduced


def tight_box_loss(
    logits: Float[Tensor, "b k h w"],
    boxes: Float[Tensor, "b k 4"],
    *,
    share: float = 1.0,
    barrier: Callable[[Tensor], Tensor] = log_barrier,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""A price for rows and columns of the box in which no pixel is lesion.

    .. math::
        L = \psi\Big(s h - \sum_{y \in B} \max_{x \in B} p_{yx}\Big)
        + \psi\Big(s w - \sum_{x \in B} \max_{y \in B} p_{yx}\Big)

    h and w are the box's height and width in pixels, and only pixels inside the box count. With s = 1, the published
    form, the arguments can't be below 0: the constraint is met at best exactly, where every row and column has a
    certain pixel, and the barrier is always on its straight part. With s < 1 it is met by a margin by a mask that
    reaches more than this share of the rows and of the columns; with a barrier that has a ``margin`` (in pixels) such
    a mask has a gradient of exactly 0.

    The gradient of each row goes to its largest pixel, shared among equal ones. An empty box (see `box_region`) asks
    for nothing: its loss is 0, without a gradient.

    Where one box holds several lesions, the rows and columns between them are asked for, too: the right mask, which
    leaves them free, is dearer than the filled box. The loss is meant for one lesion a box.

    Source: the README of Automatic MedSAM (vinhnamhai321/AutoMedSAM), whose code leaves this term out; after Kervadec
    et al., "Bounding boxes for weakly supervised segmentation", MIDL 2020. `band_tight_box_loss` is the paper's form.

    Args:
        logits: mask logits.
        boxes: (x0, y0, x1, y1), tight, in pixel edges of the masks; rounded, and cut off at the frame.
        share: s, in (0, 1].
        barrier: psi, from pixels to a price.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values in float32 or wider; those of a usual barrier may be below 0 where ``share`` is below 1.

    Raises:
        ValueError: if the shapes do not fit, a coordinate is NaN, ``share`` is outside its range, or the reduction is
            unknown.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> diagonal = 100 * (torch.eye(4)[None, None] - 0.5)
        >>> round(tight_box_loss(diagonal, box).item(), 4)  # 2 psi(0)
        1.6876
    """
    _check_share(share)
    logits, region = aligned_boxes(logits, boxes)
    # -1 is below every probability: no pixel outside is ever the largest, nor shares its gradient.
    probability = logits.sigmoid().masked_fill(~region.inside, -1)
    rows = _missing(probability.amax(-1), region.rows, share)
    columns = _missing(probability.amax(-2), region.columns, share)
    price = barrier(rows) + barrier(columns)
    return reduced(price.where(region.area > 0, 0), reduction)


class TightBoxLoss(nn.Module):
    """`tight_box_loss` with its options kept: projections on rows and columns.

    Of several lesions in one box it also asks for the rows and columns between them: give each lesion a box and a mask
    of its own, or expect masks that fill the gap.

    Args:
        share: the share of the box's height and width that the mask must reach, in (0, 1].
        barrier: the price of what is missing, in pixels; None for `LogBarrier` as published.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if ``share`` is outside its range.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> loose = TightBoxLoss(share=0.5, barrier=LogBarrier(margin=0.9))
        >>> round(loose(torch.full((1, 1, 4, 4), 20.0), box).item(), 4)  # 2 psi(-0.9)
        0.0421
    """

    def __init__(self, *, share: float = 1.0, barrier: nn.Module | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_share(share)
        self.share = share
        self.barrier = LogBarrier() if barrier is None else barrier
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss; see `tight_box_loss`."""
        return tight_box_loss(logits, boxes, share=self.share, barrier=self.barrier, reduction=self.reduction)


def _missing(largest: Float[Tensor, "b k n"], inside: Bool[Tensor, "b k n"], share: float) -> Float[Tensor, "b k"]:
    return share * inside.sum(-1, dtype=largest.dtype) - largest.where(inside, 0).sum(-1)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        message = f"share must be in (0, 1], the part of each side of the box that the mask must reach; got {share}."
        raise ValueError(message)
