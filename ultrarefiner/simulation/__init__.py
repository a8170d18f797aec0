"""Segmentation failures: soft masks such as a coarse network might have made, from true ones."""

from ultrarefiner.simulation.blur import gaussian_blur
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
from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.presets import PRESETS, Preset
from ultrarefiner.simulation.random_field import random_field
from ultrarefiner.simulation.resolution import AtResolution, mask_at_size, probability_at_size
from ultrarefiner.simulation.simple import FailureParameters, SimpleFailures, simulate_failures
from ultrarefiner.simulation.simulator import DEFAULT_BINS, DiceBin, FailureSimulator, SimulatedMasks

__all__ = [
    "DEFAULT_BINS",
    "PRESETS",
    "AtResolution",
    "BoundaryRoughness",
    "Bridge",
    "ContourNoise",
    "DiceBin",
    "Edit",
    "Empty",
    "FailureParameters",
    "FailureSimulator",
    "Fragmentation",
    "GiantOverSegmentation",
    "InternalHoles",
    "Islands",
    "Lesions",
    "MissingChunk",
    "OverSegmentation",
    "PartialCollapse",
    "Preset",
    "ScatterOnly",
    "Shift",
    "SimpleFailures",
    "SimulatedMasks",
    "UnderSegmentation",
    "gaussian_blur",
    "mask_at_size",
    "probability_at_size",
    "random_field",
    "simulate_failures",
]
