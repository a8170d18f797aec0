"""The layout of the published correction blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import shapes
from torch import nn

import ultrarefiner.checkpoints as weights
from ultrarefiner.refinement import PublishedGRUBlock


def blocks(count: int) -> nn.ModuleList:
    return nn.ModuleList(PublishedGRUBlock(points=2, hidden=4) for _ in range(count))


def test_five_blocks_load_from_a_training_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = blocks(5)
    state = {f"module.model.gru_blocks.{name}": tensor for name, tensor in published.state_dict().items()}
    state["module.model.image_encoder.norm.weight"] = torch.ones(3)
    torch.save({"epoch": 3, "model_state_dict": state, "loss": 0.1}, tmp_path / "gru.pth")
    ours = blocks(5)
    report = weights.load_weights(ours, tmp_path / "gru.pth", layout="segvol_gru")
    assert set(report.loaded) == set(published.state_dict())
    assert list(report.left_out) == ["image_encoder.norm.weight"]
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in published.state_dict().items())
    with pytest.raises(ValueError, match="of its 24 tensors 24 fit, 6 unknown"):
        weights.load_weights(blocks(4), tmp_path / "gru.pth", layout="segvol_gru")


def test_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        ours = PublishedGRUBlock().state_dict()
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == shapes("gru_block")
    with pytest.raises(ValueError, match="1 of 1 tensors have no place in a checkpoint of SegVol-GRU-Correction"):
        weights.from_official("segvol_gru", {"model.gru_blocks.0.fc_coords.weight": torch.ones(1)})
