"""Weight anchoring."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ultrarefiner.losses import WeightAnchor


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_it_is_the_mean_over_scalars_and_its_gradient(seed: int) -> None:
    model = network().double()
    anchor = WeightAnchor(model)
    start = [p.detach().clone() for p in model.parameters()]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    moved = torch.cat([(p - s).flatten() for p, s in zip(model.parameters(), start, strict=True)])
    loss = anchor()
    torch.testing.assert_close(loss, moved.square().mean())
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradient, 2 * moved.detach() / moved.numel())


def test_at_the_start_it_is_zero_with_a_zero_gradient() -> None:
    model = network()
    loss = WeightAnchor(model)()
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and p.grad.count_nonzero() == 0 for p in model.parameters())


def test_gradcheck_through_a_functional_parameter() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    model = Holder()
    anchor = WeightAnchor(model)

    def distance(value: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(_Both(model, anchor), {"model.weight": value}, ())

    value = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distance, value)


class _Both(nn.Module):
    def __init__(self, model: nn.Module, anchor: WeightAnchor) -> None:
        super().__init__()
        self.model = model
        self.anchor = anchor

    def forward(self) -> torch.Tensor:
        return self.anchor()


def test_only_what_was_trainable_is_anchored() -> None:
    model = network()
    model[0].requires_grad_(False)
    anchor = WeightAnchor(model)
    with torch.no_grad():
        model[0].weight += 1
    assert anchor().item() == 0.0
    with torch.no_grad():
        model[2].bias += 1
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert anchor().item() == pytest.approx(2 / trainable)


def test_frozen_later_stays_in_the_mean_without_a_gradient() -> None:
    model = network()
    anchor = WeightAnchor(model)
    with torch.no_grad():
        model[2].bias += 1
    model[0].requires_grad_(False)
    loss = anchor()
    loss.backward()
    assert loss.item() == pytest.approx(2 / sum(p.numel() for p in model.parameters()))
    assert model[0].weight.grad is None


def test_it_owns_no_parameter_and_no_copy_of_the_module() -> None:
    model = network()
    anchor = WeightAnchor(model)
    assert list(anchor.parameters()) == []
    assert list(anchor.children()) == []
    assert len(anchor.state_dict()) == len(list(model.parameters()))


def test_a_resumed_run_is_anchored_to_the_first_start() -> None:
    model = network()
    anchor = WeightAnchor(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5
    saved = copy.deepcopy(model.state_dict()), copy.deepcopy(anchor.state_dict())
    again = network()
    again.load_state_dict(saved[0], assign=True)  # replaces the parameter objects
    for parameter in again.parameters():
        parameter.requires_grad_()
    resumed = WeightAnchor(again)
    assert resumed().item() == 0.0
    resumed.load_state_dict(saved[1])
    assert resumed().item() == pytest.approx(0.25)
    with torch.no_grad():
        again.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
        again[2].bias.zero_()
    assert resumed().item() != pytest.approx(0.25)


def test_it_follows_to_and_widens_half_precision() -> None:
    model = network()
    anchor = WeightAnchor(model)
    model.to(torch.bfloat16)
    anchor.to(torch.bfloat16)
    assert all(buffer.dtype == torch.bfloat16 for buffer in anchor.buffers())
    assert anchor().dtype == torch.float32
    assert anchor().item() == 0.0


def test_nothing_to_anchor_is_refused() -> None:
    model = network().requires_grad_(False)
    with pytest.raises(ValueError, match=r"module \(Sequential\) must have a trainable parameter.*got none"):
        WeightAnchor(model)


def test_a_lost_parameter_is_refused() -> None:
    model = network()
    anchor = WeightAnchor(model)
    model[2] = nn.Identity()
    with pytest.raises(RuntimeError, match=r"'2.weight' is gone"):
        anchor()
