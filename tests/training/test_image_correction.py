"""A correction for images learns from clicks, after any network or on coarse masks alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import (
    Augmentation,
    Batch,
    FittedCases,
    Phantoms,
    SimulatedFailures,
    collate,
)
from ultrarefiner.losses import BoundaryLoss, ConsistencyLoss, DiceBCELoss
from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.prompts import next_click
from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import AutoSAM, CorrectedNetwork, SAMRefiner, UltraRefiner, build_autosam_generator
from ultrarefiner.systems.click_correction import correct_at_clicks, correct_on_raster
from ultrarefiner.training import ImageCorrectionRecipe, TrainingResult, simulate_corrections, train
from ultrarefiner.types import Clicks, MultiScaleLogits

SIDE = 32
QUICK: dict[str, Any] = {"batch_size": 4, "tensorboard": False, "progress": False, "accelerator": "cpu"}


def failures(count: int, seed: int, samples: int) -> SimulatedFailures:
    cases = FittedCases(Phantoms(count, size=(36, 48) if seed == 9 else (SIDE, SIDE), seed=seed), SIDE)
    return SimulatedFailures(cases, FailureSimulator(), samples=samples, seed=seed)


TRAINING, CHOOSING = failures(16, 0, 64), failures(8, 1, 16)


class Brightness(nn.Module):
    """A network with a weight, batch norm and an answer at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * nn.functional.avg_pool2d(self.norm(images), 2)


def correction(*, busy: bool = False, **options: Any) -> GRUCorrection:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = GRUCorrection(**{"points": 24, "hidden": 16, "dimensions": 2, "radius": 5.0, **options})
        if busy:
            for head in (made.value_head, made.shift_head):
                if head is not None:
                    nn.init.normal_(head.weight, std=0.4)
    return made


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 4, *, coarse: bool = True) -> Batch:
    found = collate([TRAINING[index] for index in range(count)])
    return found if coarse else found._replace(coarse_probability=None)


def one(found: Batch, index: int) -> Batch:
    """An element of a batch, alone."""
    return Batch(*(part if part is None else part[index : index + 1] for part in found))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in first.items())


def column(folder: Path, name: str) -> list[float]:
    head, *rows = (folder / "metrics.csv").read_text().splitlines()
    place = head.split(",").index(name)
    return [float(row.split(",")[place]) for row in rows if row.split(",")[place]]


def test_it_learns_to_repair_simulated_failures(tmp_path: Path) -> None:
    corrected, cases = correction(points=40, hidden=32, radius=6.0), failures(32, 0, 256)
    recipe = ImageCorrectionRecipe(None, corrected, largest_logit=2.0, learning_rate=5e-3, augmentation=None)
    options = {**QUICK, "batch_size": 8}
    result: TrainingResult = train(recipe, cases, validation=CHOOSING, folder=tmp_path, epochs=5, **options)
    found = column(tmp_path, "epoch/loss")
    assert found[-1] < 0.98 * found[0]
    coarse = column(tmp_path, "validation/coarse_dice")
    assert len(set(coarse)) == 1, "validation corrects the same masks in every epoch"
    assert result.best_dice is not None
    assert result.best_dice > coarse[0] + 0.025, "three clicks into phantoms that nobody has trained on"
    recipe.module.load_state_dict(read_tensors(result.best)["model"])
    seen = collate([CHOOSING[index] for index in range(16)])
    with torch.no_grad():
        prediction = recipe.predict(seen, range(16))
    assert recipe.dice(prediction.probability, seen.masks).mean() == pytest.approx(result.best_dice, abs=1e-5)
    assert recipe.dice(prediction.coarse_probability, seen.masks).mean() == pytest.approx(coarse[0], abs=1e-5)


