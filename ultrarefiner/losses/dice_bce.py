"""The usual sum: Dice for the region, cross entropy for each pixel."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.cross_entropy import binary_cross_entropy_loss
from ultrarefiner.losses.dice import dice_loss
from ultrarefiner.losses.per_mask import Reduction, reduced
from ultrarefiner.losses.ranges import check_not_negative


def dice_bce_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    *,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    smooth: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Weighted sum of `dice_loss` and `binary_cross_entropy_loss`, mask by mask.

    .. math:: L = w_D L_{Dice} + w_B L_{BCE}

    Args:
        logits: mask logits.
        target: the true masks in [0, 1]. An empty target is allowed.
        dice_weight: the weight of Dice.
        bce_weight: the weight of cross entropy.
        smooth: the constant of Dice, in pixels.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, a weight or ``smooth`` is negative, or the reduction is unknown.

    Example:
        >>> import torch
        >>> target = torch.eye(4)[None, None]
        >>> round(dice_bce_loss(100 * (target - 0.5), target).item(), 4)
        0.0
    """
    check_not_negative(dice_weight=dice_weight, bce_weight=bce_weight)
    dice = dice_loss(logits, target, smooth=smooth, reduction="none")
    cross_entropy = binary_cross_entropy_loss(logits, target, reduction="none")
    return reduced(dice_weight * dice + bce_weight * cross_entropy, reduction)


class DiceBCELoss(nn.Module):
    """`dice_bce_loss` with its options kept.

    Args:
        dice_weight: the weight of Dice.
        bce_weight: the weight of cross entropy.
        smooth: the constant of Dice, in pixels.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if a weight or ``smooth`` is negative.

    Example:
        >>> import torch
        >>> DiceBCELoss(bce_weight=0.5)(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        smooth: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_not_negative(dice_weight=dice_weight, bce_weight=bce_weight, smooth=smooth)
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight
        self.smooth = smooth
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"]) -> Float[Tensor, "*values"]:
        """The loss; see `dice_bce_loss`."""
        return dice_bce_loss(
            logits,
            target,
            dice_weight=self.dice_weight,
            bce_weight=self.bce_weight,
            smooth=self.smooth,
            reduction=self.reduction,
        )
