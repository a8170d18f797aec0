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
    for options in ({"redecode": False}, {"boundary_weight": 0.0}, {"consistency_weight": 100.0}):
        assert loss(CorrectionRecipe(segvol(), correction(), **plain, **options)) != third


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
        ({"loss": DiceBCELoss()}, 'loss must return one value a volume.*DiceBCELoss with reduction="none"'),
        ({"boundary": BoundaryLoss()}, "boundary must return one value a volume"),
        ({"boundary_weight": -1.0}, "boundary_weight at least 0"),
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
