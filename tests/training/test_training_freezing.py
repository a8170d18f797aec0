"""Frozen is frozen: weights, batch norm, dropout; and what trains when."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ultrarefiner.training import CoarseRecipe, Unfreezing, freeze, is_frozen, unfreeze


def outputs_while_training(model: nn.Module, part: nn.Module, *, steps: int = 3) -> list[torch.Tensor]:
    """A part's outputs on fixed images while the model around it trains."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    fixed, seen = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), []
    for _ in range(steps):
        model.train()
        model(torch.rand(2, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(part(fixed).detach())
    return seen


def test_a_frozen_part_gives_the_same_outputs_throughout(network) -> None:
    free, held = network(), network()
    freeze(held.encoder)
    drifting, still = outputs_while_training(free, free.encoder), outputs_while_training(held, held.encoder)
    assert not torch.equal(drifting[0], drifting[-1])
    assert torch.equal(still[0], still[-1])
    assert int(held.encoder[1].num_batches_tracked) == 0
    assert int(free.encoder[1].num_batches_tracked) > 0


def test_unfreeze_switches_on_only_what_freeze_switched_off(network) -> None:
    model = network()
    model.encoder[0].weight.requires_grad_(False)  # as a low-rank adapter does with its base
    freeze(freeze(model))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    unfreeze(unfreeze(model))
    off = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert off == ["encoder.0.weight"]
    assert model.train()(torch.rand(1, 1, 8, 8)).requires_grad
    assert model.encoder.training


def test_an_inner_frozen_part_stays_frozen_when_the_outer_one_is_unfrozen(network) -> None:
    for outer_first in (True, False):
        model = network()
        for part in (model, model.encoder) if outer_first else (model.encoder, model):
            freeze(part)
        unfreeze(model)
        assert model.head.weight.requires_grad
        assert not model.encoder[0].weight.requires_grad
        assert is_frozen(model.encoder)
        unfreeze(model.encoder)
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_copy_of_a_frozen_part_is_frozen(network) -> None:
    copied = copy.deepcopy(freeze(network()))
    copied.train()(torch.rand(1, 1, 8, 8))
    assert not copied.training
    unfreeze(copied)
    copied.train()(torch.rand(1, 1, 8, 8))
    assert copied.training


@pytest.mark.parametrize("epoch", range(5))
def test_a_part_trains_from_its_epoch_on(network, epoch: int) -> None:
    model = network()
    stages = Unfreezing({"encoder": 3, "encoder.1": None}).bind(model)
    stages.enter(epoch)
    assert model.encoder[0].weight.requires_grad is (epoch >= 3)
    assert model.encoder.training is model.encoder[3].training is (epoch >= 3)
    assert model.encoder[1].weight.requires_grad is model.encoder[1].training is False
    assert model.head.weight.requires_grad is model.head.training is True


def test_the_longer_name_decides(network) -> None:
    model = network()
    Unfreezing({"encoder": None, "encoder.1": 0}).bind(model).enter(0)
    assert not model.encoder[0].weight.requires_grad
    assert not model.encoder[3].training
    assert model.encoder[1].weight.requires_grad
    assert model.encoder[1].training


def test_what_the_user_froze_never_trains(network) -> None:
    model = network()
    freeze(model.encoder)
    stages = Unfreezing({"encoder": 1}).bind(model)
    stages.enter(5)
    assert not model.encoder[0].weight.requires_grad
    assert not model.encoder[1].training


def test_what_the_user_froze_by_its_parameters_is_still(network, fit) -> None:
    model = network()
    model.encoder.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    stages = Unfreezing().bind(model)
    stages.enter(0)
    assert not any(part.training for part in model.encoder.modules())
    assert model.head.training
    stages.leave()
    fit(CoarseRecipe(model, augmentation=None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.encoder.state_dict().items())
    # A part of which something trains keeps its dropout and its batch norm.
    model.encoder[0].weight.requires_grad_(True)
    Unfreezing().bind(model).enter(0)
    assert model.encoder.training
    assert model.encoder[3].training
    assert not model.encoder[1].training, "its own parameters are frozen"


def test_leaving_restores_what_the_user_had(network) -> None:
    model = network()
    model.head.bias.requires_grad_(False)
    stages = Unfreezing({"encoder": None}).bind(model)
    stages.prepare()
    assert not model.encoder[0].weight.requires_grad
    stages.enter(0)
    stages.leave()
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["head.bias"]
    assert not model.training


def test_complaints(network) -> None:
    with pytest.raises(
        ValueError, match=r"names the part 'coars', which the model has not; at its top it has encoder, head"
    ):
        Unfreezing({"coars": 1}).bind(network())
    with pytest.raises(ValueError, match=r"must give 'head' an epoch of at least 0, or None for never; it gives -1"):
        Unfreezing({"head": -1}).bind(network())
    with pytest.raises(ValueError, match=r"nothing of the model trains in epoch 0.*Let a part start at 0"):
        Unfreezing({"head": 2, "encoder": 1}).bind(network())
    with pytest.raises(ValueError, match=r"nothing of the model trains in epoch 0"):
        Unfreezing().bind(freeze(network()))
