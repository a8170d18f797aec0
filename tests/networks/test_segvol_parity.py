"""SegVol's published answers, number for number, at full size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published import ORACLES, checkpoint, images, shapes
from torch import Tensor

import ultrarefiner.checkpoints
from ultrarefiner.networks import SegVolTextEncoder, build_segvol

BOX = {"boxes": torch.tensor([[4.0, 40, 60, 20, 180, 200]])}
POINTS = {"points": (torch.tensor([[[10.0, 100, 120], [2, 20, 30]]]), torch.tensor([[1, 0]]))}


def text() -> Tensor:
    """Drawn after the volume, from the same generator."""
    generator = np.random.RandomState(7)
    generator.rand(1, 1, 32, 256, 256)
    return torch.from_numpy(generator.standard_normal((1, 768)).astype(np.float32))


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        segvol = build_segvol("base")
    state = {f"model.{name}": tensor for name, tensor in checkpoint("segvol").items()}
    segvol.load_state_dict(ultrarefiner.checkpoints.from_official("segvol", state), assign=True)
    return segvol.eval()


@torch.no_grad()
def test_segvol_answers_as_published(network) -> None:
    with np.load(ORACLES / "segvol.npz") as arrays:
        theirs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def error(ours: Tensor, name: str) -> float:
        assert ours.shape == theirs[name].shape
        return float((ours - theirs[name]).abs().max() / theirs[name].abs().max())

    embedding = network.encode(images(1, 1, 32, 256, 256))
    assert error(embedding[:, ::64], "embedding") < 1e-5
    for name, prompts in (("box", BOX), ("points", POINTS), ("box_points_text", {**BOX, **POINTS, "text": text()})):
        assert error(network.prompt_encoder(**prompts), f"{name}_sparse") < 1e-4
        answer = network.decode(embedding, **prompts)
        assert answer.mask_logits.shape == (1, 1, 32, 64, 64)
        assert error(answer.mask_logits[..., ::2, ::2, ::2], f"{name}_masks") < 1e-4
        assert error(answer.iou, f"{name}_iou") < 1e-4
    network.prompt_encoder.pe_layer.order = "aligned"  # the numbers above would notice
    assert error(network.prompt_encoder(**BOX), "box_sparse") > 0.1


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    published = shapes("segvol")
    matrix = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"  # a buffer
    counts = {name: int(np.prod(shape)) for name, shape in published.items() if name != matrix}
    assert sum(counts.values()) == 117_330_128
    dead = sum(count for name, count in counts.items() if ".mask_downscaling." in name)
    assert dead == 13_388
    with torch.device("meta"):
        segvol = build_segvol()
    assert parameters(segvol) == 117_330_128 - dead
    assert parameters(segvol.image_encoder) == 87_388_416
    assert parameters(segvol.mask_decoder) == 29_923_716
    assert parameters(segvol.prompt_encoder) == 17_996 - dead
    ours = {name: list(tensor.shape) for name, tensor in segvol.state_dict().items()}
    assert ours == {name: shape for name, shape in published.items() if ".mask_downscaling." not in name}


def test_parameter_counts_with_the_text_encoder() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        segvol = build_segvol(text_encoder=SegVolTextEncoder())
    assert parameters(segvol.text_encoder) == 63_559_936
    assert parameters(segvol) == 180_890_064 - 13_388
