"""A small SegVol, and what it makes of three volumes."""

from __future__ import annotations

import pytest
import torch
from prompted_volumes import SIZE

from ultrarefiner.networks import build_segvol


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_segvol("tiny", volume_size=SIZE).eval()


@pytest.fixture(scope="module")
def embedding(network):
    torch.manual_seed(1)
    with torch.no_grad():
        return network.encode(torch.rand(3, 1, *SIZE))
