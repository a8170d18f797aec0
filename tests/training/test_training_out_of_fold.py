"""Out-of-fold predictions: nobody predicts what it has seen, folds that are done stay done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.data import CoarsePredictions, FittedCases, Folds, Phantoms, PredictedCases, group_folds
from ultrarefiner.systems import AtSize
from ultrarefiner.training import CoarseRecipe, load_coarse, predict_cases, predict_out_of_fold
from ultrarefiner.training.provenance import remember

OPTIONS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 2,
    "accelerator": "cpu",
    "tensorboard": False,
    "progress": False,
}


class UnpluggedError(Exception):
    """Somebody pulls the plug."""


class Remembers(nn.Module):
    """Knows which images it was trained on and which it was asked about, and stops when it is told to."""

    left: ClassVar[float] = float("inf")

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Conv2d(1, 1, 3, padding=1)
        self.trained: set[bytes] = set()
        self.asked: set[bytes] = set()

    def forward(self, images: Tensor) -> Tensor:
        Remembers.left -= 1
        if Remembers.left < 0:
            raise UnpluggedError
        (self.trained if self.training else self.asked).update(image.numpy().tobytes() for image in images)
        logits: Tensor = self.head(images)
        return logits


@pytest.fixture(scope="module")
def fitted() -> FittedCases:
    return FittedCases(Phantoms(7, size=(32, 40)), 32).fill(progress=False)


@pytest.fixture(scope="module")
def folds(fitted: FittedCases) -> Folds:
    return group_folds(fitted.dataset, folds=3, seed=1)


class Recipes:
    """Makes phase 1 for each fold, with its network at 16 pixels or as it is."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.made: dict[int, CoarseRecipe] = {}
        self.inner: dict[int, Remembers] = {}

    def __call__(self, fold: int) -> CoarseRecipe:
        self.inner[fold] = Remembers()
        network = self.inner[fold] if self.size is None else AtSize(self.inner[fold], self.size)
        self.made[fold] = CoarseRecipe(network, learning_rate=0.01, augmentation=None)
        return self.made[fold]


def images_of(fitted: FittedCases, names: tuple[str, ...]) -> set[bytes]:
    return {case.image.numpy().tobytes() for case in map(fitted.__getitem__, range(len(fitted))) if case.name in names}


def test_no_network_predicts_what_trained_it(fitted: FittedCases, folds: Folds, tmp_path: Path) -> None:
    recipes = Recipes()
    made = predict_out_of_fold(recipes, fitted, folds, folder=tmp_path, **OPTIONS)
    assert made.names == fitted.names
    assert made.fit == "FitToSquare"
    assert sorted(recipes.made) == [0, 1, 2]
    for fold, network in recipes.inner.items():
        assert network.trained == images_of(fitted, folds.training(fold))
        assert network.asked == images_of(fitted, folds.validation(fold))
        assert not network.trained & network.asked
    for name, network_number in zip(made.names, made.networks, strict=True):
        assert made.trained_on[network_number] == folds.training(folds.assignment[name])
        assert name not in made.trained_on[network_number]
    again = CoarsePredictions.load(tmp_path / "predictions.pt")
    assert torch.equal(again.logits, made.logits)
    assert (again.names, again.networks, again.trained_on) == (made.names, made.networks, made.trained_on)
    with pytest.raises(ValueError, match=r"no network may predict a case that it was trained on, but 7 are"):
        CoarsePredictions(made.names, made.logits, (0,) * 7, (made.names,), made.fit)


@pytest.mark.parametrize("validated", [False, True])
def test_each_case_has_what_the_checkpoint_of_its_fold_says(
    validated: bool, fitted: FittedCases, folds: Folds, tmp_path: Path
) -> None:
    part = fitted.subset(folds.training(2))
    inner = folds.within(part.names)
    validation = fitted.subset(folds.validation(2)) if validated else None
    made = predict_out_of_fold(Recipes(16), part, inner, folder=tmp_path, validation=validation, **OPTIONS)
    assert made.logits.shape == (len(part), 1, 16, 16)
    assert set(made.names) == set(folds.training(2))
    for fold in range(2):
        path = tmp_path / f"fold{fold}" / ("best.pt" if validated else "last.pt")
        network = AtSize(Remembers(), 16)
        load_coarse(network, path)
        held_out = fitted.subset(inner.validation(fold))
        images = torch.stack([held_out[index].image for index in range(len(held_out))])
        with torch.no_grad():
            expected = network.eval().at_size(images)
        got = made.of(held_out.names)
        torch.testing.assert_close(got.logits.float(), expected, rtol=2**-10, atol=1e-6)
        assert not torch.allclose(expected, AtSize(Remembers(), 16).at_size(images), atol=1e-3), "it was not trained"
        assert {got.trained_on[number] for number in got.networks} == {inner.training(fold)}


