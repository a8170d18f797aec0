"""One thin file a published system, wiring only."""

from __future__ import annotations

from ultrarefiner.systems.at_size import AtSize
from ultrarefiner.systems.automedsam import AutoMedSAM
from ultrarefiner.systems.autosam import AutoSAM, MinMaxLogits, legacy_autosam
from ultrarefiner.systems.autosam_generator import build_autosam_generator
from ultrarefiner.systems.autosam_light import LightAutoSAM
from ultrarefiner.systems.click_rounds import ClickRound, PromptedNetwork, next_round
from ultrarefiner.systems.corrected_network import CorrectedNetwork, NetworkAnswer
from ultrarefiner.systems.image_segmenter import ImageSegmenter, ImageState
from ultrarefiner.systems.interactive import Interaction, InteractiveModel, InteractiveSession
from ultrarefiner.systems.placement import prompts_on_image
from ultrarefiner.systems.prompted import segment_prompted
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner
from ultrarefiner.systems.volume_segmenter import VolumeSegmenter
from ultrarefiner.systems.volume_state import VolumeState

__all__ = [
    "AtSize",
    "AutoMedSAM",
    "AutoSAM",
    "ClickRound",
    "CorrectedNetwork",
    "ImageSegmenter",
    "ImageState",
    "Interaction",
    "InteractiveModel",
    "InteractiveSession",
    "LightAutoSAM",
    "MinMaxLogits",
    "NetworkAnswer",
    "PromptedNetwork",
    "SAMRefiner",
    "UltraRefiner",
    "VolumeSegmenter",
    "VolumeState",
    "build_autosam_generator",
    "legacy_autosam",
    "next_round",
    "prompts_on_image",
    "segment_prompted",
]
