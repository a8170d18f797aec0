"""A lesion fills a plausible share of its box: not nearly nothing, not nearly all of it."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.box_region import aligned_boxes
from ultrarefiner.losses.log_barrier import LogBarrier, log_barrier
from ultrarefiner.losses.per_mask import Reduction, reduced


def size_loss(
    logits: Float[Tensor, "b k h w"],
    boxes: Float[Tensor, "b k 4"],
    *,
    low: float = 0.01,
    high: float = 0.99,
    barrier: Callable[[Tensor], Tensor] = log_barrier,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""A price for a mask that fills too little or too much of its box.

    .. math:: L = \psi(a - r) + \psi(r - b), \qquad r = \frac{1}{|B|} \sum_{i \in B} p_i

    a and b are ``low`` and ``high``. The barrier as published pulls everywhere: with it the loss is smallest at
    r = (a + b) / 2, so the defaults pull every mask towards half of its box. With a ``margin`` (a share of the box,
    0.1 for example) the gradient is exactly 0 where r is further than that from both bounds.

    Only pixels inside the box count. An empty box (see `box_region`) has no size: its loss is 0, without a gradient.

    Source: Automatic MedSAM (vinhnamhai321/AutoMedSAM), after Kervadec et al., MIDL 2020. `pixel_size_loss` is the
    paper's form.

    Args:
        logits: mask logits.
        boxes: (x0, y0, x1, y1) in pixel edges of the masks; rounded, and cut off at the frame.
        low: a, the smallest share of the box.
        high: b, the largest; 0 <= a < b <= 1.
        barrier: psi, from shares of the box to a price.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit, a coordinate is NaN, the bounds are no range within [0, 1], or the
            reduction is unknown.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> round(size_loss(torch.zeros(1, 1, 4, 4), box).item(), 4)  # 2 psi(-0.49)
        0.2853
    """
    _check_bounds(low, high)
    logits, region = aligned_boxes(logits, boxes)
    share = logits.sigmoid().where(region.inside, 0).sum((-2, -1)) / region.area.clamp(min=1)
    price = barrier(low - share) + barrier(share - high)
    return reduced(price.where(region.area > 0, 0), reduction)


def pixel_size_loss(
    logits: Float[Tensor, "b k h w"],
    boxes: Float[Tensor, "b k 4"],
    *,
    low: float = 0.5,
    high: float = 0.9,
    barrier: Callable[[Tensor], Tensor] = log_barrier,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""A price for a mask whose area is not between two shares of its box; the paper's form.

    .. math:: L = \frac{1}{|B|} \left[ \psi(a |B| - S) + \psi(S - b |B|) \right], \qquad S = \sum_i p_i

    Differs from `size_loss` in three ways: S is the mask's area in the whole frame, the barrier sees pixels, and its
    price is divided by the box's area. So the bend of the barrier is sharp (a 25th of a pixel), a broken bound pulls
    with a slope of t whatever the box's size, and a met one with hardly any. A ``margin`` of the barrier is in pixels.

    An empty box has no size: its loss is 0, without a gradient; `empty_loss` clears its mask.

    Source: Gaillochet et al., "Automating MedSAM by Learning Prompts with Weak Few-Shot Supervision",
    arXiv 2409.20293; Kervadec et al., MIDL 2020.

    Args:
        logits: mask logits.
        boxes: (x0, y0, x1, y1) in pixel edges of the masks; rounded, and cut off at the frame.
        low: a, the smallest share of the box.
        high: b, the largest; 0 <= a < b <= 1.
        barrier: psi, from pixels to a price.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values in float32 or wider.

    Raises:
        ValueError: as `size_loss`.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.0, 0.0, 2.0, 5.0]]])
        >>> round(pixel_size_loss(torch.zeros(1, 1, 5, 2), box).item(), 4)  # (psi(0) + psi(-4)) / 10
        0.0567
    """
    _check_bounds(low, high)
    logits, region = aligned_boxes(logits, boxes)
    area = region.area.to(logits.dtype)
    pixels = logits.sigmoid().sum((-2, -1))
    price = barrier(low * area - pixels) + barrier(pixels - high * area)
    return reduced((price / area.clamp(min=1)).where(area > 0, 0), reduction)


class SizeLoss(nn.Module):
    """`size_loss` with its options kept: the share of the box that is filled.

    Args:
        low: the smallest share of the box.
        high: the largest; 0 <= low < high <= 1.
        barrier: the price of a share beyond a bound; None for `LogBarrier` as published.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if the bounds are no range within [0, 1].

    Example:
        >>> import torch
        >>> boxes = torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(2, 1, 4)
        >>> SizeLoss(barrier=LogBarrier(margin=0.1))(torch.zeros(2, 1, 4, 4), boxes).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        low: float = 0.01,
        high: float = 0.99,
        barrier: nn.Module | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_bounds(low, high)
        self.low = low
        self.high = high
        self.barrier = LogBarrier() if barrier is None else barrier
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss; see `size_loss`."""
        return size_loss(logits, boxes, low=self.low, high=self.high, barrier=self.barrier, reduction=self.reduction)


class PixelSizeLoss(nn.Module):
    """`pixel_size_loss` with its options kept: the mask's area in pixels.

    Args:
        low: the smallest share of the box.
        high: the largest; 0 <= low < high <= 1.
        barrier: the price of an area beyond a bound, in pixels; None for `LogBarrier` as published.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if the bounds are no range within [0, 1].

    Example:
        >>> import torch
        >>> boxes = torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(2, 1, 4)
        >>> PixelSizeLoss(high=1.0)(torch.zeros(2, 1, 4, 4), boxes).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        low: float = 0.5,
        high: float = 0.9,
        barrier: nn.Module | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_bounds(low, high)
        self.low = low
        self.high = high
        self.barrier = LogBarrier() if barrier is None else barrier
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss; see `pixel_size_loss`."""
        return pixel_size_loss(
            logits, boxes, low=self.low, high=self.high, barrier=self.barrier, reduction=self.reduction
        )


def _check_bounds(low: float, high: float) -> None:
    if not 0 <= low < high <= 1:
        message = (
            f"low and high must be shares of the box's area with 0 <= low < high <= 1; got low={low} and high={high}."
        )
        raise ValueError(message)