@torch.no_grad()
def test_coarse_masks_are_the_first_answer_no_surer_than_allowed() -> None:
    seen = batch()
    for limit in (None, 4.0):
        recipe = ImageCorrectionRecipe(None, correction(), largest_logit=limit)
        expected = finite_logit(seen.coarse_probability).clamp(-(limit or 99.0), limit or 99.0).sigmoid()
        prediction = recipe.predict(seen, range(4))
        torch.testing.assert_close(prediction.coarse_probability, expected)
        assert torch.equal(prediction.probability, prediction.coarse_probability), "a fresh correction changes nothing"


def test_a_network_is_asked_and_stays(tmp_path: Path) -> None:
    network, corrected = Brightness(), correction()
    before, fresh = state(network), state(corrected)
    recipe = ImageCorrectionRecipe(network, corrected, learning_rate=1e-2)
    assert recipe.unfreezing.starts == {"network": None}
    assert set(recipe.parts()) == {"network", "correction"}
    result = train(
        recipe, TRAINING.dataset, validation=CHOOSING.dataset, folder=tmp_path, epochs=2, clip_norm=1.0, **QUICK
    )
    assert same(before, state(network)), "weights and the averages of batch norm"
    assert not same(fresh, state(corrected))
    assert result.best_dice is not None


