"""Soft Dice loss, per mask."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.per_mask import Reduction, aligned, reduced
from ultrarefiner.losses.ranges import check_not_negative
from ultrarefiner.ops.overlap import dice_coefficient


def dice_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    *,
    smooth: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""One minus the Dice coefficient of the sigmoid and the target.

    .. math:: L = 1 - \frac{2 \sum_i p_i t_i + s}{\sum_i p_i + \sum_i t_i + s}, \qquad p = \sigma(z)

    The sums run over the pixels of one mask, never over the batch: a small lesion counts as much as a large
    one. With an empty target the loss is :math:`1 - s / (\sum p + s)`, so it still asks for an empty mask.

    Source: Milletari et al., "V-Net", 3DV 2016, with denominators that are not squared.

    Args:
        logits: mask logits.
        target: the true masks in [0, 1].
        smooth: the constant s, in pixels, at least 0.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values in [0, 1], in float32 or wider.

    Raises:
        ValueError: if the shapes differ, ``smooth`` is negative or the reduction is unknown.

    Example:
        >>> import torch
        >>> target = torch.eye(4)[None, None]
        >>> round(dice_loss(100 * (target - 0.5), target).item(), 4)
        0.0
    """
    check_not_negative(smooth=smooth)
    logits, target = aligned(logits, target)
    return reduced(1 - dice_coefficient(logits.sigmoid(), target, smooth=smooth), reduction)


class DiceLoss(nn.Module):
    """`dice_loss` with its options kept.

    Args:
        smooth: added to numerator and denominator, in pixels, at least 0.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if ``smooth`` is negative.

    Example:
        >>> import torch
        >>> DiceLoss(smooth=1.0)(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).shape
        torch.Size([])
    """

    def __init__(self, *, smooth: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_not_negative(smooth=smooth)
        self.smooth = smooth
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"]) -> Float[Tensor, "*values"]:
        """The loss; see `dice_loss`."""
        return dice_loss(logits, target, smooth=self.smooth, reduction=self.reduction)
