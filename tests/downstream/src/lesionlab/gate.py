"""A gate of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ultrarefiner.ops import signed_distance
from ultrarefiner.refinement import Gate, ProductGate, UncertaintyGate
from ultrarefiner.systems import register_part


@register_part
class DistanceGate(nn.Module):
    """Trust SAM near the coarse mask's border only."""

    def __init__(self, *, reach: float = 4.0) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, images: Tensor, coarse_probability: Tensor, refined_probability: Tensor) -> Tensor:
        del images, refined_probability
        distance = signed_distance(coarse_probability >= 0.5)
        return (1 - distance.abs().to(coarse_probability.dtype) / self.reach).clamp(0, 1)

    def settings(self) -> dict[str, Any]:
        return {"gate": "distance", "reach": self.reach}


def near_and_unsure(reach: float) -> ProductGate:
    """Both at once."""
    gate: Gate = DistanceGate(reach=reach)
    if not isinstance(gate, DistanceGate):
        raise TypeError(type(gate))
    return ProductGate(UncertaintyGate(), gate)
