"""Acceptance: a refined mask that is not credible is given up for the coarse one, mask by mask."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.ops.overlap import dice_coefficient


class AcceptanceRule(nn.Module):
    """Keep the coarse mask where SAM doubts its own, or where the two hardly agree.

    A refined mask is accepted if SAM's estimate of its intersection over union reaches ``minimum_iou`` and its Dice
    with the coarse mask, both at one half, reaches ``minimum_agreement``. Where one of the two is empty they do not
    agree at all; two empty masks agree fully. What is not accepted comes back as the coarse network made it, to the
    bit, so that on those images nothing can become worse.

    The rule has no gradient and nothing to learn; `UltraRefiner` asks it in evaluation mode only.

    Args:
        minimum_iou: lowest estimate of SAM's, in [0, 1]; 0 asks for nothing.
        minimum_agreement: lowest Dice with the coarse mask, in [0, 1]; 0 asks for nothing.

    Raises:
        ValueError: a number outside [0, 1].

    Example:
        >>> coarse = torch.zeros(1, 2, 8, 8)
        >>> coarse[..., 2:6, 2:6] = 1.0
        >>> refined = coarse.clone()
        >>> refined[0, 1] = refined[0, 1].roll(4)
        >>> AcceptanceRule(minimum_agreement=0.3)(coarse, refined, torch.ones(1, 2))
        tensor([[ True, False]])
    """

    def __init__(self, *, minimum_iou: float = 0.0, minimum_agreement: float = 0.0) -> None:
        super().__init__()
        for name, number in (("minimum_iou", minimum_iou), ("minimum_agreement", minimum_agreement)):
            if not 0 <= number <= 1:
                message = f"{name} must be in [0, 1], but it is {number}; 0 accepts every mask."
                raise ValueError(message)
        self.minimum_iou = minimum_iou
        self.minimum_agreement = minimum_agreement

    def forward(
        self,
        coarse_probability: Float[Tensor, "b k h w"],
        refined_probability: Float[Tensor, "b k h w"],
        iou: Float[Tensor, "b k"],
    ) -> Bool[Tensor, "b k"]:
        """Which refined masks are taken.

        Args:
            coarse_probability: the coarse network's masks, in [0, 1].
            refined_probability: the refined masks on the same pixels, in [0, 1].
            iou: SAM's estimate of each refined mask's intersection over union.

        Returns:
            True where the refined mask is taken.
        """
        with torch.no_grad():
            first, second = ((mask >= 0.5).float() for mask in (coarse_probability, refined_probability))
            agreement = dice_coefficient(first, second)
            return (iou.clamp(min=0) >= self.minimum_iou) & (agreement >= self.minimum_agreement)

    def settings(self) -> dict[str, Any]:
        """The rule as plain values."""
        return {"minimum_iou": self.minimum_iou, "minimum_agreement": self.minimum_agreement}

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"minimum_iou={self.minimum_iou}, minimum_agreement={self.minimum_agreement}"
