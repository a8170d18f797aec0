"""Overlap of two masks: Dice, per mask and never over the flattened batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def dice_coefficient(
    first: Float[Tensor, "b k h w"], second: Float[Tensor, "b k h w"], *, smooth: float = 0.0
) -> Float[Tensor, "b k"]:
    r"""Dice coefficient of each pair of masks, soft or hard.

    .. math:: D = \frac{2 \sum_i a_i b_i + s}{\sum_i a_i + \sum_i b_i + s}

    Two empty masks agree: with ``smooth=0`` their Dice is 1, not 0/0.

    Args:
        first: masks in [0, 1].
        second: masks in [0, 1].
        smooth: the constant s, in pixels; positive values give an empty pair Dice 1 with a gradient.

    Returns:
        One value a mask, in [0, 1].

    Example:
        >>> import torch
        >>> dice_coefficient(torch.ones(1, 1, 2, 2), torch.eye(2)[None, None]).item()
        0.666...
    """
    intersection = (first * second).sum((-2, -1))
    total = first.sum((-2, -1)) + second.sum((-2, -1))
    both_empty = (total + smooth) == 0
    dice = (2 * intersection + smooth) / (total + smooth).masked_fill(both_empty, 1.0)
    return dice.masked_fill(both_empty, 1.0)
