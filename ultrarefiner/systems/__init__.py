"""One thin file a published system, wiring only."""

from __future__ import annotations

from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner

__all__ = ["SAMRefiner", "UltraRefiner"]
