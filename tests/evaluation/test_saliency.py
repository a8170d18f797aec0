"""Attention rollout, attention maps, Grad-CAM, and their picture."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from strategies import lesion
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.evaluation.saliency import attention_map, attention_rollout, grad_cam
from ultrarefiner.evaluation.saliency_figure import draw_saliency
from ultrarefiner.networks import ForegroundLogits, TransUNet, build_microsegnet, build_transunet
from ultrarefiner.types import MultiScaleLogits


@st.composite
def attention(draw: st.DrawFn) -> Tensor:
    """Random weights with rows that sum to 1."""
    shape = [draw(st.integers(1, high)) for high in (3, 4, 3, 6)]
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(*shape, shape[-1], generator=seed, dtype=torch.float64).mul(4).softmax(-1)


class Fixed(nn.Module):
    """A network whose attention is given."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def attention_weights(self, images: Tensor) -> Tensor:
        return self.weights.expand(len(images), -1, -1, -1, -1)


class Known(nn.Module):
    """Three channels: the image, its negative, a constant; the logit is 2 of the first, -1 of the second, plus bias."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 3, stride, stride=stride)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(3, 1, 1)
        self.stride = stride
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -1.0, 0.0])[:, None, None, None] / stride**2)
            self.features.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
            self.head.weight.copy_(torch.tensor([2.0, -1.0, 0.0])[None, :, None, None])
            self.head.bias.fill_(-1.0)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.relu(self.features(images)))
        return functional.interpolate(logits, scale_factor=float(self.stride), mode="nearest")


@pytest.fixture
def tiny() -> TransUNet:
    torch.manual_seed(0)
    return build_transunet("tiny", image_size=64).eval()


def two_lesions() -> Tensor:
    return torch.stack([lesion(32, 48, (10, 12), (6, 8)), lesion(32, 48, (20, 34), (7, 5))])[:, None]


# attention_rollout


@settings(deadline=None, max_examples=15)
@given(attention())
def test_rollout_is_the_plain_loop(weights: Tensor) -> None:
    rollout = attention_rollout(weights)
    for image, whole in zip(weights.numpy(), rollout.numpy(), strict=True):
        expected = np.eye(weights.shape[-1])
        for layer in image:
            mean = sum(layer[head] for head in range(len(layer))) / len(layer)
            mixed = np.zeros_like(expected)
            for row in range(len(mean)):
                with_identity = mean[row].copy()
                with_identity[row] += 1
                mixed[row] = with_identity / with_identity.sum()
            expected = mixed @ expected
        np.testing.assert_allclose(whole, expected, atol=1e-12)
    torch.testing.assert_close(rollout.sum(-1), torch.ones_like(rollout[..., 0]))


def test_rollout_knows_the_order_of_layers_and_widens() -> None:
    weights = torch.eye(3)[None].repeat(2, 1, 1)
    weights[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    weights[1, 1] = torch.tensor([0.0, 0.0, 1.0])
    forwards = attention_rollout(weights[None, :, None])[0]
    # The last layer's token 1 took from 2; token 0 took from 1 before that, and so never sees 2.
    torch.testing.assert_close(forwards[0], torch.tensor([0.5, 0.5, 0.0]))
    backwards = attention_rollout(weights.flip(0)[None, :, None])[0]
    torch.testing.assert_close(backwards[0], torch.tensor([0.5, 0.25, 0.25]))
    narrow = attention_rollout(weights[None, :, None].bfloat16())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow[0], forwards)


@pytest.mark.usefixtures("unhooked")
def test_rollout_refuses_other_shapes() -> None:
    for shape in ((2, 3, 4, 4), (1, 1, 1, 3, 4), (1, 0, 1, 3, 3)):
        with pytest.raises(ValueError, match=r"weights must be \(b, layers, heads, n, n\)"):
            attention_rollout(torch.zeros(*shape))


# attention_map


def test_the_map_is_the_rows_asked_for_on_the_patch_grid() -> None:
    """6 patches of 8 x 8; patch 1 takes from patch 5 alone, patch 0 from itself."""
    weights = torch.eye(6)
    weights[1] = torch.eye(6)[5]
    network = Fixed(weights[None, None, None])
    images = torch.rand(1, 1, 16, 24)
    inside = torch.zeros(1, 1, 16, 24)
    inside[..., :8, 8:16] = 1
    grid = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.5]])[None, None]
    expected = functional.interpolate(grid, (16, 24), mode="bilinear")
    torch.testing.assert_close(attention_map(network, images, inside), expected / expected.max())
    # Half of patch 1 and a quarter of patch 0 ask: with shares 2/3 and 1/3.
    inside.zero_()
    inside[..., :8, 12:16] = 1
    inside[..., :4, :4] = 1
    grid = torch.tensor([[1 / 3, 1 / 3, 0.0], [0.0, 0.0, 1 / 3]])[None, None]
    expected = functional.interpolate(grid, (16, 24), mode="bilinear")
    torch.testing.assert_close(attention_map(network, images, inside), expected / expected.max())
    assert attention_map(network, images, torch.zeros_like(inside)).abs().max() == 0


def test_the_map_moves_with_what_is_asked(tiny: TransUNet) -> None:
    images = torch.rand(2, 1, 64, 96)
    left, right = torch.zeros(2, 1, 64, 96), torch.zeros(2, 1, 64, 96)
    left[..., 16:32, 16:32] = 1
    right[..., 32:48, 64:80] = 1
    seen_left, seen_right = attention_map(tiny, images, left), attention_map(tiny, images, right)
    assert seen_left.shape == images.shape
    assert not seen_left.requires_grad
    for seen, asked, other in ((seen_left, left, right), (seen_right, right, left)):
        assert seen.min() >= 0
        assert seen.amax((1, 2, 3)).tolist() == [1.0, 1.0]
        assert (seen * asked).sum() > 1.5 * (seen * other).sum()


def test_attention_of_a_batch_is_that_of_each(tiny: TransUNet) -> None:
    tiny.train()
    images = torch.rand(3, 1, 64, 64)
    inside = torch.zeros(3, 1, 64, 64)
    inside[0, :, :20, :20] = 1
    inside[1, :, 33, 5] = 1
    together = attention_map(tiny, images, inside)
    assert tiny.training, "it was read in evaluation mode and left in training"
    assert together[2].abs().max() == 0
    for index in range(3):
        alone = attention_map(tiny, images[index : index + 1], inside[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("unhooked")
def test_attention_refuses_what_it_cannot_read(tiny: TransUNet) -> None:
    images, inside = torch.rand(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    with pytest.raises(ValueError, match=r"network must have attention_weights.*it is a ForegroundLogits"):
        attention_map(ForegroundLogits(tiny), images, inside)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match=r"inside must be \(1, 1, 64, 64\), one mask on the pixels"):
        attention_map(tiny, images, inside[..., :32])
    with pytest.raises(ValueError, match=r"inside must lie in \[0, 1\]"):
        attention_map(tiny, images, 255 * inside)
    with pytest.raises(ValueError, match=r"images must be \(b, 1 or 3, h, w\)"):
        attention_map(tiny, images[0], inside)
    with pytest.raises(ValueError, match="one token for each square patch, but it has 17 tokens for 64 x 64 pixels"):
        attention_map(Fixed(torch.eye(17)[None, None, None]), images, inside)


# grad_cam


def test_grad_cam_of_a_known_network() -> None:
    """Channel 0 is the lesion and the only one with a weight that counts: the map is the lesion, wherever it lies."""
    images = two_lesions()
    network = Known()
    torch.testing.assert_close(grad_cam(network, images, network.relu), images)
    moved = grad_cam(network, images.flip(-1), network.relu)
    torch.testing.assert_close(moved, images.flip(-1))
    # Before the ReLU: the gradient of channel 1, of which nothing passes, is 0 inside the lesion.
    torch.testing.assert_close(grad_cam(network, images, network.features), images)
    assert network.relu.inplace


def test_grad_cam_is_the_plain_formula() -> None:
    """Against autograd by hand, one image at a time, with the mask given and predicted."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 4, stride=4),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 1, 3, padding=1),
        nn.Upsample(scale_factor=4, mode="bilinear"),
    ).eval()
    network[1].running_mean.normal_()
    images, inside = torch.rand(3, 1, 32, 48), torch.rand(3, 1, 32, 48)
    for layer, mask in ((1, inside), (2, inside), (2, None)):
        maps = grad_cam(network.train(), images, network[layer], inside=mask)
        assert network[1].training
        network.eval()
        for index in range(3):
            features = network[: layer + 1](images[index : index + 1]).detach().clone().requires_grad_()
            logits = network[layer + 1 :](features.clone())
            weight = (logits > 0).float() if mask is None else mask[index : index + 1]
            score = (logits * weight).sum() / weight.sum()
            (gradient,) = torch.autograd.grad(score, features)
            summed = torch.zeros(1, 1, *features.shape[-2:])
            for channel in range(6):
                summed[0, 0] += gradient[0, channel].mean() * features[0, channel].detach()
            expected = functional.interpolate(summed.clamp(min=0), (32, 48), mode="bilinear")
            expected = expected / expected.max() if expected.max() > 0 else expected
            torch.testing.assert_close(maps[index : index + 1], expected, atol=1e-5, rtol=1e-4)


