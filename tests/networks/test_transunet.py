"""TransUNet's own promises: sizes, colours, batches, attention, settings, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import ultrarefiner as ur
from ultrarefiner.networks.transunet.encoder import SelfAttention
from ultrarefiner.networks.transunet.stem import StandardizedConv2d


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    network = ur.build_microsegnet("tiny", image_size=64).eval()
    torch.nn.init.normal_(network.encoder.position_embedding, std=0.02)
    return network


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), channels=st.sampled_from([1, 3]))
@torch.no_grad()
def test_any_multiple_of_16(tiny, rows: int, columns: int, channels: int) -> None:
    images = torch.rand(2, channels, 16 * rows, 16 * columns)
    answer = tiny(images)
    assert answer.logits.shape == (2, 1, 16 * rows, 16 * columns)
    torch.testing.assert_close(tiny(images[:1]).logits, answer.logits[:1])
    for scale, side in zip((8, 4, 2), answer.side_logits, strict=True):
        assert side.shape == (2, 1, 16 * rows // scale, 16 * columns // scale)


@pytest.mark.parametrize("size", ["tiny", "vit_b16"])
@torch.no_grad()
def test_grey_is_three_equal_colours(size) -> None:
    network = ur.build_transunet(size, image_size=64).eval()
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(network(grey), network(grey.expand(2, 3, 64, 64)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(grey), network(torch.rand(2, 3, 64, 64)), atol=1e-5)


@torch.no_grad()
def test_a_batch_is_each_of_its_images(tiny) -> None:
    images = torch.rand(3, 1, 48, 80)
    whole = tiny(images)
    for index in range(3):
        alone = tiny(images[index : index + 1])
        torch.testing.assert_close(whole.logits[index : index + 1], alone.logits)
        for ours, theirs in zip(whole.side_logits, alone.side_logits, strict=True):
            torch.testing.assert_close(ours[index : index + 1], theirs)


@torch.no_grad()
def test_side_heads_change_nothing_else(tiny) -> None:
    plain = ur.build_transunet("tiny", image_size=64).eval()
    state = {name: tensor for name, tensor in tiny.state_dict().items() if not name.startswith("side_heads")}
    plain.load_state_dict(state, strict=True)
    images = torch.rand(1, 1, 64, 64)
    assert torch.equal(plain(images), tiny(images).logits)


@torch.no_grad()
def test_positions_are_interpolated_on_the_way_as_when_loaded(tiny) -> None:
    larger = ur.build_microsegnet("tiny", image_size=(96, 32)).eval()
    grid = functional.interpolate(tiny.encoder.position_embedding, (6, 2), mode="bilinear", align_corners=True)
    larger.load_state_dict({**tiny.state_dict(), "encoder.position_embedding": grid})
    images = torch.rand(2, 1, 96, 32)
    torch.testing.assert_close(larger(images).logits, tiny(images).logits)


def test_every_parameter_learns(tiny) -> None:
    network = ur.build_microsegnet("tiny", image_size=64)
    answer = network(torch.rand(2, 1, 64, 64))
    (answer.logits.square().mean() + sum(side.square().mean() for side in answer.side_logits)).backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not still


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 100), stride=st.sampled_from([1, 2]))
def test_standardised_convolution(seed: int, stride: int) -> None:
    torch.manual_seed(seed)
    layer = StandardizedConv2d(3, 4, 3, stride=stride).double()
    filters = layer.weight.detach()
    mean = filters.mean((1, 2, 3), keepdim=True)
    variance = filters.var((1, 2, 3), keepdim=True, unbiased=False)
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(images, (filters - mean) / (variance + 1e-5).sqrt(), stride=stride, padding=1)
    torch.testing.assert_close(layer(images), expected)
    assert torch.autograd.gradcheck(layer, images)

    def by_weight(weight):
        return torch.func.functional_call(layer, {"weight": weight}, images.detach())

    assert torch.autograd.gradcheck(by_weight, layer.weight)


def test_fused_attention_is_softmax_attention() -> None:
    attention = SelfAttention(12, 3).double()
    tokens = torch.rand(2, 5, 12, dtype=torch.float64, requires_grad=True)
    weights = attention.weights(tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    _, _, value = attention._split(tokens)
    mixed = attention.out((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(tokens), mixed)
    assert torch.autograd.gradcheck(attention, tokens)


def test_whole_network_gradient() -> None:
    torch.manual_seed(0)
    network = ur.build_transunet("tiny", image_size=16, dropout=0.0).double().eval()
    images = torch.rand(1, 1, 16, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.rand_like(images) - 0.5
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    step = 1e-6
    with torch.no_grad():
        change = (network(images + step * direction).sum() - network(images - step * direction).sum()) / (2 * step)
    torch.testing.assert_close(change, (gradient * direction).sum(), rtol=1e-5, atol=1e-8)


@torch.no_grad()
def test_attention_weights(tiny) -> None:
    images = torch.rand(2, 1, 32, 48)
    weights = tiny.attention_weights(images)
    assert weights.shape == (2, 2, 4, 6, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 6))
    torch.testing.assert_close(weights[1:], tiny.attention_weights(images[1:]))
    # The last block's weights and values are what the forward pass mixes.
    tokens, _ = tiny.encoder.embed(tiny.stem(images)[0])
    for block in tiny.encoder.blocks[:-1]:
        tokens = block(tokens)
    last = tiny.encoder.blocks[-1]
    seen = last.attention_norm(tokens)
    mixed = last.attention.out((weights[:, -1] @ last.attention._split(seen)[2]).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, last.attention(seen))


def test_dropout_acts_in_training_only() -> None:
    images = torch.rand(1, 1, 32, 32)
    for dropout, same in ((0.0, True), (0.5, False)):
        network = ur.build_transunet("tiny", image_size=32, dropout=dropout)
        network.decoder.eval()  # batch normalisation learns its statistics in training mode
        assert torch.equal(network(images), network(images)) is same
        network.eval()
        assert torch.equal(network(images), network(images))


def test_normalisations_have_the_published_constants() -> None:
    # With the oracles' weights variances are large, and a wrong constant would not show.
    network = ur.build_transunet("tiny")
    norms = {name: module.eps for name, module in network.named_modules() if hasattr(module, "eps")}
    projections = {name for name in norms if ".shortcut." in name}
    for name, eps in norms.items():
        expected = 1e-5 if name in projections or name.startswith("decoder.") else 1e-6
        assert eps == expected, name
    assert len(projections) == 3
    faint = StandardizedConv2d(1, 1, 3)
    torch.nn.init.constant_(faint.weight, 0.0)
    faint.weight.data[0, 0, 0] = 0.01
    expected = (faint.weight - faint.weight.mean()) / (faint.weight.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(
        faint(torch.eye(3)[None, None]), functional.conv2d(torch.eye(3)[None, None], expected, padding=1)
    )


def test_settings_tell_networks_apart() -> None:
    described = [
        ur.build_transunet("tiny", classes=classes, image_size=size, deep_supervision=deep, dropout=dropout).settings()
        for classes, size, deep, dropout in (
            (1, 64, False, 0.1), (2, 64, False, 0.1), (1, 32, False, 0.1), (1, 64, True, 0.1), (1, 64, False, 0.2),
        )
    ]  # fmt: skip
    assert all(described.count(one) == 1 for one in described)


@settings(deadline=None, max_examples=15)
@given(classes=st.integers(2, 5), scale=st.sampled_from([1.0, 50.0]))
def test_foreground_logits_are_the_softmax(classes: int, scale: float) -> None:
    logits = scale * torch.randn(2, classes, 3, 4, dtype=torch.float64, requires_grad=True)
    lesions = ur.networks.foreground_logits(logits)
    torch.testing.assert_close(lesions.sigmoid(), logits.softmax(1)[:, 1:])
    assert lesions.isfinite().all()
    if scale == 1.0:
        assert torch.autograd.gradcheck(ur.networks.foreground_logits, logits.detach().requires_grad_())


def test_foreground_logits_of_side_logits() -> None:
    network = ur.build_transunet("tiny", classes=2, image_size=32, deep_supervision=True).eval()
    images = torch.rand(1, 1, 32, 32)
    plain, read = network(images), ur.ForegroundLogits(network)(images)
    torch.testing.assert_close(read.side_logits[0], plain.side_logits[0][:, 1:] - plain.side_logits[0][:, :1])
    assert ur.ForegroundLogits(network).settings()["network"]["classes"] == 2


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ur.build_transunet("r50"), "size must be one of r50_vit_b16, vit_b16, r50_vit_l16, tiny, but it is"),
        (lambda: ur.build_transunet("tiny", image_size=100), "image_size must be a multiple of 16"),
        (lambda: ur.build_transunet("tiny", image_size=(32, 32, 32)), "image_size must be a multiple of 16"),
        (lambda: ur.build_transunet("tiny", image_size="64"), "image_size must be a multiple of 16, .* but it is '64'"),
        (lambda: ur.build_transunet("tiny", image_size=(64.0, 64)), "image_size must be a multiple of 16"),
        (lambda: ur.build_transunet(["tiny"]), "size must be one of"),
        (lambda: ur.build_transunet("tiny", classes=0), "classes must be a whole number from 1 on"),
        (lambda: ur.build_transunet("tiny", classes=1.5), "classes must be a whole number from 1 on"),
        (lambda: ur.build_transunet("tiny", dropout=1.0), r"dropout in \[0, 1\)"),
        (lambda: ur.build_transunet("tiny")(torch.rand(1, 1, 30, 32)), "multiples of 16, but they are 30 x 32 pixels"),
        (
            lambda: ur.build_transunet("tiny")(torch.rand(1, 2, 32, 32)),
            r"images must have 1 \(grey\) or 3 \(RGB\) channels",
        ),
        (lambda: ur.build_transunet("tiny")(torch.rand(1, 32, 32)), "add the missing dimensions with"),
        (lambda: ur.build_transunet("tiny")(torch.zeros(1, 1, 32, 32, dtype=torch.uint8)), "must be floating point"),
        (lambda: ur.build_transunet("tiny", classes=True), "classes must be a whole number from 1 on"),
        (lambda: ur.build_transunet("tiny", dropout="a"), r"dropout in \[0, 1\), but they are 1 and 'a'"),
        (lambda: ur.build_transunet("tiny")(torch.rand(1, 1, 32, 32).double()), "dtype of the network's weights"),
        (lambda: ur.build_transunet("tiny")(torch.rand(1, 1, 32, 32).numpy()), "must be a tensor, but it is a ndarray"),
        (lambda: ur.networks.foreground_logits(torch.rand(1, 1, 2, 2)), "class_logits must have the background"),
    ],
)
def test_refusals(build, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


def test_normalisations_can_be_watched() -> None:
    # Whoever hooks a layer sees what it returned, not what came after.
    network = ur.build_transunet("tiny", image_size=32)
    seen = []
    for norm in (network.stem.norm, network.stem.stages[0][0].norm1):
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
        norm.register_full_backward_hook(lambda module, before, after: None)
    network(torch.rand(2, 1, 32, 32)).sum().backward()
    assert all((output < 0).any() for output in seen)
