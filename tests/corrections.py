"""Corrections that write something, and logits and clicks for them."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.types import Clicks

SIZES = {2: (9, 11), 3: (5, 7, 6)}


def correction(dimensions: int = 3, *, seed: int = 0, **options) -> GRUCorrection:
    """One whose heads are not 0."""
    torch.manual_seed(seed)
    made = GRUCorrection(**{"points": 6, "hidden": 10, "radius": 2.0, "dimensions": dimensions, **options}).double()
    for name, parameter in made.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def logits_and_clicks(dimensions: int, batch: int = 2, n: int = 3) -> tuple[Tensor, Clicks]:
    generator = torch.Generator().manual_seed(dimensions)
    size = SIZES[dimensions]
    logits = torch.randn(batch, 1, *size, generator=generator, dtype=torch.float64)
    positions = torch.stack([torch.randint(0, side, (batch, n), generator=generator) for side in size], -1)
    positive = torch.rand(batch, n, generator=generator) > 0.5
    return logits, Clicks(positions, positive, torch.ones(batch, n, dtype=torch.bool))


def nth(clicks: Clicks, n: int) -> Clicks:
    return Clicks(clicks.positions[:, n : n + 1], clicks.positive[:, n : n + 1], clicks.valid[:, n : n + 1])
