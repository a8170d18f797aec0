"""Selection: one mask out of SAM's candidates, before anything is upsampled."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.types import MaskCandidates


class SoftSelection(nn.Module):
    r"""The candidates' logits weighted by :math:`\mathrm{softmax}(\mathrm{IoU} / \tau)`.

    Differentiable in the logits and in SAM's IoU estimates. The published temperature is 0.1; towards 0 it becomes
    `BestSelection`, towards infinity the plain mean.

    Args:
        temperature: tau, above 0.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> candidates = MaskCandidates(torch.randn(1, 1, 3, 8, 8), torch.tensor([[[0.1, 0.9, 0.5]]]))
        >>> logits, iou = SoftSelection()(candidates)
        >>> logits.shape, round(iou.item(), 2)
        (torch.Size([1, 1, 8, 8]), 0.89)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            message = (
                f"temperature must be above 0, but it is {temperature}; for the best candidate use BestSelection()."
            )
            raise ValueError(message)
        self.temperature = temperature

    def forward(self, candidates: MaskCandidates) -> tuple[Float[Tensor, "b k low_h low_w"], Float[Tensor, "b k"]]:
        """The weighted logits and the weighted IoU estimate."""
        share = torch.softmax(candidates.iou / self.temperature, -1)
        return (share[..., None, None] * candidates.logits).sum(2), (share * candidates.iou).sum(-1)

    def settings(self) -> dict[str, Any]:
        """The selection as plain values."""
        return {"selection": "soft", "temperature": self.temperature}

    def extra_repr(self) -> str:
        """The constructor's argument."""
        return f"temperature={self.temperature}"


class BestSelection(nn.Module):
    """The candidate that SAM believes best; the gradient flows through that one alone, and none to the choice.

    Example:
        >>> candidates = MaskCandidates(torch.randn(1, 1, 3, 8, 8), torch.tensor([[[0.1, 0.9, 0.5]]]))
        >>> bool((BestSelection()(candidates)[0] == candidates.logits[:, :, 1]).all())
        True
    """

    def forward(self, candidates: MaskCandidates) -> tuple[Float[Tensor, "b k low_h low_w"], Float[Tensor, "b k"]]:
        """The best candidate's logits and IoU estimate."""
        best = candidates.iou.argmax(-1, keepdim=True)
        index = best[..., None, None].expand(*best.shape, *candidates.logits.shape[-2:])
        return candidates.logits.gather(2, index).squeeze(2), candidates.iou.gather(-1, best).squeeze(-1)

    def settings(self) -> dict[str, Any]:
        """The selection as plain values."""
        return {"selection": "best"}
