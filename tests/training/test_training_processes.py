"""Two processes on the CPU train as one with batches twice as large."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ultrarefiner.training import CoarseRecipe, JointRecipe, RefinerRecipe, train
from ultrarefiner.training.epoch import share_buffers
from ultrarefiner.training.hardware import make_fabric
from ultrarefiner.training.locking import hold_folder


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coarse", "refiner"])
def test_fewer_cases_to_validate_than_processes(kind, ultra, coarse, cases, other_cases, tmp_path: Path) -> None:
    # The second process has no case, so it does not know what the recipe scores; batch norm saw other images in it.
    recipe = coarse() if kind == "coarse" else RefinerRecipe(ultra().refiner, augmentation=None)
    options = {"epochs": 1, "batch_size": 2, "validation": other_cases[:1], "accelerator": "cpu", "tensorboard": False}
    result = train(recipe, cases, folder=tmp_path, devices=2, strategy="ddp_spawn", **options)
    assert 0 <= result.best_dice <= 1
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert ("validation/coarse_dice" in columns) is (kind == "refiner")


@pytest.mark.slow
def test_all_processes_are_refused_a_folder_that_is_held(coarse, cases, tmp_path: Path) -> None:
    options = {"epochs": 1, "batch_size": 2, "accelerator": "cpu", "tensorboard": False}
    alone = make_fabric("auto", accelerator="cpu", devices=1)
    with (
        hold_folder(alone, tmp_path),
        pytest.raises(Exception, match=rf"BlockingIOError: .*process {os.getpid()} on .* holds"),
    ):
        train(coarse(), cases, folder=tmp_path, devices=2, strategy="ddp_spawn", **options)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def say_buffers(fabric, module: nn.Module) -> None:
    torch.manual_seed(fabric.global_rank)
    module[0].running_mean.normal_()
    share_buffers(SimpleNamespace(fabric=fabric, recipe=SimpleNamespace(module=module)))
    torch.manual_seed(0)
    assert torch.equal(module[0].running_mean, torch.zeros(3).normal_())


@pytest.mark.slow
def test_all_processes_validate_the_first_ones_batch_norm() -> None:
    fabric = make_fabric("ddp_spawn", accelerator="cpu", devices=2)
    fabric.launch(say_buffers, nn.Sequential(nn.BatchNorm2d(3)))
