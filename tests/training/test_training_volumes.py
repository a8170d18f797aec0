"""SegVol and its correction learn from volumes, boxes and clicks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset

from ultrarefiner.data import (
    FittedVolume,
    FittedVolumes,
    OrganCases,
    OrganPhantoms,
    VolumeAugmentation,
    VolumeBatch,
    VolumeView,
    collate_volumes,
)
from ultrarefiner.losses import BoundaryLoss, DiceBCELoss
from ultrarefiner.networks import SegVol, build_segvol
from ultrarefiner.prompts import next_click
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.training import CorrectionRecipe, SegVolRecipe, dice_of_volumes, simulate_clicks, train
from ultrarefiner.training import volumes as volume_recipes

SIZE = (16, 32, 32)
QUICK: dict[str, Any] = {"batch_size": 2, "tensorboard": False, "progress": False, "accelerator": "cpu"}
ORGANS = ["lobed organ", "round organ"]
CASES = FittedVolumes(OrganCases(OrganPhantoms(2, size=SIZE), organs=ORGANS), SIZE)
OTHERS = FittedVolumes(OrganCases(OrganPhantoms(1, size=SIZE, seed=1), organs=ORGANS), SIZE)


def segvol() -> SegVol:
    torch.manual_seed(0)
    return build_segvol("tiny", volume_size=SIZE)


def correction(**options: Any) -> GRUCorrection:
    torch.manual_seed(1)
    return GRUCorrection(points=32, hidden=32, **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> VolumeBatch:
    return collate_volumes([CASES[index] for index in range(4)])


def losses(folder: Path) -> list[float]:
    head, *rows = (folder / "metrics.csv").read_text().splitlines()
    return [float(row.split(",")[head.split(",").index("epoch/loss")]) for row in rows]


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_stage_one_learns_and_stage_two_goes_on_from_it(tmp_path: Path) -> None:
    model = segvol()
    first = SegVolRecipe(model, learning_rate=2e-3, augmentation=None)
    result = train(first, CASES, validation=OTHERS, folder=tmp_path / "1", epochs=5, **QUICK)
    found = losses(tmp_path / "1")
    assert found[-1] < 0.9 * found[0]
    assert result.best_dice is not None
    before = state(model)
    second = SegVolRecipe(model, stage="box_points", learning_rate=1e-3, augmentation=None)
    train(second, CASES, validation=OTHERS, folder=tmp_path / "2", epochs=1, **QUICK)
    assert losses(tmp_path / "2")[0] < found[0]
    assert not same(before, state(model))
    head = (tmp_path / "2" / "metrics.csv").read_text().splitlines()[0]
    assert "epoch/boundary" in head
    assert "validation/coarse_dice" in head


def test_the_correction_learns_and_a_frozen_network_stays(tmp_path: Path) -> None:
    model, corrected = segvol(), correction()
    before = state(model)
    recipe = CorrectionRecipe(model, corrected, redecode=False, learning_rate=1e-2, augmentation=None)
    train(recipe, CASES, validation=OTHERS, folder=tmp_path, epochs=3, **QUICK)
    assert same(before, state(model))
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    free = CorrectionRecipe(model, correction(), model_rate=1e-3, augmentation=None)
    assert [group.name for group in free.parameter_groups()] == ["correction", "segvol"]
    train(free, CASES, folder=tmp_path / "free", epochs=1, **QUICK)
    assert not same(before, state(model))


@pytest.mark.parametrize("kind", ["segvol", "correction"])
def test_a_broken_off_run_ends_in_the_same_weights(tmp_path: Path, kind: str) -> None:
    def recipe() -> SegVolRecipe | CorrectionRecipe:
        augmentation = VolumeAugmentation(flip=0.5, intensity=0.5)
        if kind == "segvol":
            return SegVolRecipe(segvol(), stage="box_points", augmentation=augmentation)
        return CorrectionRecipe(segvol(), correction(), augmentation=augmentation)

    whole, part = recipe(), recipe()
    train(whole, CASES, folder=tmp_path / "whole", epochs=2, **QUICK)

    def stop(moment: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(part, CASES, folder=tmp_path / "part", epochs=2, watchers=[stop], **QUICK)
    again = recipe()
    result = train(again, CASES, folder=tmp_path / "part", epochs=2, **QUICK)
    assert result.resumed_from == 2
    assert same(state(whole.module), state(again.module))


def test_a_step_draws_from_its_own_generator_alone() -> None:
    for recipe in (
        SegVolRecipe(segvol(), stage="box_points", view=VolumeView(SIZE)),
        CorrectionRecipe(segvol(), correction(), view=VolumeView(SIZE)),
    ):
        before = torch.get_rng_state()
        first, again, other = (recipe.step(batch(), generator(seed)).loss.item() for seed in (2, 2, 3))
        assert first == again
        assert first != other
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("redecode", [True, False])
def test_clicks_go_where_the_last_answer_is_wrong(redecode: bool) -> None:
    model, corrected = segvol().double(), correction().double()  # so that no rounding exchanges two points
    torch.nn.init.normal_(corrected.value_head.weight, std=0.5, generator=generator())
    seen = batch()
    seen = seen._replace(images=seen.images.double(), masks=seen.masks.double())
    box = torch.tensor([[4, 8, 8, 12, 24, 24]]).repeat(4, 1)
    with torch.no_grad():
        embedding = model.encode(seen.images)
        found = simulate_clicks(model, embedding, box, seen.masks, clicks=3, correction=corrected, redecode=redecode)
        each = [
            simulate_clicks(
                model, embedding[i : i + 1], box[i : i + 1], seen.masks[i : i + 1], clicks=3, correction=corrected,
                redecode=redecode,
            )
            for i in range(4)
        ]  # fmt: skip
    for number, (before, after) in enumerate(pairwise(found)):
        expected = next_click(before.logits.sigmoid(), seen.masks)
        assert torch.equal(after.clicks.positions[:, -1:], expected.positions)
        assert torch.equal(after.clicks.positive[:, -1:], expected.positive)
        assert after.clicks.positions.shape[1] == number + 1
        assert after.edited.any()
        if not redecode:
            assert torch.equal(after.logits.where(~after.edited, 0), found[0].logits.where(~after.edited, 0))
    for number, answer in enumerate(found):
        alone = torch.cat([one[number].logits for one in each])
        torch.testing.assert_close(alone, answer.logits, rtol=1e-4, atol=1e-4)


def test_the_decoder_alone_hears_the_clicks_and_somebody_must() -> None:
    model, seen = segvol(), batch()
    box = torch.tensor([[4, 8, 8, 12, 24, 24]]).repeat(4, 1)
    with torch.no_grad():
        embedding = model.encode(seen.images)
        found = simulate_clicks(model, embedding, box, seen.masks, clicks=1)
    assert not torch.equal(found[0].logits, found[1].logits)
    assert not found[1].edited.any()
    with pytest.raises(ValueError, match="redecode must be True where correction is None"):
        simulate_clicks(model, embedding, box, seen.masks, clicks=1, redecode=False)


def test_without_a_box_the_first_click_lies_in_the_object_and_prompts_alone() -> None:
    model, seen = segvol(), batch()
    with torch.no_grad():
        embedding = model.encode(seen.images)
        found = simulate_clicks(model, embedding, None, seen.masks, clicks=2)
        first = next_click(torch.zeros_like(seen.masks), seen.masks)
        points = first.positions.float(), first.positive.long()
        alone = model.enlarge(model.decode(embedding, points=points).mask_logits)
    assert found[0].logits.sigmoid().eq(0).all()
    assert torch.equal(found[1].clicks.positions, first.positions)
    assert first.positive.all()
    torch.testing.assert_close(found[1].logits, alone)
    with pytest.raises(ValueError, match="redecode must be True where boxes is None"):
        simulate_clicks(model, embedding, None, seen.masks, clicks=1, correction=correction(), redecode=False)


def test_stage_two_sees_clicks_alone_as_often_as_it_is_told() -> None:
    def loss(share: float) -> float:
        recipe = SegVolRecipe(segvol(), stage="box_points", augmentation=None, clicks_alone=share)
        return recipe.step(batch(), generator(4)).loss.item()

    assert loss(0.0) != loss(1.0)
    with pytest.raises(ValueError, match=r"clicks_alone in \[0, 1\]"):
        SegVolRecipe(segvol(), stage="box_points", clicks_alone=1.5)


@pytest.mark.parametrize("build", ["box", "box_points", "correction"])
def test_a_volume_without_the_object_does_not_count(build: str) -> None:
    model = segvol()
    recipe = (
        CorrectionRecipe(model, correction(), augmentation=None, jitter=0)
        if build == "correction"
        else SegVolRecipe(model, stage=build, augmentation=None, jitter=0)
    )
    one = collate_volumes([CASES[0]])
    two = collate_volumes([CASES[0], FittedVolume("empty", CASES[1].image, torch.zeros_like(CASES[1].mask))])
    three = collate_volumes([FittedVolume("empty", CASES[1].image, torch.zeros_like(CASES[1].mask))])
    # Equally deep voxels are drawn by one generator, for one volume after the other: the first alone, one click.
    alone, both, none = (recipe.step(these, generator(0)) for these in (one, two, three))
    if build == "box":
        torch.testing.assert_close(alone.loss, both.loss, rtol=1e-4, atol=1e-5)
    assert both.loss.isfinite()
    assert none.loss.item() == 0
    none.loss.backward()


def test_options_change_the_loss() -> None:
    def loss(recipe: SegVolRecipe | CorrectionRecipe) -> float:
        return recipe.step(batch(), generator(4)).loss.item()

    plain = {"augmentation": None}
    first = loss(SegVolRecipe(segvol(), **plain))
    for options in ({"box": "tight"}, {"jitter": 4}, {"view": VolumeView(SIZE, whole=0.0)}):
        assert loss(SegVolRecipe(segvol(), **{**plain, **options})) != first
    second = loss(SegVolRecipe(segvol(), stage="box_points", **plain))
    assert loss(SegVolRecipe(segvol(), stage="box_points", boundary_weight=1.0, **plain)) > second
    third = loss(CorrectionRecipe(segvol(), correction(), **plain))
    for options in ({"redecode": True}, {"boundary_weight": 0.0}):
        assert loss(CorrectionRecipe(segvol(), correction(), **plain, **options)) != third
    # An untrained correction changes nothing far from a click, a decoder that is told of it does.
    told = CorrectionRecipe(segvol(), correction(), redecode=True, consistency_weight=0.0, **plain)
    strict = CorrectionRecipe(segvol(), correction(), redecode=True, consistency_weight=100.0, **plain)
    assert loss(strict) > loss(told)


def test_patches_and_volumes_of_another_size(tmp_path: Path) -> None:
    large = FittedVolumes(OrganCases(OrganPhantoms(1, size=(20, 40, 40)), organs=ORGANS), None)
    assert large[0].image.shape == (1, 20, 40, 40)
    train(SegVolRecipe(segvol(), view=VolumeView(SIZE)), large, folder=tmp_path, epochs=1, **QUICK)
    with pytest.raises(ValueError, match="volume must be"):
        SegVolRecipe(segvol(), augmentation=None).step(collate_volumes([large[0]]), generator())
    with pytest.raises(ValueError, match="a batch needs volumes of one size"):
        collate_volumes([large[0], CASES[0]])


def test_a_subset_is_stacked_as_its_data_set_and_another_size_is_another_run(tmp_path: Path) -> None:
    part = Subset(CASES, [0, 1])
    recipe = SegVolRecipe(segvol(), augmentation=None)
    train(recipe, part, folder=tmp_path, epochs=1, **QUICK)
    again = FittedVolumes(CASES.dataset, SIZE, keep_in_memory=False)
    assert torch.equal(again[1].image, CASES[1].image)
    assert torch.equal(again[1].mask, CASES[1].mask)
    assert again.names == tuple(again[index].name for index in range(4))
    with pytest.raises(IndexError, match="index must be in 0 to 3"):
        again[4]
    with pytest.raises(ValueError, match="another training set"):
        train(recipe, Subset(FittedVolumes(CASES.dataset, None), [0, 1]), folder=tmp_path, epochs=1, **QUICK)


def test_what_trains_cannot_validate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation must hold no case that is trained on"):
        train(SegVolRecipe(segvol()), CASES, validation=CASES, folder=tmp_path, epochs=1, **QUICK)


def test_dice_is_of_each_volume() -> None:
    masks = batch().masks
    assert dice_of_volumes(masks, masks).tolist() == [1.0] * 4
    flipped = masks.flip(0)
    each = [2 * (a * b).sum() / (a.sum() + b.sum()) for a, b in zip(flipped, masks, strict=True)]
    torch.testing.assert_close(dice_of_volumes(flipped, masks), torch.stack(each))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": DiceBCELoss()}, 'loss must return one value a mask.*DiceBCELoss with reduction="none"'),
        ({"boundary": BoundaryLoss()}, "boundary must return one value a mask"),
        ({"boundary_weight": -1.0}, "boundary_weight must be finite and at least 0"),
        ({"box": "round"}, "box must be"),
        ({"clicks": -1}, "clicks (must be )?at least"),
    ],
)
def test_what_is_out_of_range_is_said(options: dict[str, Any], sentence: str, unhooked: None) -> None:
    with pytest.raises(ValueError, match=sentence):
        SegVolRecipe(segvol(), **options)
    with pytest.raises(ValueError, match=sentence):
        CorrectionRecipe(segvol(), correction(), **options)


def test_other_stages_and_dimensions_are_refused(unhooked: None) -> None:
    with pytest.raises(ValueError, match='stage must be "box" or "box_points"'):
        SegVolRecipe(segvol(), stage="points")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="correction must be for 3 dimensions"):
        CorrectionRecipe(segvol(), correction(dimensions=2))


class Recording(torch.nn.Module):
    """A loss that keeps the targets it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.targets = DiceBCELoss(reduction="none"), []

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.targets.append(target)
        return self.loss(logits, target)


