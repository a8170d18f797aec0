"""Focal loss, kornia's, per mask."""

from __future__ import annotations

from jaxtyping import Float
from kornia.losses import binary_focal_loss_with_logits
from torch import Tensor, nn

from ultrarefiner.losses.per_mask import Reduction, aligned, reduced
from ultrarefiner.losses.ranges import check_not_negative, check_share


def focal_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Cross entropy that cares less about pixels that are already right; the mean over each mask.

    .. math::
        L = -\frac{1}{hw} \sum_i \left[ \alpha t_i (1 - p_i)^\gamma \log p_i
        + (1 - \alpha) (1 - t_i) p_i^\gamma \log (1 - p_i) \right], \qquad p = \sigma(z)

    The pixels are kornia's ``binary_focal_loss_with_logits``. An empty target is nothing special.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        logits: mask logits.
        target: the true masks in [0, 1].
        gamma: how fast a right pixel loses its weight, at least 0; 0 is cross entropy.
        alpha: the weight of lesion pixels in [0, 1]; background pixels get 1 - alpha. None weighs both by 1.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, gamma or alpha is outside its range, or the reduction is unknown.

    Example:
        >>> import torch
        >>> value = focal_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), gamma=0.0, alpha=None)
        >>> round(value.item(), 4)
        0.6931
    """
    check_not_negative(gamma=gamma)
    check_share("alpha", alpha)
    logits, target = aligned(logits, target)
    pixels = binary_focal_loss_with_logits(
        logits, target, alpha=alpha, gamma=gamma, reduction="none", ignore_index=None
    )
    return reduced(pixels.mean((-2, -1)), reduction)


class FocalLoss(nn.Module):
    """`focal_loss` with its options kept.

    Args:
        gamma: how fast a right pixel loses its weight, at least 0.
        alpha: the weight of lesion pixels in [0, 1], or None.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: if gamma or alpha is outside its range.

    Example:
        >>> import torch
        >>> FocalLoss(gamma=1.0)(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).shape
        torch.Size([])
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = 0.25, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_not_negative(gamma=gamma)
        check_share("alpha", alpha)
        self.gamma = gamma
        self.alpha = alpha
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"]) -> Float[Tensor, "*values"]:
        """The loss; see `focal_loss`."""
        return focal_loss(logits, target, gamma=self.gamma, alpha=self.alpha, reduction=self.reduction)
