"""Prompts of every kind for SegVol on a small grid."""

from __future__ import annotations

import torch

SIZE = (16, 24, 40)


def whole(count: int, *, box: bool = True, seed: int = 0) -> dict:
    """Prompts of every kind for so many volumes of `SIZE`, reproducibly."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor(SIZE) - 1.0
    first, last = torch.rand(2, count, 3, generator=generator) * ends
    prompts = {
        "points": (
            torch.rand(count, 3, 3, generator=generator) * ends,
            torch.tensor([[1, 0, -1]]).expand(count, -1),
        ),
        "text": torch.randn(count, 96, generator=generator),
    }
    if box:
        prompts["boxes"] = torch.cat([torch.minimum(first, last), torch.maximum(first, last)], 1)
    return prompts
