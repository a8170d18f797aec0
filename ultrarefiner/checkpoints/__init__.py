"""The only room that reads or writes weights: strict loading, atomic writing, nothing executed."""

from __future__ import annotations

from ultrarefiner.checkpoints.downloading import cache_folder, download
from ultrarefiner.checkpoints.efficientnet_lite import efficientnet_lite0_file
from ultrarefiner.checkpoints.files import read_tensors, write_tensors
from ultrarefiner.checkpoints.known_files import KNOWN_FILES, KnownFile
from ultrarefiner.checkpoints.layouts import LAYOUTS, Layout
from ultrarefiner.checkpoints.weights import LoadReport, from_official, load_weights

__all__ = [
    "KNOWN_FILES",
    "LAYOUTS",
    "KnownFile",
    "Layout",
    "LoadReport",
    "cache_folder",
    "download",
    "efficientnet_lite0_file",
    "from_official",
    "load_weights",
    "read_tensors",
    "write_tensors",
]