def test_a_broken_off_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    def recipe() -> ImageCorrectionRecipe:
        return ImageCorrectionRecipe(Brightness(), correction(), augmentation=Augmentation())

    def stop(moment: Any) -> None:
        raise KeyboardInterrupt

    whole, part, again = recipe(), recipe(), recipe()
    cases = TRAINING.dataset
    train(whole, cases, folder=tmp_path / "whole", epochs=2, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(part, cases, folder=tmp_path / "part", epochs=2, watchers=[stop], **QUICK)
    result = train(again, cases, folder=tmp_path / "part", epochs=2, **QUICK)
    assert result.resumed_from == 4
    assert same(state(whole.module), state(again.module))


@pytest.mark.parametrize("side", [None, 20])
@torch.no_grad()
def test_a_batch_is_each_element_and_what_a_person_is_answered(side: int | None) -> None:
    corrected = correction(busy=True).double()  # so that no rounding exchanges two points
    seen = batch()
    masks, logits = seen.masks.double(), finite_logit(seen.coarse_probability.double())
    options: dict[str, Any] = {"clicks": 3, "correction": corrected, "correction_side": side}
    found = simulate_corrections(logits, masks, **options)
    assert len(found) == 4
    for before, after in pairwise(found):
        expected = next_click(before.logits.sigmoid(), masks)
        assert torch.equal(after.clicks.positions[:, -1:], expected.positions)
        assert not torch.equal(before.logits, after.logits)
        assert torch.equal(after.logits.where(~after.edited, 0), logits.where(~after.edited, 0))
    assert found[-1].clicks.valid.all()
    network = CorrectedNetwork(nn.Identity(), corrected, correction_side=side)
    for index in range(4):
        alone = simulate_corrections(logits[index : index + 1], masks[index : index + 1], **options)
        for number in range(4):
            torch.testing.assert_close(alone[number].logits, found[number].logits[index : index + 1])
        told = found[-1].clicks
        clicks = Clicks(*(part[index : index + 1] for part in (told.positions, told.positive, told.valid)))
        torch.testing.assert_close(network(logits[index], clicks=clicks), found[-1].logits[index])


@torch.no_grad()
def test_predictions_of_a_batch_are_those_of_each_element() -> None:
    recipe = ImageCorrectionRecipe(None, correction(busy=True).double(), augmentation=None)
    seen = batch()
    seen = seen._replace(masks=seen.masks.double(), coarse_probability=seen.coarse_probability.double())
    together = recipe.predict(seen, range(4))
    for index in range(4):
        alone = recipe.predict(one(seen, index), [index])
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(part, whole[index : index + 1])


@torch.no_grad()
def test_what_is_right_is_not_clicked_and_stays() -> None:
    seen = batch()
    logits = finite_logit(seen.coarse_probability)
    logits[1] = 20 * (seen.masks[1] - 0.5)
    found = simulate_corrections(logits, seen.masks, clicks=2, correction=correction(busy=True))
    assert torch.equal(found[-1].logits[1], logits[1])
    assert found[-1].clicks.valid[1].tolist() == [False, False]
    assert found[-1].clicks.valid[[0, 2, 3]].any(1).all()


@torch.no_grad()
def test_a_raster_of_many_images_is_that_of_one() -> None:
    logits = torch.randn(3, 1, 30, 50, generator=generator())
    places, positive = [(0, 0), (29, 49), (13, 24)], [True, False, True]
    clicks = Clicks(torch.tensor(places)[:, None], torch.tensor(positive)[:, None], torch.ones(3, 1, dtype=torch.bool))
    for side in (None, 10, 17, 90):
        found = correct_on_raster(WrittenClicks(count=3), logits, clicks, side=side)
        for index in range(3):
            told = ((places[index], positive[index]),)
            alone = correct_at_clicks(WrittenClicks(count=3), logits[index : index + 1], told, side=side)
            assert torch.equal(alone.logits, found.logits[index : index + 1])


def padded() -> Batch:
    """Images in the upper part of their frame, with coarse masks that run on below."""
    cases = failures(4, 9, 4)
    found = collate([cases[index] for index in range(4)])
    assert found.content_sizes[:, 0].max() < SIDE
    coarse = found.coarse_probability.clone()
    coarse[:, :, 20:] = 1.0
    return found._replace(coarse_probability=coarse)


@torch.no_grad()
def test_padding_is_not_clicked_and_nothing_is_predicted_there_before() -> None:
    seen, recipe = padded(), ImageCorrectionRecipe(None, correction(busy=True), clicks=5, augmentation=None)
    answers = recipe._answers(seen, 5, generator())
    positions, valid = answers[-1].clicks.positions, answers[-1].clicks.valid
    assert valid.any(1).all()
    assert (positions[..., 0] < seen.content_sizes[:, None, 0])[valid].all()
    below = torch.arange(SIDE) >= seen.content_sizes[:, 0][:, None]
    assert (recipe.predict(seen, range(4)).coarse_probability[:, 0, :, 0][below] < 1e-5).all()


def test_an_image_without_a_lesion_counts() -> None:
    seen = batch(1)
    empty = seen._replace(masks=torch.zeros_like(seen.masks))
    corrected = correction(busy=True)
    recipe = ImageCorrectionRecipe(None, corrected, augmentation=None)
    found = recipe.step(empty, generator())
    found.loss.backward()
    assert found.loss > 0
    assert corrected.value_head.weight.grad is not None
    assert corrected.value_head.weight.grad.norm() > 0
    nothing = recipe.step(empty._replace(coarse_probability=torch.zeros_like(seen.masks)), generator())
    assert nothing.dice == 1


@pytest.mark.parametrize("weight", ["boundary_weight", "consistency_weight"])
@pytest.mark.parametrize("side", [None, 20])
def test_each_term_has_a_gradient_in_its_weight(weight: str, side: int | None) -> None:
    def gradient(value: float) -> Tensor:
        corrected = correction(busy=True, radius=3.0)
        options: dict[str, Any] = {"boundary_weight": 0.0, "consistency_weight": 0.0, weight: value}
        recipe = ImageCorrectionRecipe(None, corrected, correction_side=side, augmentation=None, **options)
        recipe.step(batch(), generator(4)).loss.backward()
        assert all(parameter.grad is not None for parameter in corrected.parameters())
        return torch.cat([parameter.grad.flatten() for parameter in corrected.parameters()])

    without, once, twice = (gradient(value) for value in (0.0, 1.0, 2.0))
    of_term = once - without
    assert of_term.norm() > 1e-5 * without.norm()
    torch.testing.assert_close(twice - once, of_term, rtol=1e-2, atol=1e-2 * float(of_term.abs().max()))


def test_a_step_draws_from_its_own_generator_alone_and_clicks_at_least_once() -> None:
    recipe = ImageCorrectionRecipe(None, correction(busy=True), augmentation=Augmentation())
    before = torch.get_rng_state()
    first, again, other = (recipe.step(batch(), generator(seed)).loss.item() for seed in (2, 2, 3))
    assert first == again
    assert first != other
    assert torch.equal(before, torch.get_rng_state())
    for seed in range(20):
        assert recipe.step(batch(1), generator(seed)).loss.requires_grad


class Deep(Brightness):
    """With deep supervision."""

    def forward(self, images: Tensor) -> MultiScaleLogits:
        logits = super().forward(images)
        return MultiScaleLogits(logits, (logits[..., ::2, ::2],))


def networks() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam("tiny", image_size=64)
        refiner = UltraRefiner(coarse=nn.Conv2d(1, 1, 3, padding=1), refiner=SAMRefiner(sam))
        return [Deep(), refiner, AutoSAM(sam, build_autosam_generator("tiny", channels=64, size=4), input_size=64)]


def test_whatever_answers_without_a_prompt_is_corrected() -> None:
    seen = batch(2, coarse=False)
    for network in networks():
        corrected = correction(busy=True)
        recipe = ImageCorrectionRecipe(network.eval(), corrected, augmentation=None)
        found = recipe.step(seen, generator())
        found.loss.backward()
        assert all(parameter.grad is None for parameter in network.parameters())
        assert corrected.value_head.weight.grad.abs().sum() > 0
        with torch.no_grad():
            before = recipe.predict(seen, range(2)).coarse_probability
            expected = torch.stack([CorrectedNetwork(network, corrected)(image).sigmoid() for image in seen.images])
        torch.testing.assert_close(before, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": DiceBCELoss()}, 'loss must return one value a mask.*DiceBCELoss with reduction="none"'),
        ({"boundary": BoundaryLoss()}, "boundary must return one value a mask"),
        ({"consistency": ConsistencyLoss()}, "consistency must return one value a mask"),
        ({"boundary_weight": -1.0}, "boundary_weight must be finite and at least 0"),
        ({"consistency_weight": float("nan")}, "consistency_weight must be finite and at least 0"),
        ({"clicks": 0}, "clicks at least 1"),
        ({"largest_logit": 0.0}, "largest_logit must be None or a finite number above 0, but it is 0.0"),
        ({"correction_side": 0}, "correction_side must be None or at least 1"),
        ({"correction": GRUCorrection(points=2, hidden=2)}, "correction must be for 2 dimensions.*they are 3"),
    ],
)
def test_what_is_out_of_range_is_said(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ImageCorrectionRecipe(None, **{"correction": correction(), **options})


def test_masks_that_are_missing_or_too_many(unhooked: None) -> None:
    with pytest.raises(ValueError, match=r"network must be None exactly where .* is None and there are none"):
        ImageCorrectionRecipe(None, correction()).step(batch(coarse=False), generator())
    with pytest.raises(ValueError, match=r"network must be None exactly where .* is there and so are they"):
        ImageCorrectionRecipe(Brightness(), correction()).step(batch(), generator())
    with pytest.raises(ValueError, match=r"network must answer 4 images with logits of one mask.*\(4, 3, 32, 32\)"):
        ImageCorrectionRecipe(nn.Conv2d(1, 3, 1), correction()).step(batch(coarse=False), generator())
    logits = torch.zeros(1, 1, 8, 8)
    for clicks, other in ((-1, logits), (1, logits[..., :4])):
        with pytest.raises(ValueError, match="logits and masks must have one shape and clicks be at least 0"):
            simulate_corrections(logits, other, clicks=clicks, correction=WrittenClicks())


def test_options_change_the_loss() -> None:
    def loss(**options: Any) -> float:
        made = {"correction": correction(busy=True), "augmentation": None, **options}
        return ImageCorrectionRecipe(None, **made).step(batch(), generator(4)).loss.item()

    plain = loss()
    changes: list[dict[str, Any]] = [{"correction_side": 20}, {"largest_logit": 4.0}]
    changes += [{"boundary_weight": 0.0}, {"consistency_weight": 100.0}]
    for options in [*changes, {"augmentation": Augmentation()}]:
        assert loss(**options) != plain
