"""The only room that reads or writes weights: strict loading, atomic writing, nothing executed."""

from __future__ import annotations

from ultrarefiner.checkpoints.files import read_tensors, write_tensors
from ultrarefiner.checkpoints.layouts import LAYOUTS, Layout
from ultrarefiner.checkpoints.weights import LoadReport, from_official, load_weights

__all__ = ["LAYOUTS", "Layout", "LoadReport", "from_official", "load_weights", "read_tensors", "write_tensors"]
