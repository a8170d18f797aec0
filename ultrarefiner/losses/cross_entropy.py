"""Binary cross entropy, per mask."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.losses.per_mask import Reduction, aligned, reduced


def binary_cross_entropy_loss(
    logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"], *, reduction: Reduction = "mean"
) -> Float[Tensor, "*values"]:
    r"""Binary cross entropy, the mean over the pixels of each mask.

    .. math:: L = -\frac{1}{hw} \sum_i \left[ t_i \log \sigma(z_i) + (1 - t_i) \log (1 - \sigma(z_i)) \right]

    Finite for any finite logit, because it is computed from the logits. An empty target is nothing special.

    Args:
        logits: mask logits.
        target: the true masks in [0, 1].
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in nats, in float32 or wider.

    Raises:
        ValueError: if the shapes differ or the reduction is unknown.

    Example:
        >>> import torch
        >>> round(binary_cross_entropy_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        0.6931
    """
    logits, target = aligned(logits, target)
    pixels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return reduced(pixels.mean((-2, -1)), reduction)


class BinaryCrossEntropyLoss(nn.Module):
    """`binary_cross_entropy_loss` with its option kept.

    Args:
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Example:
        >>> import torch
        >>> BinaryCrossEntropyLoss(reduction="none")(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"]) -> Float[Tensor, "*values"]:
        """The loss; see `binary_cross_entropy_loss`."""
        return binary_cross_entropy_loss(logits, target, reduction=self.reduction)
