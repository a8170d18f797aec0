"""Consistency: a refined mask stays what it was where nobody edited it."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.losses.per_mask import Reduction, reduced

Divergence = Literal["l2", "kl"]


def consistency_loss(
    refined_logits: Float[Tensor, "b k *space"],
    first_logits: Float[Tensor, "b k *space"],
    edited: Bool[Tensor, "b k *space"],
    *,
    divergence: Divergence = "l2",
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""How far a refined mask has moved from the first one, over the voxels U that nobody edited.

    .. math:: L_{l2} = \frac{1}{|U|} \sum_{i \in U} (q_i - p_i)^2, \qquad
        L_{kl} = \frac{1}{|U|} \sum_{i \in U} p_i \log \frac{p_i}{q_i} + (1 - p_i) \log \frac{1 - p_i}{1 - q_i}

    with p the first probability, which is a target and gets no gradient, and q the refined one. The mean runs over U,
    so the loss of a voxel does not depend on how many were edited. Where all voxels were edited it is 0, with a
    gradient of 0.

    Args:
        refined_logits: after the edit, in 2-D or 3-D.
        first_logits: before it.
        edited: the voxels that do not count.
        divergence: "l2" of probabilities, or the Kullback-Leibler divergence "kl" in nats, computed from logits.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0 (up to rounding), in float32 or wider.

    Raises:
        ValueError: shapes differ, or the divergence or reduction is unknown.

    Example:
        >>> first, refined = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[100.0, 100.0]]]])
        >>> consistency_loss(refined, first, torch.tensor([[[[True, False]]]])).item()
        0.25
    """
    if refined_logits.shape != first_logits.shape or edited.shape != first_logits.shape:
        message = (
            "refined_logits, first_logits and edited must have one shape, but have "
            f"{tuple(refined_logits.shape)}, {tuple(first_logits.shape)} and {tuple(edited.shape)}."
        )
        raise ValueError(message)
    check_options(divergence, reduction)
    dtype = torch.promote_types(refined_logits.dtype, torch.float32)
    refined, first = refined_logits.to(dtype), first_logits.detach().to(dtype)
    if divergence == "l2":
        voxels = (refined.sigmoid() - first.sigmoid()).square()
    else:
        target = first.sigmoid()
        voxels = functional.binary_cross_entropy_with_logits(
            refined, target, reduction="none"
        ) - functional.binary_cross_entropy_with_logits(first, target, reduction="none")
    kept = ~edited
    total = voxels.masked_fill(edited, 0.0).flatten(2).sum(-1)
    return reduced(total / kept.flatten(2).sum(-1).clamp(min=1), reduction)


def check_options(divergence: Divergence, reduction: Reduction) -> None:
    """Raise unless the options of `consistency_loss` are known.

    Raises:
        ValueError: one is not.

    Example:
        >>> check_options("kl", "none")
    """
    if divergence not in ("l2", "kl"):
        message = f'divergence must be "l2" or "kl", but it is {divergence!r}.'
        raise ValueError(message)
    reduced(torch.zeros(1, 1), reduction)


class ConsistencyLoss(nn.Module):
    """`consistency_loss` with its options kept.

    Args:
        divergence: "l2" or "kl".
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: the divergence or the reduction is unknown.

    Example:
        >>> logits = torch.zeros(1, 1, 2, 2, 2)
        >>> ConsistencyLoss(divergence="kl")(logits, logits, logits > 0).item()
        0.0
    """

    def __init__(self, *, divergence: Divergence = "l2", reduction: Reduction = "mean") -> None:
        super().__init__()
        check_options(divergence, reduction)
        self.divergence: Divergence = divergence
        self.reduction: Reduction = reduction

    def forward(
        self,
        refined_logits: Float[Tensor, "b k *space"],
        first_logits: Float[Tensor, "b k *space"],
        edited: Bool[Tensor, "b k *space"],
    ) -> Float[Tensor, "*values"]:
        """The loss; see `consistency_loss`."""
        return consistency_loss(
            refined_logits, first_logits, edited, divergence=self.divergence, reduction=self.reduction
        )
