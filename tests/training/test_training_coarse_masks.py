"""Phase 2 on data with coarse masks, simulated and predicted, and epochs that are a part of the data."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ultrarefiner.data import (
    Augmentation,
    Batch,
    CoarsePredictions,
    FittedCase,
    FittedCases,
    Mixed,
    Phantoms,
    PredictedCases,
    SimulatedFailures,
    collate,
)
from ultrarefiner.refinement import ROICropper
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.training import JointRecipe, RefinerRecipe, TrainingResult
from ultrarefiner.training.coarse import augmented
from ultrarefiner.training.loading import SharedBatches
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.recipe import dice_of_images

Ultra = Callable[..., UltraRefiner]
Fit = Callable[..., TrainingResult]


class UnpluggedError(Exception):
    """Somebody pulls the plug."""


def data(kind: str, *, samples: int = 12, seed: int = 0) -> Any:
    """As a fresh process has it."""
    fitted = FittedCases(Phantoms(4, size=(32, 40)), 32)
    simulated = SimulatedFailures(fitted, FailureSimulator(), samples=samples, seed=seed, size=24)
    if kind == "simulated":
        return simulated
    logits = 4 * torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    predicted = PredictedCases(fitted, CoarsePredictions(fitted.names, logits, (0,) * 4, ((),), "FitToSquare"))
    return predicted if kind == "predicted" else Mixed(simulated, predicted, share=0.25)


def batch_of(kind: str, count: int = 4) -> Batch:
    dataset = data(kind)
    return collate([dataset[index] for index in range(count)])


def never(masks: Tensor, generator: torch.Generator) -> Tensor:
    message = "true masks must not be damaged where the data bring coarse ones"
    raise AssertionError(message)


def recipe_of(ultra: Ultra, *, roi: bool = False, **options: Any) -> RefinerRecipe:
    model = ultra()
    model.refiner.cropper = ROICropper(expand=0.2) if roi else None
    return RefinerRecipe(model.refiner, **{"failures": never, "learning_rate": 1e-3, **options})


@pytest.mark.parametrize("roi", [False, True])
@pytest.mark.parametrize("kind", ["simulated", "predicted", "mixed"])
def test_phase_2_steps_with_and_without_regions(kind: str, roi: bool, ultra: Ultra) -> None:
    recipe = recipe_of(ultra, roi=roi)
    result = recipe.step(batch_of(kind), torch.Generator().manual_seed(0))
    result.loss.backward()
    gradients = [parameter.grad for parameter in recipe.refiner.parameters() if parameter.grad is not None]
    assert result.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum((gradient != 0).any().item() for gradient in gradients) > 10


@pytest.mark.parametrize("roi", [False, True])
def test_phase_3_steps_on_the_same_data(roi: bool, ultra: Ultra) -> None:
    model = ultra()
    model.refiner.cropper = ROICropper(expand=0.2) if roi else None
    result = JointRecipe(model).step(batch_of("mixed"), torch.Generator().manual_seed(0))
    result.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert result.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (model.coarse.head.weight.grad != 0).any()  # type: ignore[union-attr] # a small network


def test_the_coarse_masks_of_the_data_are_what_is_repaired(ultra: Ultra) -> None:
    recipe = recipe_of(ultra, augmentation=None)
    recipe.refiner.eval()
    batch = batch_of("simulated")
    assert batch.coarse_probability is not None
    with torch.no_grad():
        result = recipe.step(batch, torch.Generator())
        expected = recipe.refiner(batch.images, batch.coarse_probability, content_sizes=batch.content_sizes)
        prediction = recipe.predict(batch, [0, 1, 2, 3])
        other = recipe.predict(batch._replace(coarse_probability=batch.masks), [0, 1, 2, 3])
        alone = [recipe.predict(collate([data("simulated")[index]]), [index]).probability for index in range(4)]
    torch.testing.assert_close(
        result.terms["coarse_dice"], dice_of_images(batch.coarse_probability, batch.masks).mean()
    )
    assert torch.equal(prediction.probability, expected.logits.sigmoid())
    assert torch.equal(prediction.coarse_probability, batch.coarse_probability)
    assert not torch.allclose(other.probability, prediction.probability, atol=1e-3)
    torch.testing.assert_close(torch.cat(alone), prediction.probability, rtol=0, atol=1e-4)


def test_without_coarse_masks_true_ones_are_damaged(ultra: Ultra) -> None:
    batch = batch_of("simulated")._replace(coarse_probability=None)
    with pytest.raises(AssertionError, match="must not be damaged"):
        recipe_of(ultra).step(batch, torch.Generator())
    with pytest.raises(AssertionError, match="must not be damaged"):
        recipe_of(ultra).predict(batch, [0, 1, 2, 3])


@pytest.mark.parametrize("seed", range(4))
def test_augmentation_moves_coarse_masks_with_true_ones(seed: int) -> None:
    batch = batch_of("simulated")
    assert batch.coarse_probability is not None
    plain = augmented(Augmentation(), batch._replace(coarse_probability=None), torch.Generator().manual_seed(seed))
    moved = augmented(Augmentation(), batch, torch.Generator().manual_seed(seed))
    for name in ("images", "masks", "content_sizes"):
        assert torch.equal(getattr(moved, name), getattr(plain, name)), name
    twin = augmented(
        Augmentation(), batch._replace(coarse_probability=batch.masks), torch.Generator().manual_seed(seed)
    )
    assert torch.equal((twin.coarse_probability >= 0.5).float(), moved.masks)  # type: ignore[operator] # it has them
    assert not torch.equal(moved.masks, batch.masks)
    soft = moved.coarse_probability
    assert soft is not None
    assert ((soft > 0.05) & (soft < 0.95)).sum() > 50
    twice = augmented(
        Augmentation(), batch._replace(other_masks=batch.masks.flip(-1)), torch.Generator().manual_seed(seed)
    )
    assert torch.equal(twice.coarse_probability, soft)  # type: ignore[arg-type] # it has them
    assert twice.other_masks is not None
    assert set(twice.other_masks.unique().tolist()) <= {0.0, 1.0}
    assert augmented(None, batch, torch.Generator()) is batch


def test_an_augmentation_that_makes_all_masks_hard_is_refused() -> None:
    class Flip(nn.Module):
        def forward(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return images.flip(-1), masks.flip(-1)

    batch = batch_of("simulated")
    with pytest.raises(ValueError, match=r"must have a method view\(images, masks, generator\) .* but Flip has none"):
        augmented(Flip(), batch, torch.Generator())
    plain = augmented(Flip(), batch._replace(coarse_probability=None), torch.Generator())
    assert torch.equal(plain.masks, batch.masks.flip(-1))


def weights_of(recipe: RefinerRecipe) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in recipe.refiner.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("kind", ["simulated", "mixed"])
def test_a_run_that_was_broken_off_and_one_with_workers_end_alike(
    kind: str, ultra: Ultra, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"epochs": 2, "epoch_size": 6, "batch_size": 2}
    whole = recipe_of(ultra, roi=True)
    start = weights_of(whole)
    fit(whole, dataset=data(kind), folder=tmp_path / "whole", **options)
    assert not equal(start, weights_of(whole))
    with_workers = recipe_of(ultra, roi=True)
    fit(with_workers, dataset=data(kind), folder=tmp_path / "workers", workers=2, **options)
    assert equal(weights_of(whole), weights_of(with_workers))

    broken = data(kind)
    made, left = broken.__getitems__, iter(range(5))  # batches: into the second epoch

    def until_unplugged(indices: list[int]) -> list[FittedCase]:
        if next(left, None) is None:
            raise UnpluggedError
        cases: list[FittedCase] = made(indices)
        return cases

    monkeypatch.setattr(broken, "__getitems__", until_unplugged)
    with pytest.raises(UnpluggedError):
        fit(recipe_of(ultra, roi=True), dataset=broken, checkpoint_every=1, **options)
    with pytest.raises(ValueError, match=r"another training set|coarse.*seed"):
        fit(recipe_of(ultra, roi=True), dataset=data(kind, seed=1), **options)
    resumed = recipe_of(ultra, roi=True)
    result = fit(resumed, dataset=data(kind), **options)
    assert (result.resumed_from, result.steps) == (5, 6)
    assert equal(weights_of(whole), weights_of(resumed))


def test_stored_masks_can_validate(ultra: Ultra, fit: Fit) -> None:
    validation = SimulatedFailures(
        FittedCases(Phantoms(3, size=(32, 40), seed=1), 32), FailureSimulator(), samples=5, size=24
    )
    result = fit(recipe_of(ultra), dataset=data("mixed"), validation=validation, epochs=1)
    with (result.folder / "metrics.csv").open() as lines:
        row = next(csv.DictReader(lines))
    batch = collate([validation[index] for index in range(5)])
    assert batch.coarse_probability is not None
    expected = dice_of_images(batch.coarse_probability, batch.masks).mean().item()
    assert float(row["validation/coarse_dice"]) == pytest.approx(expected, abs=1e-5)


class Watched(list[FittedCase]):
    """Cases that note who was asked for."""

    def __init__(self, cases: list[FittedCase]) -> None:
        super().__init__(cases)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> FittedCase:  # type: ignore[override] # no slices
        self.asked.append(index)
        return super().__getitem__(index)


def test_epochs_walk_through_the_data_in_training(coarse: Any, fit: Fit, cases: list[FittedCase]) -> None:
    watched = Watched(cases)
    result = fit(coarse(), dataset=watched, epochs=6, epoch_size=4, batch_size=2)
    assert result.steps == 12
    seen = watched.asked[-24:]
    for start in range(0, 24, 6):
        assert sorted(seen[start : start + 6]) == list(range(6))
    with pytest.raises(ValueError, match=r"plan.epoch_size was 4, but now it is 3"):
        fit(coarse(), dataset=cases, epochs=6, epoch_size=3, batch_size=2)
    with pytest.raises(ValueError, match=r"epoch_size must be at least 1 case, or None for all of them, but it is 0"):
        fit(coarse(), dataset=cases, epoch_size=0)


@settings(deadline=None, max_examples=40)
@given(
    cases=st.integers(1, 23),
    epoch_size=st.integers(1, 50),
    batch_size=st.integers(1, 5),
    processes=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_all_cases_come_once_before_one_comes_twice(
    cases: int, epoch_size: int, batch_size: int, processes: int, seed: int
) -> None:
    plan = Plan(epochs=1, cases=cases, epoch_size=epoch_size, batch_size=batch_size, processes=processes, seed=seed)
    shares = [SharedBatches(plan, rank=rank) for rank in range(processes)]
    walked: list[int] = []
    for epoch in range(-(-3 * cases // epoch_size)):
        parts = []
        for share in shares:
            share.begin(epoch)
            batches = list(share)
            assert len(batches) == len(share) == plan.batches_per_epoch
            for skip in range(len(batches) + 1):
                share.begin(epoch, skip=skip)
                assert list(share) == batches[skip:]
            parts.append([case for batch in batches for case in batch])
        assert len({len(part) for part in parts}) == 1, "a process would wait for another"
        order = [case for together in zip(*parts, strict=True) for case in together]
        assert 0 <= len(order) - epoch_size < processes
        walked += order[:epoch_size]  # less what fills up the last turn
    for start in range(0, 3 * cases, cases):
        assert sorted(walked[start : start + cases]) == list(range(cases))
    whole = SharedBatches(dataclasses.replace(plan, epoch_size=None, processes=1), rank=0)
    for epoch in range(3):
        whole.begin(epoch)
        assert [case for batch in whole for case in batch] == walked[epoch * cases : (epoch + 1) * cases]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_through_all_samples_meets_the_share_exactly(processes: int) -> None:
    mixed = data("mixed", samples=750)
    assert len(mixed) == 1000
    plan = Plan(epochs=10, cases=len(mixed), epoch_size=100, batch_size=8, processes=processes)
    found: Counter[bool] = Counter()
    for rank in range(processes):
        share = SharedBatches(plan, rank=rank)
        for epoch in range(10):
            share.begin(epoch)
            found.update(mixed.is_predicted(index) for batch in share for index in batch)
    assert found == {True: 250, False: 750}
