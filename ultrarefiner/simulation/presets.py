"""Mixtures of errors by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ultrarefiner.simulation.edits import (
    BoundaryRoughness,
    Bridge,
    ContourNoise,
    Edit,
    Empty,
    Fragmentation,
    GiantOverSegmentation,
    InternalHoles,
    Islands,
    MissingChunk,
    OverSegmentation,
    PartialCollapse,
    ScatterOnly,
    Shift,
    UnderSegmentation,
)


@dataclass(frozen=True)
class Preset:
    """A mixture.

    Attributes:
        edits: kinds of errors and their relative frequencies.
        complete: kinds of complete failures and theirs.
        complete_share: share of complete failures.
        bins: (low, high, share) of Dice; None for the default ones.
    """

    edits: Mapping[Edit, float]
    complete: Mapping[Edit, float]
    complete_share: float = 0.0
    bins: tuple[tuple[float, float, float], ...] | None = None


# Shift comes first and does not move what follows; cuts and holes come before what is added, which they would cut, too.
_ORDER = (
    Shift,
    OverSegmentation,
    UnderSegmentation,
    ContourNoise,
    BoundaryRoughness,
    MissingChunk,
    InternalHoles,
    Fragmentation,
    Bridge,
    Islands,
)


def _mixture(*frequencies: float) -> dict[Edit, float]:
    return {kind(): frequency for kind, frequency in zip(_ORDER, frequencies, strict=True) if frequency}


_COMPLETE: dict[Edit, float] = {
    GiantOverSegmentation(): 0.4,
    PartialCollapse(): 0.25,
    Empty(): 0.15,
    ScatterOnly(): 0.2,
}

PRESETS = {
    "default": Preset(_mixture(0.10, 0.17, 0.17, 0.15, 0.10, 0.12, 0.10, 0.10, 0.10, 0.17), _COMPLETE),
    "mild": Preset(
        _mixture(0.05, 0.15, 0.15, 0.25, 0.15, 0.10, 0.08, 0.05, 0.05, 0.08),
        _COMPLETE,
        bins=((0.80, 0.90, 0.4), (0.90, 0.99, 0.6)),
    ),
    "severe": Preset(
        _mixture(0.10, 0.15, 0.15, 0.10, 0.05, 0.15, 0.12, 0.12, 0.10, 0.15),
        _COMPLETE,
        complete_share=0.10,
        bins=((0.40, 0.60, 0.25), (0.60, 0.80, 0.50), (0.80, 0.90, 0.25)),
    ),
    "boundary": Preset(_mixture(0.05, 0.25, 0.25, 0.25, 0.20, 0.0, 0.0, 0.0, 0.0, 0.0), _COMPLETE),
    "structural": Preset(_mixture(0.0, 0.05, 0.05, 0.05, 0.0, 0.20, 0.20, 0.15, 0.20, 0.15), _COMPLETE),
}
"""The mixtures by name, as `FailureSimulator.preset` knows them."""
