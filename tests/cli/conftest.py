"""What the commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_systems import tiny_transunet

import ultrarefiner as ur
from ultrarefiner.data import Phantoms


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pair, of which the coarse masks are neither empty nor full."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        refiner = ur.SAMRefiner(ur.build_sam("tiny", image_size=64), cropper=ur.ROICropper())
        model = ur.UltraRefiner(coarse=tiny_transunet(), refiner=refiner, gate=ur.UncertaintyGate(), frame=64).eval()
        logits = model.coarse(Phantoms(1, size=(64, 64))[0].image[None])
        with torch.no_grad():
            [*model.coarse.parameters()][-1].sub_(logits.quantile(0.7))
    return model.save_pretrained(tmp_path_factory.mktemp("pair"))
