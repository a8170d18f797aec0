"""A tight box is crossed everywhere: each band of it holds as many lesion pixels as it is wide."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.losses.box_region import aligned_boxes
from ultrarefiner.losses.log_barrier import LogBarrier, log_barrier
from ultrarefiner.losses.per_mask import Reduction, reduced


def band_tight_box_loss(
    logits: Float[Tensor, "b k h w"],
    boxes: Float[Tensor, "b k 4"],
    *,
    width: int = 5,
    barrier: Callable[[Tensor], Tensor] = log_barrier,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""A price for each band of the box that holds too little lesion.

    .. math:: L = \sum_b \psi\Big(d_b - \sum_{i \in b} p_i\Big)

    The box is cut into horizontal bands, and once more into vertical ones, each ``width`` pixels wide and as long as
    the box. :math:`d_b` is the band's own width: as each line of a tight box has a lesion pixel, a band of d lines has
    at least d. Bands start at the top and at the left; the last one is what is left over, and is narrower. The sum
    goes over the bands of both directions, so a large box weighs more than a small one.

    In the published code, which counts sides from the first pixel to the last one, the last band's bound is r + 1 with
    r the rest of that side: again its width. Only a single line left over has no band there; here it has one.

    Unlike `tight_box_loss`, a compact mask meets these constraints by many pixels. The barrier as published still pulls
    a little; with a ``margin`` (in pixels) such bands have a gradient of exactly 0. An empty box (see `box_region`) has
    no band: its loss is 0, without a gradient.

    Source: Kervadec et al., "Bounding boxes for weakly supervised segmentation: Global constraints get close to full
    supervision", MIDL 2020; Gaillochet et al., "Automating MedSAM by Learning Prompts with Weak Few-Shot
    Supervision", arXiv 2409.20293.

    Args:
        logits: mask logits.
        boxes: (x0, y0, x1, y1), tight, in pixel edges of the masks; rounded, and cut off at the frame.
        width: lines in a band, at least 1; 5 in the paper.
        barrier: psi, from pixels to a price.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values in float32 or wider; below 0 where most bands are well filled and the barrier has no margin.

    Raises:
        ValueError: if the shapes do not fit, a coordinate is NaN, ``width`` is not a whole number of at least 1, or the
            reduction is unknown.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]])
        >>> diagonal = 100 * (torch.eye(4)[None, None] - 0.5)
        >>> round(band_tight_box_loss(diagonal, box, width=3).item(), 4)  # 4 psi(0): bands of 3 and of 1, twice
        3.3751
    """
    _check_width(width)
    logits, region = aligned_boxes(logits, boxes)
    probability = logits.sigmoid().where(region.inside, 0)
    rows = _band_prices(probability.sum(-1), region.rows, int(width), barrier)
    columns = _band_prices(probability.sum(-2), region.columns, int(width), barrier)
    return reduced(rows + columns, reduction)


class BandTightBoxLoss(nn.Module):
    """`band_tight_box_loss` with its options kept: the paper's bands.

    Args:
        width: lines in a band, at least 1.
        barrier: the price of what a band misses, in pixels; None for `LogBarrier` as published.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if ``width`` is not a whole number of at least 1.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]])
        >>> full = BandTightBoxLoss(barrier=LogBarrier(margin=1.0))(torch.full((1, 1, 8, 8), 20.0), box)
        >>> round(full.item(), 4) + 0.0
        0.0
    """

    def __init__(self, *, width: int = 5, barrier: nn.Module | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_width(width)
        self.width = width
        self.barrier = LogBarrier() if barrier is None else barrier
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss; see `band_tight_box_loss`."""
        return band_tight_box_loss(logits, boxes, width=self.width, barrier=self.barrier, reduction=self.reduction)


def _band_prices(
    lines: Float[Tensor, "b k n"], inside: Bool[Tensor, "b k n"], width: int, barrier: Callable[[Tensor], Tensor]
) -> Float[Tensor, "b k"]:
    """The summed price of the bands along one axis, given the sum of each line within the box."""
    length = lines.shape[-1]
    bands = -(-length // width)  # as many as the largest box has; a smaller box's last ones are empty
    index = torch.arange(length, device=lines.device)
    first = index.where(inside, length).amin(-1, keepdim=True)
    place = first + torch.arange(bands * width, device=lines.device)
    present = place < first + inside.sum(-1, keepdim=True)
    held = lines.gather(-1, place.clamp(max=length - 1)).where(present, 0)
    bound = present.reshape(*present.shape[:-1], bands, width).sum(-1)
    prices = barrier(bound - held.reshape(*held.shape[:-1], bands, width).sum(-1))
    return prices.where(bound > 0, 0).sum(-1)


def _check_width(width: int) -> None:
    if not isinstance(width, Integral) or isinstance(width, bool) or int(width) < 1:
        message = f"width must be a whole number of at least 1, the lines in a band of the box; got {width}."
        raise ValueError(message)
