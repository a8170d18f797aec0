"""One thin file a published system, wiring only."""

from __future__ import annotations

from ultrarefiner.systems.at_size import AtSize
from ultrarefiner.systems.placement import prompts_on_image
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner

__all__ = ["AtSize", "SAMRefiner", "UltraRefiner", "prompts_on_image"]
