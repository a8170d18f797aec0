"""Quality-aware loss, pixel by pixel: keep the pixels that the coarse mask has right."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.dice_bce import dice_bce_loss
from ultrarefiner.losses.per_mask import Reduction, aligned, reduced
from ultrarefiner.losses.ranges import check_not_negative


def pixel_quality_aware_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    coarse_probability: Float[Tensor, "b k h w"],
    *,
    weight: float = 0.5,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    smooth: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Cross entropy + Dice + a price for leaving the coarse mask where it was right.

    .. math::
        L = L_{BCE} + L_{Dice} + \lambda \frac{1}{hw} \sum_i 1[\hat c_i = \hat t_i] \, |\sigma(z_i) - \hat c_i|,
        \qquad \hat c = 1[c > 0.5], \; \hat t = 1[t > 0.5]

    Where the coarse pixel is right it *equals* the target, so the last term is an L1 distance to the target
    on those pixels: all it takes from the coarse mask is which pixels to leave out. `QualityAwareLoss` is the
    form that also cares how confident the coarse mask was. The coarse mask is thresholded, so no gradient
    reaches it.

    Source: UltraRefiner (Autzoko/UltraRefiner), the form in its offline and hybrid fine-tuning.

    Args:
        logits: refined mask logits.
        target: the true masks in [0, 1]. Where target and coarse mask are both empty, every pixel is priced.
        coarse_probability: the masks that were refined, in [0, 1].
        weight: the price lambda, at least 0; 0 is `dice_bce_loss`.
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
        >>> target, doubt = torch.eye(4)[None, None], torch.zeros(1, 1, 4, 4)
        >>> plain, priced = dice_bce_loss(doubt, target), pixel_quality_aware_loss(doubt, target, target)
        >>> round((priced - plain).item(), 4)  # 0.5 * |0.5 - t|
        0.25
    """
    check_not_negative(weight=weight)
    logits, target = aligned(logits, target)
    _, coarse = aligned(logits, coarse_probability.detach(), name="coarse_probability")
    coarse_hard = coarse > 0.5
    change = (logits.sigmoid() - coarse_hard.to(logits.dtype)).abs()
    price = change.masked_fill(coarse_hard != (target > 0.5), 0).mean((-2, -1))
    fit = dice_bce_loss(logits, target, dice_weight=dice_weight, bce_weight=bce_weight, smooth=smooth, reduction="none")
    return reduced(fit + weight * price, reduction)


class PixelQualityAwareLoss(nn.Module):
    """`pixel_quality_aware_loss` with its options kept.

    Args:
        weight: the price of leaving a right coarse pixel, at least 0.
        dice_weight: the weight of Dice.
        bce_weight: the weight of cross entropy.
        smooth: the constant of Dice, in pixels.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if a weight or ``smooth`` is negative.

    Example:
        >>> import torch
        >>> coarse = torch.rand(2, 1, 4, 4)
        >>> PixelQualityAwareLoss(weight=0.1)(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), coarse).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        weight: float = 0.5,
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        smooth: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_not_negative(weight=weight, dice_weight=dice_weight, bce_weight=bce_weight, smooth=smooth)
        self.weight = weight
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight
        self.smooth = smooth
        self.reduction: Reduction = reduction

    def forward(
        self,
        logits: Float[Tensor, "b k h w"],
        target: Float[Tensor, "b k h w"],
        coarse_probability: Float[Tensor, "b k h w"],
    ) -> Float[Tensor, "*values"]:
        """The loss; see `pixel_quality_aware_loss`."""
        return pixel_quality_aware_loss(
            logits,
            target,
            coarse_probability,
            weight=self.weight,
            dice_weight=self.dice_weight,
            bce_weight=self.bce_weight,
            smooth=self.smooth,
            reduction=self.reduction,
        )
