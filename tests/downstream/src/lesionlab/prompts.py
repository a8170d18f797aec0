"""A point rule, and a prompt source of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner import DifferentiablePromptExtractor, Prompts
from ultrarefiner.ops import Frame, pixel_centres
from ultrarefiner.prompts import MaskGeometry, PointChoice, PointRule
from ultrarefiner.systems import register_part


@dataclass(frozen=True)
class SoftArgmax:
    """The mean of positions, weighted by exp(P / temperature)."""

    temperature: float = 0.05

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        weight = geometry.weight
        share = torch.softmax(weight.flatten(-2) / self.temperature, -1).view_as(weight)
        x = (share.sum(-2) * pixel_centres(weight.shape[-1], weight)).sum(-1)
        y = (share.sum(-1) * pixel_centres(weight.shape[-2], weight)).sum(-1)
        return PointChoice(torch.stack([x, y], -1), geometry.moments.mass > 0)


@register_part
class CornerPrompts(nn.Module):
    """The library's prompts, with the box moved outwards by a margin that is learnt."""

    def __init__(self, *, image_size: int, start: float = 0.1) -> None:
        super().__init__()
        self.image_size = image_size
        self.start = start
        rule: PointRule = SoftArgmax()
        self.extractor = DifferentiablePromptExtractor(image_size=image_size, positive=rule, negative=None)
        self.margin = nn.Parameter(torch.tensor(start))

    def forward(self, probability: Tensor, frame: Frame | None = None) -> Prompts:
        prompts: Prompts = self.extractor(probability, frame)
        if prompts.boxes is None:
            return prompts
        low, high = prompts.boxes[..., :2], prompts.boxes[..., 2:]
        move = self.margin * (high - low)
        return replace(prompts, boxes=torch.cat([low - move, high + move], -1))

    def settings(self) -> dict[str, Any]:
        return {"prompts": "corners", "extractor": self.extractor.settings()}
