"""Convolutions as a CPU likes them: the same numbers, and nothing left behind."""

from __future__ import annotations

import torch
from torch import nn

from ultrarefiner.training.cpu_convolutions import quick_convolutions


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 1, 1)
    )


def test_without_autocast_nothing_changes() -> None:
    model, images = network(), torch.rand(2, 1, 16, 16)
    plain = model(images)
    with quick_convolutions(model, active=True):
        torch.testing.assert_close(model(images), plain)


def test_depthwise_convolutions_run_in_float32_and_the_others_do_not() -> None:
    model, images = network(), torch.rand(2, 1, 16, 16)
    kinds: list[torch.dtype] = []
    for layer in (model[0], model[2]):
        layer.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    with quick_convolutions(model, active=True), torch.autocast("cpu", torch.bfloat16):
        model(images)
    assert kinds == [torch.bfloat16, torch.float32]


def test_names_gradients_and_forward_are_as_before() -> None:
    model, images = network(), torch.rand(2, 1, 16, 16)
    names = list(model.state_dict())
    model(images).sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    with quick_convolutions(model, active=True):
        model(images).sum().backward()
    assert list(model.state_dict()) == names
    assert "forward" not in vars(model[2])
    for parameter, expected in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad, expected, atol=1e-3, rtol=1e-4)


def test_an_inactive_context_touches_nothing() -> None:
    model = network()
    with quick_convolutions(model, active=False):
        assert "forward" not in vars(model[2])
        assert model[0].weight.is_contiguous()


def test_convolutions_of_volumes_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 3, groups=2))
    volumes = torch.rand(1, 1, 8, 8, 8)
    plain = model(volumes)
    with quick_convolutions(model, active=True):
        torch.testing.assert_close(model(volumes), plain)
