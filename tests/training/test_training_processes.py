"""Two processes on the CPU train as one with batches twice as large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ultrarefiner.training import CoarseRecipe, JointRecipe, train


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1))


@pytest.mark.slow
def test_two_processes(cases, other_cases, tmp_path: Path) -> None:
    options = {"epochs": 2, "validation": other_cases, "accelerator": "cpu", "tensorboard": False, "log_every": 1}
    one, two = (CoarseRecipe(network(), augmentation=None, frozen={"1": 1}) for _ in range(2))
    alone = train(one, cases, folder=tmp_path / "one", batch_size=4, **options)
    pair = train(
        two,
        cases,
        folder=tmp_path / "two",
        batch_size=1,
        accumulate=2,
        devices=2,
        strategy="ddp_spawn",
        **options,
    )
    assert pair.best_dice == pytest.approx(alone.best_dice, abs=1e-6)
    assert pair.steps == alone.steps == 4
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    again = CoarseRecipe(network(), augmentation=None, frozen={"1": 1})
    with pytest.raises(ValueError, match=r"plan.processes was 2, but now it is 1"):
        train(again, cases, folder=tmp_path / "two", batch_size=1, accumulate=2, **options)


@pytest.mark.slow
def test_two_processes_train_a_refiner_with_parameters_that_get_no_gradient(ultra, cases, tmp_path: Path) -> None:
    # SAM's embeddings of prompts that are not given, a frozen image encoder, a coarse network that starts later.
    model = ultra()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = JointRecipe(model, freeze_coarse_epochs=1, coarse_learning_rate=1e-3, augmentation=None)
    train(
        recipe,
        cases[:4],
        folder=tmp_path,
        epochs=2,
        batch_size=1,
        devices=2,
        strategy="ddp_spawn",
        accelerator="cpu",
        tensorboard=False,
    )
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("coarse.head") for name in moved)
    assert any("mask_decoder" in name for name in moved)
    assert not any("image_encoder" in name for name in moved)
