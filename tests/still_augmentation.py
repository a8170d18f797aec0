"""An augmentation that changes nothing, to switch on one knob at a time."""

from __future__ import annotations

from typing import Any

import torch

STILL: dict[str, Any] = {
    "flip": 0.0,
    "rotation": 0.0,
    "scale": (1.0, 1.0),
    "translation": 0.0,
    "gamma": (1.0, 1.0),
    "gain": (1.0, 1.0),
    "speckle": 0.0,
    "blur": 0.0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
