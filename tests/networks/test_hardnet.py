"""HarDNet: the published widths and counts, its links, sizes, batches, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import shapes
from torch.nn import functional

from ultrarefiner.networks import HarDBlock, build_hardnet
from ultrarefiner.networks.hardnet.blocks import harmonic_links


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return settled(build_hardnet("tiny"))


def settled(network: torch.nn.Module) -> torch.nn.Module:
    """In eval mode, with running statistics that are not the identity."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("size", "classifier", "expected"),
    [("hardnet85", 1280 * 1000 + 1000, 36_670_212), ("hardnet68", 1024 * 1000 + 1000, 17_565_348)],
)
def test_counts_with_the_classifier_are_the_published_ones(size, classifier, expected) -> None:
    with torch.device("meta"):
        assert parameters(build_hardnet(size, deepest=32)) + classifier == expected


def test_the_stage_at_32_holds_half_of_hardnet85() -> None:
    with torch.device("meta"):
        whole, half = build_hardnet(deepest=32), build_hardnet()
    assert parameters(whole) == 35_389_212
    assert parameters(whole) - parameters(half) == 17_505_664
    assert set(half.state_dict()) == {name for name in whole.state_dict() if not name.startswith("stages.3.")}


@pytest.mark.parametrize(
    ("size", "channels"), [("hardnet85", (192, 320, 720, 1280)), ("hardnet68", (128, 320, 640, 1024))]
)
def test_channels_and_strides(size, channels) -> None:
    with torch.device("meta"):
        network = build_hardnet(size, deepest=32)
        pyramid = network(torch.empty(1, 3, 64, 96))
    assert network.channels == channels
    assert network.strides == (4, 8, 16, 32)
    for features, width, stride in zip(pyramid, channels, network.strides, strict=True):
        assert features.shape == (1, width, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    ("entry", "inputs", "growth", "layers", "channels"), [(3, 96, 24, 8, 214), (13, 480, 48, 16, 784)]
)
def test_a_blocks_widths_are_the_published_ones(entry, inputs, growth, layers, channels) -> None:
    with torch.device("meta"):
        block = HarDBlock(inputs, growth=growth, layers=layers)
    published = shapes("autosam")
    ours = [list(layer.conv.weight.shape) for layer in block.layers]
    assert ours == [published[f"backbone.base.{entry}.layers.{index}.conv.weight"] for index in range(layers)]
    assert block.channels == channels


@given(layer=st.integers(1, 300))
def test_links_follow_the_powers_of_two(layer: int) -> None:
    expected = [layer - 2**power for power in range(10) if layer % 2**power == 0]
    assert list(harmonic_links(layer)) == expected


def test_a_block_is_its_layers_run_one_by_one() -> None:
    torch.manual_seed(0)
    block = settled(HarDBlock(5, growth=4, layers=4)).double()
    images = torch.rand(2, 5, 6, 7, dtype=torch.float64)

    def run(index: int, *seen: torch.Tensor) -> torch.Tensor:
        layer = block.layers[index]
        convolved = functional.conv2d(torch.cat(seen, 1), layer.conv.weight, padding=1)
        shape = (1, -1, 1, 1)
        norm = layer.norm
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        return ((convolved - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)).clamp(0, 6)

    first = run(0, images)
    second = run(1, first, images)
    third = run(2, second)
    fourth = run(3, third, second, images)
    torch.testing.assert_close(block(images), torch.cat([first, third, fourth], 1))


def test_gradient_of_a_block() -> None:
    torch.manual_seed(0)
    block = settled(HarDBlock(2, growth=2, layers=4)).double()
    images = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, images)

    def by_weight(weight):
        return torch.func.functional_call(block, {"layers.0.conv.weight": weight}, images.detach())

    assert torch.autograd.gradcheck(by_weight, block.layers[0].conv.weight)


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), channels=st.sampled_from([1, 3]))
@torch.no_grad()
def test_any_multiple_of_16(tiny, rows: int, columns: int, channels: int) -> None:
    images = torch.rand(2, channels, 16 * rows, 16 * columns)
    pyramid = tiny(images)
    for features, width, stride in zip(pyramid, tiny.channels, tiny.strides, strict=True):
        assert features.shape == (2, width, 16 * rows // stride, 16 * columns // stride)
    for whole, alone in zip(pyramid, tiny(images[1:]), strict=True):
        torch.testing.assert_close(whole[1:], alone)
    for grey, coloured in zip(pyramid, tiny(images.expand(2, 3, -1, -1)), strict=True):
        torch.testing.assert_close(grey, coloured)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = build_hardnet("tiny", deepest=32)
    sum(features.square().mean() for features in network(torch.rand(2, 3, 64, 64))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_settings_tell_sizes_apart() -> None:
    told = [build_hardnet("tiny", deepest=deepest).settings() for deepest in (16, 32)]
    assert told[0] == {"name": "tiny", "channels": [32, 48, 64], "strides": [4, 8, 16]}
    assert told[1]["strides"] == [4, 8, 16, 32]


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": "hardnet39"}, "size must be one of hardnet85, hardnet68, tiny, but it is 'hardnet39'"),
        ({"size": 85}, "size must be one of .* but it is 85"),
        ({"size": "tiny", "deepest": 64}, "deepest must be one of the strides 4, 8, 16, 32, but it is 64"),
    ],
)
def test_refusals(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_hardnet(**arguments)


@pytest.mark.parametrize("layers", [0, 3, 7])
def test_blocks_of_an_odd_length(layers) -> None:
    with pytest.raises(ValueError, match=f"layers must be even and at least 2, but it is {layers}; take"):
        HarDBlock(2, growth=2, layers=layers)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(3, 32, 32), r"images must be \(b, 1 or 3, h, w\)"),
        (torch.rand(1, 2, 32, 32), "must have 1 .grey. or 3 .RGB. channels"),
        (torch.rand(1, 3, 32, 40), "sides that are multiples of 16, but they are 32 x 40 pixels; resize or pad them"),
        (
            torch.rand(1, 3, 32, 32).double(),
            r"dtype of the network's weights, torch.float32, but theirs is torch.float64",
        ),
    ],
)
def test_refused_images(tiny, images, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny(images)
