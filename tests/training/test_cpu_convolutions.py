"""Convolutions as a CPU likes them: the same numbers, and nothing left behind."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.training import CoarseRecipe
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


def test_layout_and_forward_are_given_back_whatever_happens() -> None:
    model = network()
    model[3].weight.data = model[3].weight.data.contiguous(memory_format=torch.channels_last)
    strides = [parameter.stride() for parameter in model.parameters()]

    def own(features: torch.Tensor) -> torch.Tensor:
        return 0 * features

    model[2].forward = own
    images = torch.rand(2, 1, 16, 16)

    def break_off() -> None:
        with quick_convolutions(model, active=True):
            assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(model(images), model[3].bias.view(1, 1, 1, 1).expand(2, 1, 16, 16))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert vars(model[2])["forward"] is own
    assert [parameter.stride() for parameter in model.parameters()] == strides


def test_contexts_may_be_nested() -> None:
    model, images = network(), torch.rand(2, 1, 16, 16)
    with quick_convolutions(model, active=True), torch.autocast("cpu", torch.bfloat16):
        with quick_convolutions(model, active=True):
            inner = model[2](images.expand(-1, 8, -1, -1))
        outer = model[2](images.expand(-1, 8, -1, -1))
    assert inner.dtype == outer.dtype == torch.float32
    assert "forward" not in vars(model[2])


def test_copies_that_are_made_meanwhile_have_weights_of_their_own() -> None:
    model, features = network(), torch.rand(1, 8, 16, 16)
    with quick_convolutions(model, active=True):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in copies:
        with torch.no_grad():
            other[2].weight.zero_()
            other[2].bias.zero_()
        assert not other[2](features).any()
    assert model[2](features).any()


def test_further_arguments_reach_the_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4)
    with quick_convolutions(layer, active=True):
        assert layer(torch.rand(1, 4, 5, 5), output_size=(12, 12)).shape == (1, 4, 12, 12)


class Depthwise(nn.Module):
    """What quick convolutions are for: depthwise, with batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 5, padding=2, groups=8),
            nn.Dropout(0.2),
            nn.Conv2d(8, 1, 3, padding=1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def recipe() -> CoarseRecipe:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CoarseRecipe(Depthwise(), learning_rate=0.01)


class Seen:
    """A watcher that looks at the layout and the kind of forward during a run."""

    def __init__(self, network: nn.Module) -> None:
        self.layers: Any = network.layers
        self.quick: list[bool] = []

    def __call__(self, moment: Any) -> None:
        last, depthwise = (self.layers[index] for index in (5, 3))
        self.quick.append(not last.weight.is_contiguous() and "forward" in vars(depthwise))


@pytest.mark.parametrize(("precision", "quick"), [("bf16-mixed", True), ("32-true", False)])
def test_a_run_that_was_broken_off_ends_like_one_that_was_not(
    fit: Any, cases: Any, other_cases: Any, tmp_path: Path, precision: str, quick: bool
) -> None:
    class Unplugged(list[Any]):
        left = 9  # cases: into the second epoch

        def __getitem__(self, index: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError
            return super().__getitem__(index)

    options = {"precision": precision, "validation": other_cases, "checkpoint_every": 1}
    with pytest.raises(ConnectionError):
        fit(recipe(), dataset=Unplugged(cases), folder=tmp_path / "broken", **options)
    whole, resumed = recipe(), recipe()
    seen = Seen(whole.network)
    expected = fit(whole, folder=tmp_path / "whole", watchers=[seen], **options)
    found = fit(resumed, folder=tmp_path / "broken", **options)
    assert found.resumed_from == 4
    assert found.best_dice == expected.best_dice
    assert seen.quick == [quick, quick]
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], tensor), name
        assert tensor.stride() == recipe().module.state_dict()[name].stride()
    states = [read_tensors(result.last)["optimizer"]["state"] for result in (expected, found)]
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("exp_avg", "exp_avg_sq"))


def test_weights_lie_as_they_train_when_data_parallelism_looks_at_them(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_fabric import Fabric

    looked: list[bool] = []
    setup = Fabric.setup

    def note(self: Any, module: nn.Module, *rest: Any, **options: Any) -> Any:
        looked.append(module.trained.layers[5].weight.is_contiguous())
        return setup(self, module, *rest, **options)

    monkeypatch.setattr(Fabric, "setup", note)
    fit(recipe(), epochs=1, precision="bf16-mixed")
    assert looked == [False]
