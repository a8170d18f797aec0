"""The small parts around SAM: the region it looks at, the selection of its masks, the gate to the final mask."""

from __future__ import annotations

from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.refinement.gates import Gate, LearnedGate, ProductGate, UncertaintyGate, blend
from ultrarefiner.refinement.roi import ROICropper
from ultrarefiner.refinement.selection import BestSelection, SoftSelection

__all__ = [
    "BestSelection",
    "Gate",
    "LearnedGate",
    "ProductGate",
    "ROICropper",
    "SoftSelection",
    "UncertaintyGate",
    "blend",
    "finite_logit",
]