@pytest.mark.parametrize("build", ["box", "box_points", "correction"])
def test_a_step_sees_the_volumes_augmented_and_validation_does_not(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recording, images = segvol(), Recording(), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda seen: (images.append(seen), encode(seen))[1])
    flip = VolumeAugmentation(flip=1.0, intensity=0.0)
    options: dict[str, Any] = {"augmentation": flip, "loss": recording}
    recipe = (
        CorrectionRecipe(model, correction(), **options)
        if build == "correction"
        else SegVolRecipe(model, stage=build, **options)
    )
    plain = batch()
    recipe.step(plain, generator(4))
    assert torch.equal(images[0], plain.images.flip(2, 3, 4))
    masks = plain.masks.flip(2, 3, 4).flatten(3)
    assert all(torch.equal(target, masks.expand_as(target)) for target in recording.targets)
    assert recording.targets
    with torch.no_grad():
        recipe.predict(plain, range(4))
    assert torch.equal(images[1], plain.images)
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("redecode", [True, False])
@pytest.mark.parametrize("weight", ["boundary_weight", "consistency_weight"])
def test_each_term_has_a_gradient_at_the_correction_in_its_weight(weight: str, redecode: bool) -> None:
    """A value that changes with a weight would be there of a term cut off from the graph as well."""

    def gradient(value: float) -> Tensor:
        corrected = correction(radius=3.0)
        for head in (corrected.value_head, corrected.shift_head):
            torch.nn.init.normal_(head.weight, std=0.2, generator=generator(5))
        options: dict[str, Any] = {"boundary_weight": 0.0, "consistency_weight": 0.0, weight: value}
        recipe = CorrectionRecipe(segvol(), corrected, redecode=redecode, augmentation=None, jitter=0, **options)
        recipe.step(batch(), generator(4)).loss.backward()
        assert all(parameter.grad is not None for parameter in corrected.parameters())
        return torch.cat([parameter.grad.flatten() for parameter in corrected.parameters()])

    without, once, twice = (gradient(value) for value in (0.0, 1.0, 2.0))
    of_term = once - without
    assert of_term.norm() > 1e-3 * without.norm()
    torch.testing.assert_close(twice - once, of_term, rtol=1e-3, atol=1e-4 * float(of_term.norm()))


