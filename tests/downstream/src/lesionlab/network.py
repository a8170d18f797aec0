"""A coarse network that knows nothing of ultrarefiner but one dataclass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner.systems import register_part
from ultrarefiner.types import MultiScaleLogits


@register_part
class TwoScales(nn.Module):
    """Two convolutions, one at half the resolution, which also answers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.fine = nn.Conv2d(1, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, 1, 3, stride=2, padding=1)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> MultiScaleLogits:
        features: Tensor = torch.relu(self.fine(images))
        side: Tensor = self.coarse(features)
        logits: Tensor = self.last(features)
        return MultiScaleLogits(logits=logits, side_logits=(side,))

    def settings(self) -> dict[str, Any]:
        return {"network": "two scales", "width": self.width}
