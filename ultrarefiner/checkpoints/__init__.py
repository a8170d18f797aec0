"""The only room that reads or writes weights: strict loading, atomic writing, nothing executed."""

from __future__ import annotations

from ultrarefiner.checkpoints.downloading import cache_folder, download
from ultrarefiner.checkpoints.efficientnet_lite import efficientnet_lite0_file
from ultrarefiner.checkpoints.files import read_tensors, write_tensors
from ultrarefiner.checkpoints.huggingface_folder import write_huggingface_sam
from ultrarefiner.checkpoints.huggingface_sam import to_huggingface_sam
from ultrarefiner.checkpoints.known_files import KNOWN_FILES, KnownFile
from ultrarefiner.checkpoints.layouts import LAYOUTS, Layout
from ultrarefiner.checkpoints.pretrained import SavedSystem, read_pretrained, write_pretrained
from ultrarefiner.checkpoints.pretrained_source import pretrained_folder
from ultrarefiner.checkpoints.pretrained_tensors import fill_strictly
from ultrarefiner.checkpoints.weights import LoadReport, from_official, load_weights

__all__ = [
    "KNOWN_FILES",
    "LAYOUTS",
    "KnownFile",
    "Layout",
    "LoadReport",
    "SavedSystem",
    "cache_folder",
    "download",
    "efficientnet_lite0_file",
    "fill_strictly",
    "from_official",
    "load_weights",
    "pretrained_folder",
    "read_pretrained",
    "read_tensors",
    "to_huggingface_sam",
    "write_huggingface_sam",
    "write_pretrained",
    "write_tensors",
]
