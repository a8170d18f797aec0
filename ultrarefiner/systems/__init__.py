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
from ultrarefiner.systems.known_parts import register_known_parts
from ultrarefiner.systems.onnx_export import OnnxExport, export_onnx
from ultrarefiner.systems.packaged import load_pretrained, packaged_models
from ultrarefiner.systems.part_kinds import register_part
from ultrarefiner.systems.placement import prompts_on_image
from ultrarefiner.systems.pretrained_system import PretrainedSystem
from ultrarefiner.systems.prompted import segment_prompted
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner
from ultrarefiner.systems.volume_segmenter import VolumeSegmenter
from ultrarefiner.systems.volume_state import VolumeState

register_known_parts()

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
    "OnnxExport",
    "PretrainedSystem",
    "PromptedNetwork",
    "SAMRefiner",
    "UltraRefiner",
    "VolumeSegmenter",
    "VolumeState",
    "build_autosam_generator",
    "export_onnx",
    "legacy_autosam",
    "load_pretrained",
    "next_round",
    "packaged_models",
    "prompts_on_image",
    "register_part",
    "segment_prompted",
]