def test_one_image_does_not_change_the_map_of_another(tiny: TransUNet) -> None:
    images = torch.rand(3, 1, 64, 64)
    inside = torch.zeros(3, 1, 64, 64)
    inside[0, :, 10:20, 10:30] = 1
    inside[1] = 1
    layer = tiny.decoder.stages[0]
    together = grad_cam(tiny, images, layer, inside=inside)
    assert together[2].abs().max() == 0, "an empty mask asks nothing"
    for index in range(3):
        alone = grad_cam(tiny, images[index : index + 1], layer, inside=inside[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(together, grad_cam(tiny, images, layer, inside=inside.flip(-1)), atol=1e-2)


def test_no_predicted_lesion_is_an_empty_map() -> None:
    network = Known(stride=4)
    images = two_lesions()
    maps = grad_cam(network, images * torch.tensor([1.0, 0.0])[:, None, None, None], network.relu)
    assert maps[0].max() == 1
    assert maps[1].abs().max() == 0


def test_the_network_is_left_as_it_was(tiny: TransUNet) -> None:
    tiny.train()
    tiny.stem.eval()  # parts in different modes
    tiny.head.weight.requires_grad_(False)
    images = torch.rand(2, 1, 64, 64)
    tiny(images).sum().backward()
    calls: list[int] = []
    tiny.register_forward_hook(lambda *_: calls.append(1))
    layer = tiny.decoder.stages[0].conv1[1]  # what an in-place ReLU writes over
    before = copy.deepcopy(tiny.state_dict())
    gradients = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in tiny.named_parameters()}
    states = {name: (m.training, getattr(m, "inplace", None)) for name, m in tiny.named_modules()}
    hooks = {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in tiny.named_modules()}
    maps = grad_cam(tiny, images, layer, inside=torch.ones_like(images))
    assert not maps.requires_grad
    assert states == {name: (m.training, getattr(m, "inplace", None)) for name, m in tiny.named_modules()}
    assert hooks == {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in tiny.named_modules()}
    for name, parameter in tiny.named_parameters():
        kept, value = gradients[name]
        assert parameter.grad is kept
        assert kept is None or torch.equal(kept, value)
        assert parameter.requires_grad == (name != "head.weight")
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def test_it_works_frozen_without_gradients_and_with_side_logits() -> None:
    torch.manual_seed(0)
    network = build_microsegnet("tiny", image_size=64).eval()
    images, inside = torch.rand(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    layer = network.stem.stages[2]
    expected = grad_cam(network, images, layer, inside=inside)
    assert expected.max() == 1
    network.requires_grad_(False)
    with torch.inference_mode():
        same = grad_cam(network, torch.rand(1, 1, 64, 64).copy_(images), layer, inside=inside.clone())
    torch.testing.assert_close(same, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(grad_cam(network, images, layer, inside=inside), expected)


def test_the_network_itself_may_be_the_layer() -> None:
    network, images = nn.Conv2d(1, 1, 1), torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.bias.fill_(0.0)
    torch.testing.assert_close(grad_cam(network, images, network), images / images.max())


class Odd(nn.Module):
    """Layers that Grad-CAM cannot use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.shared = nn.ReLU()
        self.unused = nn.ReLU()
        self.flat = nn.Flatten()
        self.side = nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> MultiScaleLogits:
        features = self.shared(self.shared(self.conv(images)))
        logits = torch.unflatten(self.flat(features), 1, features.shape[1:])
        return MultiScaleLogits(logits, (self.side(features),))


@pytest.mark.usefixtures("unhooked")
def test_grad_cam_refuses_what_it_cannot_read() -> None:
    network, images = Odd(), torch.rand(2, 1, 8, 8)
    with pytest.raises(ValueError, match="layer must be a module of the network, but this ReLU is not in the Odd"):
        grad_cam(network, images, nn.ReLU())
    with pytest.raises(ValueError, match="layer must run once, but it ran 2 times"):
        grad_cam(network, images, network.shared)
    with pytest.raises(ValueError, match="layer must run once, but it ran 0 times"):
        grad_cam(network, images, network.unused)
    with pytest.raises(ValueError, match=r"layer must return one feature map .* but it returns \(2, 64\)"):
        grad_cam(network, images, network.flat)
    with pytest.raises(ValueError, match="layer must have an influence on the logits, but nothing leads from side"):
        grad_cam(network, images, network.side)
    with pytest.raises(ValueError, match=r"inside must be \(2, 1, 8, 8\), one mask on the pixels"):
        grad_cam(network, images, network.conv, inside=torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images must be \(b, 1 or 3, h, w\)"):
        grad_cam(network, images[0], network.conv)
    two = nn.Conv2d(1, 2, 1)
    with pytest.raises(
        ValueError, match=r"logits of one mask, .* answers with \(2, 2, 8, 8\); wrap it in ultrarefiner"
    ):
        grad_cam(two, images, two)
    flat = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten())
    with pytest.raises(ValueError, match=r"answers with \(2, 64\)"):
        grad_cam(flat, images, flat[0])


# draw_saliency


def drawn(figure: Figure) -> Tensor:
    figure.set_dpi(40)
    figure.canvas.draw()
    return torch.from_numpy(np.asarray(figure.canvas.buffer_rgba()).copy())


def test_everything_is_drawn() -> None:
    images = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    masks = two_lesions()
    given = {"images": images, "targets": masks, "probability": 0.9 * masks, "maps": {"a": masks, "b": 0.5 * masks}}
    figure = draw_saliency(**given)
    whole = drawn(figure)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["truth and prediction", "a", "b"]
    assert torch.equal(drawn(draw_saliency(**given)), whole)
    for change in (
        {"images": images.expand(-1, 3, -1, -1) * torch.tensor([1.0, 0.5, 0.5])[:, None, None]},
        {"targets": masks.flip(-1)},
        {"probability": torch.zeros_like(masks)},
        {"maps": {"a": masks.flip(-2), "b": 0.5 * masks}},
        {"maps": {"a": masks, "b": 0.2 * masks}},
        {"maps": {"a": masks, "b": 0 * masks}},
        {"asked": {"b": masks.flip(-1)}},
        {"names": ["one", "two"]},
    ):
        assert not torch.equal(drawn(draw_saliency(**{**given, **change})), whole), change


@pytest.mark.usefixtures("unhooked")
def test_what_cannot_be_drawn_is_refused() -> None:
    images, masks = torch.rand(2, 1, 32, 48), two_lesions()
    with pytest.raises(ValueError, match=r"images must be \(b, 1 or 3, h, w\)"):
        draw_saliency(images[0], masks, masks, {"a": masks})
    with pytest.raises(ValueError, match="maps must hold at least one map"):
        draw_saliency(images, masks, masks, {})
    with pytest.raises(ValueError, match=r"maps\['a'\] must be on the images' pixels, \(2, 1, 32, 48\)"):
        draw_saliency(images, masks, masks, {"a": masks[:1]})
    with pytest.raises(ValueError, match=r"probability must be on the images' pixels"):
        draw_saliency(images, masks, masks[..., :9], {"a": masks})
    with pytest.raises(ValueError, match=r"asked must have titles of maps, \['a'\]; got \['b'\]"):
        draw_saliency(images, masks, masks, {"a": masks}, asked={"b": masks})
    with pytest.raises(ValueError, match="names must hold one name an image, 2; got 1"):
        draw_saliency(images, masks, masks, {"a": masks}, names=["one"])
