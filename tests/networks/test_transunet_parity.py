"""The published networks' answers, number for number, at full size."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from published import answers, checkpoint, imagenet, images, shapes
from torch import Tensor

import ultrarefiner as ur


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_transunet_answers_as_published(tmp_path: Path) -> None:
    state = checkpoint("transunet_r50_vit_b16")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "epoch_149.pth")
    network = ur.build_transunet(classes=2).eval()
    report = ur.load_weights(network, tmp_path / "epoch_149.pth", layout="transunet")
    assert set(report.loaded) == set(network.state_dict())
    assert not report.left_out
    assert not report.resized
    assert not report.kept
    seen = images(2, 1, 224, 224)
    (theirs,) = answers("transunet_r50_vit_b16")
    logits = network(seen)
    assert error(logits[:, :, ::2, ::2], theirs) < 1e-5
    lesion = ur.ForegroundLogits(network)(seen)
    torch.testing.assert_close(lesion.sigmoid(), logits.softmax(1)[:, 1:])


@torch.no_grad()
def test_transunet_answers_as_published_after_an_imagenet_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "R50+ViT-B_16.npz", **imagenet(), cls=np.zeros((1, 1, 768), np.float32))
    state = checkpoint("transunet_r50_vit_b16")
    torch.save(state, tmp_path / "drawn.pth")
    network = ur.build_transunet(classes=2).eval()
    ur.load_weights(network, tmp_path / "drawn.pth", layout="transunet")
    decoder = network.decoder.stages[0].conv1[0].weight.clone()
    report = ur.load_weights(network, tmp_path / "R50+ViT-B_16.npz", layout="vit_npz")
    assert torch.equal(decoder, network.decoder.stages[0].conv1[0].weight)
    assert set(report.left_out) == {"cls", "Transformer/posembed_input/pos_embedding[:, 0]"}
    assert set(report.loaded) | set(report.kept) == set(network.state_dict())
    assert all(name.startswith(("decoder.", "head.")) for name in report.kept)
    (theirs,) = answers("transunet_after_npz")
    assert error(network(images(2, 1, 224, 224))[:, :, ::2, ::2], theirs) < 1e-5


@torch.no_grad()
def test_microsegnet_answers_as_published(tmp_path: Path) -> None:
    torch.save({"model": checkpoint("microsegnet_r50_vit_b16")}, tmp_path / "epoch_9.pth")
    network = ur.build_microsegnet().eval()
    report = ur.load_weights(network, tmp_path / "epoch_9.pth", layout="microsegnet")
    assert set(report.loaded) == set(network.state_dict())
    answer = network(images(2, 1, 224, 224))
    last, eighth, quarter, half = answers("microsegnet_r50_vit_b16")
    assert error(answer.logits[:, :, ::2, ::2], last) < 1e-5
    for ours, theirs in zip(answer.side_logits, (eighth, quarter, half), strict=True):
        step = ours.shape[-1] // theirs.shape[-1]
        assert error(ours[:, :, ::step, ::step], theirs) < 3e-5


def test_the_benchmarks_plain_graph_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    plain = importlib.import_module("plain_transunet").PlainTransUNet().eval()
    assert {name: list(tensor.shape) for name, tensor in plain.state_dict().items()} == shapes("transunet_r50_vit_b16")
    ours = ur.build_transunet(classes=2).eval()
    ours.load_state_dict(ur.checkpoints.from_official("transunet", plain.state_dict()))
    seen = images(1, 1, 224, 224)
    with torch.no_grad():
        assert error(ours(seen), plain(seen)) < 1e-5


@pytest.mark.parametrize(("classes", "deep_supervision", "expected"), [(2, False, 105_276_066), (1, True, 105_279_956)])
def test_parameter_counts(classes: int, deep_supervision: bool, expected: int) -> None:
    with torch.device("meta"):
        network = ur.build_transunet(classes=classes, deep_supervision=deep_supervision)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
