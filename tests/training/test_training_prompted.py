"""AutoSAM and AutoMedSAM learn: one from masks, the other from boxes; SAM stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ultrarefiner.data import (
    Augmentation,
    BoxTable,
    CachedEmbeddings,
    EmbeddingCache,
    FittedCases,
    Phantoms,
)
from ultrarefiner.losses import paper_weak_box_loss
from ultrarefiner.ops import fill_box, jitter_box
from ultrarefiner.prompts import PromptModule, TokenPromptModule
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import AutoMedSAM, AutoSAM, SAMRefiner, UltraRefiner, build_autosam_generator
from ultrarefiner.training import AutoMedSAMRecipe, AutoSAMRecipe, MaskedAutoMedSAMRecipe, load_coarse, train

QUICK = {"batch_size": 4, "tensorboard": False, "progress": False}
CASES = FittedCases(Phantoms(8, size=(48, 64)), 64)
OTHERS = FittedCases(Phantoms(4, size=(48, 64), seed=1), 64)


def autosam() -> AutoSAM:
    torch.manual_seed(0)
    return AutoSAM(
        build_sam("tiny", image_size=64), build_autosam_generator("tiny", channels=64, size=4), input_size=64
    )


def automedsam(*, tokens: bool = False) -> AutoMedSAM:
    torch.manual_seed(0)
    module = (
        TokenPromptModule(channels=64, hidden=16, pooled=4)
        if tokens
        else PromptModule(channels=64, hidden=16, pooled=4, image_size=64)
    )
    return AutoMedSAM(build_sam("tiny", image_size=64), module)


def frozen(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.sam.state_dict().items()}


def test_the_score_that_chooses_is_named() -> None:
    assert AutoSAMRecipe(autosam()).score_name == "Dice"
    assert MaskedAutoMedSAMRecipe(automedsam()).score_name == "Dice"
    assert AutoMedSAMRecipe(automedsam()).score_name == "Dice of boxes"
    assert AutoMedSAMRecipe(automedsam(), choose_by="mask").score_name == "Dice"


def test_autosam_learns_masks_and_leaves_sam_alone(tmp_path: Path) -> None:
    model = autosam()
    before = frozen(model)
    recipe = AutoSAMRecipe(model, augmentation=None, learning_rate=1e-2)
    result = train(recipe, CASES, validation=OTHERS, folder=tmp_path, epochs=6, **QUICK)
    losses = [float(line.split(",")[2]) for line in _rows(tmp_path)]
    assert losses[-1] < losses[0] - 0.01  # a SAM of random weights can be told little
    assert all(torch.equal(before[name], tensor) for name, tensor in model.sam.state_dict().items())
    whole = UltraRefiner(coarse=autosam(), refiner=SAMRefiner(build_sam("tiny", image_size=64)))
    load_coarse(whole.coarse, result.best, unseen=[OTHERS])
    assert whole(torch.rand(1, 1, 48, 60)).coarse_logits.shape == (1, 1, 48, 60)


@pytest.mark.parametrize("tokens", [False, True])
def test_automedsam_learns_from_boxes_alone(tmp_path: Path, tokens: bool) -> None:
    model = automedsam(tokens=tokens)
    before = frozen(model)
    options = {"loss": paper_weak_box_loss()} if tokens else {"jitter": 0.02}
    recipe = AutoMedSAMRecipe(model, learning_rate=1e-2, **options)
    train(recipe, CASES, validation=OTHERS, folder=tmp_path, epochs=10, **QUICK)
    losses = [float(line.split(",")[2]) for line in _rows(tmp_path)]
    assert losses[-1] < 0.95 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.sam.state_dict().items())


def test_stored_embeddings_give_the_same_training(tmp_path: Path) -> None:
    found = []
    for cached in (False, True):
        model = automedsam()
        dataset = CASES
        if cached:
            cache = EmbeddingCache(tmp_path / "cache", model.sam)
            cache.fill(CASES, progress=False)
            dataset = CachedEmbeddings(CASES, cache)
            model.sam.image_encoder.register_forward_pre_hook(lambda *_: pytest.fail("the encoder ran"))
        train(AutoMedSAMRecipe(model), dataset, folder=tmp_path / str(cached), epochs=2, **QUICK)
        found.append([float(line.split(",")[2]) for line in _rows(tmp_path / str(cached))])
    assert found[1] == pytest.approx(found[0], rel=2e-3)


def _rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()[1:]


@pytest.mark.parametrize("build", ["autosam", "automedsam"])
def test_stored_embeddings_of_moved_images_are_refused(tmp_path: Path, build: str) -> None:
    model = autosam() if build == "autosam" else automedsam()
    recipe_of = AutoSAMRecipe if build == "autosam" else AutoMedSAMRecipe
    cache = EmbeddingCache(tmp_path / "cache", model.sam)
    cache.fill(CASES, progress=False)
    with pytest.raises(ValueError, match="augmentation must be None with stored embeddings"):
        train(
            recipe_of(model, augmentation=Augmentation()), CachedEmbeddings(CASES, cache), folder=tmp_path, epochs=1,
            **QUICK,
        )  # fmt: skip


def test_a_checkpoint_is_chosen_by_boxes_or_by_masks() -> None:
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2, 2:6] = masks[..., 2:6, 2] = 1  # an L in a box of 4 x 4
    full = fill_box(masks)
    assert full.sum() == 16
    by_box, by_mask = (AutoMedSAMRecipe(automedsam(), choose_by=word) for word in ("box", "mask"))
    assert by_box.dice(full, masks).item() == 1
    assert by_mask.dice(full, masks).item() == pytest.approx(2 * 7 / (16 + 7))
    assert fill_box(torch.zeros(1, 1, 3, 3)).sum() == 0


def test_jitter_moves_each_side_by_its_share_and_no_more() -> None:
    boxes = torch.tensor([[[10.0, 20.0, 30.0, 60.0]]]).repeat(500, 1, 1)
    moved = jitter_box(boxes, 0.1, torch.Generator().manual_seed(0)) - boxes
    assert moved[..., 0::2].abs().max() <= 2
    assert moved[..., 1::2].abs().max() <= 4
    assert moved[..., 1::2].abs().max() > 3.9
    assert (moved.std(0) > 0.5).all()


@pytest.mark.parametrize("wrong", [{"jitter": 0.5}, {"jitter": -0.1}, {"choose_by": "dice"}])
def test_what_is_out_of_range_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="jitter must be a share of a box's side"):
        AutoMedSAMRecipe(automedsam(), **wrong)


def table(root: Path, rows: str) -> BoxTable:
    for name in ("a", "b2", "b10"):
        Image.new("L", (40, 30), 90).save(root / f"{name}.png")
    (root / "boxes.csv").write_text("case,x0,y0,x1,y1\n" + rows)
    return BoxTable(root, root / "boxes.csv", group=lambda name: name[0])


def test_a_table_of_boxes_is_a_data_set_without_any_mask(tmp_path: Path) -> None:
    cases = table(tmp_path, "a,1.4,2,10.6,8\nb10,0,0,40,30\nb10,3,3,4,4\n")
    assert (cases.names, cases.groups, cases.unseen) == (("a", "b2", "b10"), ("a", "b", "b"), False)
    assert cases[0].mask.sum() == 10 * 6
    assert cases[1].mask.sum() == 0
    assert cases[2].mask.sum() == 40 * 30
    assert cases.subset(["b10"]).names == ("b10",)
    model = automedsam()
    train(AutoMedSAMRecipe(model), FittedCases(cases, 64), folder=tmp_path / "run", epochs=1, **QUICK)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("c,1,2,3,4\n", "has a box of 'c', but .* has no image of that name"),
        ("a,1,x,3,4\n", "must have numbers in x0, y0, x1, y1, but the row of 'a' has not"),
        ("a,1,2,41,4\n", "must cover a pixel and lie inside its image of width 40 and height 30"),
        ("a,5,2,5,4\n", "must have 0 <= x0 < x1 and 0 <= y0 < y1"),
        ("a,5,nan,5,4\n", "must have 0 <= x0 < x1 and 0 <= y0 < y1"),
        ("a,5.1,2,5.3,4\n", "must cover a pixel"),
    ],
)
def test_boxes_that_cannot_be_are_said(tmp_path: Path, rows: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _ = table(tmp_path, rows)[0]


def test_masks_teach_automedsam_more_than_boxes_say(tmp_path: Path) -> None:
    """On its own training cases, so that only the loss makes the difference; SAM is random, its decoder included."""
    model = automedsam()
    before = frozen(model)
    cache = EmbeddingCache(tmp_path / "cache", model.sam)
    cache.fill(CASES, progress=False)
    recipe = MaskedAutoMedSAMRecipe(model, learning_rate=1e-2)
    train(recipe, CachedEmbeddings(CASES, cache), folder=tmp_path / "run", epochs=6, **QUICK)
    losses = [float(line.split(",")[2]) for line in _rows(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.01
    assert all(torch.equal(before[name], tensor) for name, tensor in model.sam.state_dict().items())
    with pytest.raises(ValueError, match="augmentation must be None with stored embeddings"):
        train(
            MaskedAutoMedSAMRecipe(automedsam(), augmentation=Augmentation()), CachedEmbeddings(CASES, cache),
            folder=tmp_path / "other", epochs=1, **QUICK,
        )  # fmt: skip
