"""How sure a soft mask is of itself: one number a mask."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def soft_dice_confidence(probability: Float[Tensor, "*masks h w"], threshold: float = 0.5) -> Float[Tensor, "*masks"]:
    r"""The Dice that a mask's own probabilities promise to the mask drawn at a threshold.

    With :math:`m_i = 1` where the probability :math:`p_i` reaches the threshold,

    .. math:: C = \frac{2 \sum_i m_i p_i}{\sum_i m_i + \sum_i p_i}

    which is close to the expected Dice between the drawn mask and the truth, if the probabilities are right and pixels
    are independent. It says nothing about a network that is sure and wrong.

    An empty mask has no such Dice. Its confidence is :math:`1 - \max_i p_i`, the probability that there is nothing if
    all pixels stand or fall together (and never less than the probability that there is nothing if they do not).

    Args:
        probability: soft masks in [0, 1].
        threshold: probability in (0, 1) from which on a pixel is lesion.

    Returns:
        One number in [0, 1] a mask, float32.

    Example:
        >>> sure, unsure = torch.tensor([[[1.0, 0.0]], [[0.6, 0.4]]])
        >>> soft_dice_confidence(sure).item(), round(soft_dice_confidence(unsure).item(), 2)
        (1.0, 0.6)
        >>> round(soft_dice_confidence(torch.full((1, 2), 0.1)).item(), 2)
        0.9

    References:
        Borges, Pacheco, Silva: Soft Dice Confidence: A Near-Optimal Confidence Estimator for Selective Prediction in
        Semantic Segmentation. arXiv 2402.10665.
    """
    inside = probability >= threshold
    drawn = inside.sum((-2, -1), dtype=torch.float64)
    total = probability.sum((-2, -1), dtype=torch.float64)
    overlap = probability.where(inside, 0.0).sum((-2, -1), dtype=torch.float64)
    empty = drawn == 0
    dice = 2 * overlap / (drawn + total).masked_fill(empty, 1.0)
    nothing = 1 - probability.amax((-2, -1)).double()
    return dice.where(~empty, nothing).clamp(0, 1).float()
