"""Quality-aware loss: improve what is bad, leave what is good."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.dice_bce import dice_bce_loss
from ultrarefiner.losses.per_mask import Reduction, aligned, reduced
from ultrarefiner.losses.ranges import check_not_negative, check_start
from ultrarefiner.ops.overlap import dice_coefficient


def quality_weight(
    coarse_probability: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"], *, start: float = 0.6
) -> Float[Tensor, "b k"]:
    r"""How much a coarse mask deserves to be left alone.

    .. math:: w = \operatorname{clamp}\left( \frac{D(1[c > 0.5], t) - s}{1 - s}, 0, 1 \right)

    0 up to a Dice of ``start``, 1 for a perfect mask. It is a constant for training: no gradient passes. An
    empty coarse mask of an empty target is perfect.

    Args:
        coarse_probability: the coarse masks in [0, 1].
        target: the true masks in [0, 1].
        start: the Dice s where protection begins, in [0, 1).

    Returns:
        One weight a mask, in [0, 1].

    Raises:
        ValueError: if the shapes differ, or ``start`` is outside [0, 1).

    Example:
        >>> import torch
        >>> mask = torch.eye(4)[None, None]
        >>> quality_weight(mask, mask).item(), quality_weight(1 - mask, mask).item()
        (1.0, 0.0)
    """
    check_start(start)
    coarse, truth = aligned(coarse_probability.detach(), target.detach(), of="coarse_probability")
    dice = dice_coefficient((coarse > 0.5).to(truth.dtype), truth)
    return (1 - (1 - dice) / (1 - start)).clamp(0, 1)


def quality_aware_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    coarse_probability: Float[Tensor, "b k h w"],
    *,
    weight: float = 0.5,
    start: float = 0.6,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    smooth: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Cross entropy + Dice + a price for changing coarse masks that were good.

    .. math::
        L = L_{BCE} + L_{Dice}
        + \lambda \operatorname{clamp}\left( \frac{D(1[c > 0.5], t) - 0.6}{0.4}, 0, 1 \right)
        \frac{1}{hw} \sum_i (\sigma(z_i) - c_i)^2

    Every term is computed per mask, then averaged: a good mask is protected and a bad one is not, even in one
    batch. The coarse mask is a constant here, in the weight *and* in the squared change. Otherwise the last
    term would also pull the coarse network towards the refined mask, that is, teach it to imitate its own
    refiner rather than the truth, and most strongly where it is already right.

    Source: UltraRefiner (Autzoko/UltraRefiner), "quality-aware loss".

    Args:
        logits: refined mask logits.
        target: the true masks in [0, 1]. Where target and coarse mask are both empty, the protection is full.
        coarse_probability: the masks that were refined, in [0, 1]; detached here.
        weight: the price lambda, at least 0; 0 is `dice_bce_loss`.
        start: the coarse Dice where protection begins.
        dice_weight: the weight of Dice.
        bce_weight: the weight of cross entropy.
        smooth: the constant of Dice, in pixels.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, a weight or ``smooth`` is negative, ``start`` is outside [0, 1) or the
            reduction is unknown.

    Example:
        >>> import torch
        >>> target = torch.eye(4)[None, None]
        >>> round(quality_aware_loss(100 * (target - 0.5), target, target).item(), 4)
        0.0
        >>> doubt = torch.zeros(1, 1, 4, 4)
        >>> plain, priced = dice_bce_loss(doubt, target), quality_aware_loss(doubt, target, target)
        >>> round((priced - plain).item(), 4)  # 0.5 * 1 * 0.5 ** 2
        0.125
    """
    check_not_negative(weight=weight)
    logits, target = aligned(logits, target)
    _, coarse = aligned(logits, coarse_probability.detach(), name="coarse_probability")
    change = (logits.sigmoid() - coarse).square().mean((-2, -1))
    fit = dice_bce_loss(logits, target, dice_weight=dice_weight, bce_weight=bce_weight, smooth=smooth, reduction="none")
    return reduced(fit + weight * quality_weight(coarse, target, start=start) * change, reduction)


class QualityAwareLoss(nn.Module):
    """`quality_aware_loss` with its options kept.

    Args:
        weight: the price of changing a good coarse mask, at least 0.
        start: the coarse Dice where protection begins, in [0, 1).
        dice_weight: the weight of Dice.
        bce_weight: the weight of cross entropy.
        smooth: the constant of Dice, in pixels.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if a weight or ``smooth`` is negative, or ``start`` is outside [0, 1).

    Example:
        >>> import torch
        >>> coarse = torch.rand(2, 1, 4, 4)
        >>> QualityAwareLoss(weight=0.1)(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), coarse).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        weight: float = 0.5,
        start: float = 0.6,
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        smooth: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_not_negative(weight=weight, dice_weight=dice_weight, bce_weight=bce_weight, smooth=smooth)
        check_start(start)
        self.weight = weight
        self.start = start
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
        """The loss; see `quality_aware_loss`."""
        return quality_aware_loss(
            logits,
            target,
            coarse_probability,
            weight=self.weight,
            start=self.start,
            dice_weight=self.dice_weight,
            bce_weight=self.bce_weight,
            smooth=self.smooth,
            reduction=self.reduction,
        )