def test_a_fold_that_is_done_is_not_trained_again(fitted: FittedCases, folds: Folds, tmp_path: Path) -> None:
    whole = predict_out_of_fold(Recipes(), fitted, folds, folder=tmp_path / "whole", **OPTIONS)
    options: dict[str, Any] = {**OPTIONS, "folder": tmp_path / "broken", "checkpoint_every": 1}
    # Two epochs of two or three batches and one prediction: it stops in the middle of the second fold.
    Remembers.left = 9
    try:
        with pytest.raises(UnpluggedError):
            predict_out_of_fold(Recipes(), fitted, folds, **options)
    finally:
        Remembers.left = float("inf")
    assert {path.name for path in (tmp_path / "broken").glob("fold*")} == {"fold0", "fold0.pt", "fold1"}
    recipes = Recipes()
    resumed = predict_out_of_fold(recipes, fitted, folds, **options)
    assert sorted(recipes.made) == [0, 1, 2]  # the first only to compare its settings
    assert torch.equal(resumed.logits, whole.logits)
    assert (resumed.names, resumed.networks, resumed.trained_on) == (whole.names, whole.networks, whole.trained_on)

    Remembers.left = 0
    try:
        assert torch.equal(predict_out_of_fold(Recipes(), fitted, folds, **options).logits, whole.logits)
        with pytest.raises(ValueError, match=r"was written by a run whose .*epochs was 2, but now it is 3"):
            predict_out_of_fold(Recipes(), fitted, folds, **{**options, "epochs": 3})
    finally:
        Remembers.left = float("inf")
    for run in (tmp_path / "broken").glob("fold?"):
        shutil.rmtree(run)

    def never(fold: int) -> CoarseRecipe:
        raise AssertionError(fold)

    assert torch.equal(predict_out_of_fold(never, fitted, folds, **options).logits, whole.logits)
    others = Folds({name: (fold + 1) % 3 for name, fold in folds.assignment.items()}, count=3, seed=1)
    with pytest.raises(
        ValueError,
        match=r"fold0.pt holds predictions of \d cases .* of other ones than this fold's .* or give another folder",
    ):
        predict_out_of_fold(never, fitted, others, **options)


def test_validation_and_folds_of_other_cases_are_refused(fitted: FittedCases, folds: Folds, tmp_path: Path) -> None:
    def run(dataset: FittedCases, folds: Folds, **options: Any) -> CoarsePredictions:
        return predict_out_of_fold(Recipes(), dataset, folds, folder=tmp_path, **OPTIONS, **options)

    with pytest.raises(
        ValueError, match=r"validation must hold no case of the folds, .* 2 are in both, the first is 'phantom 1'"
    ):
        run(fitted, folds, validation=fitted.subset(["phantom 1", "phantom 4"]))
    with pytest.raises(ValueError, match=r"names in the folds are not in the data set"):
        run(fitted.subset(folds.training(0)), folds)
    with pytest.raises(ValueError, match=r"cases of the data set have no fold"):
        run(fitted, folds.within(folds.training(0)))
    assert not list(tmp_path.iterdir())


def test_predictions_are_a_networks_in_evaluation_whatever_the_batch(
    fitted: FittedCases, network: Callable[..., nn.Module]
) -> None:
    built = network().train()  # batch norm and dropout
    one, other = (predict_cases(built, fitted, trained_on=["x"], batch_size=size, progress=False) for size in (1, 4))
    assert not built.training
    torch.testing.assert_close(one.logits, other.logits)
    assert one.names == fitted.names
    images = torch.stack([fitted[index].image for index in range(7)])
    with torch.no_grad():
        torch.testing.assert_close(one.logits.float(), built(images), rtol=2**-10, atol=1e-5)
    assert PredictedCases(fitted, one)[6].coarse_probability is not None
    with pytest.raises(ValueError, match=r"but 1 are so predicted, the first is 'phantom 3'"):
        predict_cases(built, fitted, trained_on=["phantom 3"], progress=False)


def test_cases_read_while_predicting_can_be_trained_on(network: Callable[..., nn.Module]) -> None:
    fresh = FittedCases(Phantoms(2, size=(32, 32)), 32)
    built = network()
    stored = predict_cases(built, fresh, trained_on=(), progress=False)
    case = PredictedCases(fresh, stored)[0]
    assert case.coarse_probability is not None
    loss = built(case.image[None]).mul(case.coarse_probability).sum()
    loss.backward()
    assert built.head.weight.grad is not None


def test_what_a_network_remembers_is_what_it_must_not_predict(fitted: FittedCases) -> None:
    network = Remembers()
    with pytest.raises(ValueError, match=r"trained_on must name the cases .* it does not remember any"):
        predict_cases(network, fitted, progress=False)
    remember(network, ["phantom 1"])
    with pytest.raises(ValueError, match=r"no network may predict a case .* the first is 'phantom 1'"):
        predict_cases(network, fitted, progress=False)
    others = FittedCases(Phantoms(2, size=(48, 64), seed=4), fitted.size)
    assert predict_cases(network, others, progress=False).trained_on == (("phantom 1",),)
    with pytest.raises(ValueError, match="batch_size must be at least 1, but it is 0"):
        predict_cases(network, others, batch_size=0, progress=False)


def test_folds_must_be_two_or_more_and_not_empty(fitted: FittedCases, folds: Folds, tmp_path: Path) -> None:
    alone = Folds(dict.fromkeys(fitted.names, 0), count=1, seed=0)
    hollow = Folds({name: min(fold, 1) for name, fold in folds.assignment.items()}, count=3, seed=0)
    for wrong, sentence in ((alone, "but there are 1;"), (hollow, "and fold 2 is empty")):
        with pytest.raises(ValueError, match=sentence):
            predict_out_of_fold(Recipes(), fitted, wrong, folder=tmp_path, **OPTIONS)


def test_a_network_that_diverged_is_not_stored() -> None:
    logits = torch.zeros(2, 1, 4, 4)
    logits[1, 0, 2, 2] = float("nan")
    with pytest.raises(ValueError, match=r"logits must be finite, but those of 1 cases are not, the first is 'b'"):
        CoarsePredictions(("a", "b"), logits, (0, 0), ((),), "FitToSquare")
