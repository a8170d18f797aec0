"""The boundary loss: every voxel pays for being on the wrong side by its distance to the true surface."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.per_mask import Reduction, reduced
from ultrarefiner.ops.distance import signed_distance


def boundary_loss(
    logits: Float[Tensor, "b k *space"],
    target: Float[Tensor, "b t *space"],
    *,
    spacing: Sequence[float] | None = None,
    limit: float | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""The mean distance by which a soft mask is on the wrong side of the true surface.

    .. math:: L = \frac{1}{N} \sum_i \phi_i\, (p_i - t_i), \qquad p = \sigma(z)

    :math:`\phi` is the `signed_distance` of the truth, negative inside. Up to the term :math:`-\phi_i t_i`, which is
    constant, it is Kervadec's loss and has its gradient :math:`\phi_i / N`; with that term it is at least 0, and 0 for
    the true mask. It stands beside a loss of regions, for alone it is content with an empty mask for long. A mask that
    is empty or full in truth has no surface: its value is 0, with a gradient of 0.

    Args:
        logits: of masks in 2-D or 3-D.
        target: the true masks; above 0.5 is inside. (b, 1, ...) is the truth of all k masks, measured once.
        spacing: size of a voxel along each axis, in the mask's order; None is 1 along each.
        limit: distances beyond it count as it, so that far voxels do not outweigh the border; None for no limit.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in the units of the spacing, in float32 or wider.

    Raises:
        ValueError: shapes do not fit, they are neither 2-D nor 3-D, a spacing or the limit is not positive, or the
            reduction is unknown.

    Example:
        >>> target = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
        >>> far, near = (torch.tensor([[[[z, y, 100.0, 100.0]]]]) for z, y in ((100.0, -100.0), (-100.0, 100.0)))
        >>> boundary_loss(far, target).item(), boundary_loss(near, target).item()
        (0.375, 0.125)

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019.
    """
    if target.shape not in (logits.shape, (len(logits), 1, *logits.shape[2:])):
        message = (
            f"target must have the shape of logits, {tuple(logits.shape)}, or one mask for all of an image's, but its "
            f"shape is {tuple(target.shape)}."
        )
        raise ValueError(message)
    check_options(spacing, limit, reduction)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    inside = target > 0.5
    distance = signed_distance(inside, spacing).to(dtype)
    distance = distance.masked_fill(distance.isinf(), 0.0)
    if limit is not None:
        distance = distance.clamp(-limit, limit)
    wrong = logits.to(dtype).sigmoid() - inside.to(dtype)
    return reduced((distance * wrong).flatten(2).mean(-1), reduction)


def check_options(spacing: Sequence[float] | None, limit: float | None, reduction: Reduction) -> None:
    """Raise unless the options of `boundary_loss` are what it takes; whether the spacing fits a mask is seen later.

    Raises:
        ValueError: spacing is not None, 2 or 3 positive numbers, limit not None or positive, or the reduction unknown.

    Example:
        >>> check_options((2.0, 1.0, 1.0), 3.0, "mean")
    """
    if spacing is not None and not (len(spacing) in (2, 3) and all(0 < step < math.inf for step in spacing)):
        message = (
            "spacing must hold one positive, finite number for each of 2 or 3 axes, in the mask's order, or be "
            f"None, but it is {tuple(spacing)}."
        )
        raise ValueError(message)
    if limit is not None and not (limit > 0 and math.isfinite(limit)):
        message = f"limit must be a positive distance, or None for no limit, but it is {limit}."
        raise ValueError(message)
    reduced(torch.zeros(1, 1), reduction)


class BoundaryLoss(nn.Module):
    """`boundary_loss` with its options kept.

    Args:
        spacing: see `boundary_loss`.
        limit: see `boundary_loss`.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Raises:
        ValueError: a spacing or the limit is not positive, or the reduction is unknown.

    Example:
        >>> BoundaryLoss(limit=5.0)(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)).item()
        0.0
    """

    def __init__(
        self, *, spacing: Sequence[float] | None = None, limit: float | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_options(spacing, limit, reduction)
        self.spacing = None if spacing is None else tuple(spacing)
        self.limit = limit
        self.reduction: Reduction = reduction

    def forward(
        self, logits: Float[Tensor, "b k *space"], target: Float[Tensor, "b t *space"]
    ) -> Float[Tensor, "*values"]:
        """The loss; see `boundary_loss`."""
        return boundary_loss(logits, target, spacing=self.spacing, limit=self.limit, reduction=self.reduction)