def test_the_distance_from_the_surface_has_a_gradient_at_the_network() -> None:
    def gradient(value: float) -> Tensor:
        model = segvol()
        recipe = SegVolRecipe(model, stage="box_points", augmentation=None, clicks_alone=0.0, boundary_weight=value)
        recipe.step(batch(), generator(4)).loss.backward()
        return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    without, once = gradient(0.0), gradient(1.0)
    assert (once - without).norm() > 1e-3 * without.norm()


@pytest.mark.parametrize("redecode", [True, False])
@torch.no_grad()
def test_the_memory_is_carried_from_click_to_click(redecode: bool) -> None:
    model, corrected, seen = segvol().double(), correction(radius=6.0).double(), batch()
    for head in (corrected.value_head, corrected.shift_head):
        torch.nn.init.normal_(head.weight, std=0.3, generator=generator(5))
    masks, box = seen.masks.double(), torch.tensor([[4, 8, 8, 12, 24, 24]]).repeat(4, 1)
    embedding = model.encode(seen.images.double())
    found = simulate_clicks(model, embedding, box, masks, clicks=3, correction=corrected, redecode=redecode)
    state = None
    for before, after in pairwise(found):
        clicks = after.clicks
        assert clicks.valid.all()
        points = clicks.positions.float(), clicks.positive.long()
        logits = before.logits
        if redecode:
            logits = model.enlarge(model.decode(embedding, boxes=box.float(), points=points).mask_logits)
        else:
            clicks = type(clicks)(clicks.positions[:, -1:], clicks.positive[:, -1:], clicks.valid[:, -1:])
        expected = corrected(logits, clicks, state)
        torch.testing.assert_close(after.logits, expected.logits)
        if state is not None:
            forgetful = corrected(logits, clicks, None)
            assert (forgetful.logits - after.logits).abs().amax((1, 2, 3, 4)).min() > 1e-3, "in every volume"
        state = expected.state


def test_stage_two_draws_rounds_and_leaves_the_box_out_as_often_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def conversation(model: SegVol, embedding: Tensor, boxes: Tensor | None, masks: Tensor, **options: Any) -> Any:
        seen.append((boxes is None, options["clicks"]))
        return simulate_clicks(model, embedding, boxes, masks, clicks=1)

    monkeypatch.setattr(volume_recipes, "simulate_clicks", conversation)
    recipe = SegVolRecipe(segvol(), stage="box_points", augmentation=None, clicks_alone=0.3, boundary_weight=0.0)
    random, one = generator(0), collate_volumes([CASES[0]])
    for _ in range(60):
        recipe.step(one, random)
    alone = [without_box for without_box, _ in seen]
    assert 8 <= sum(alone) <= 28
    assert {rounds for without_box, rounds in seen if not without_box} >= {1, 2, 3}
    assert all(rounds >= 1 for without_box, rounds in seen if without_box)
