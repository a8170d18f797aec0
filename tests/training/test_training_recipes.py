"""The three recipes, on the real systems at their smallest."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from ultrarefiner.data import Augmentation, Batch, collate
from ultrarefiner.refinement import LearnedGate, ROICropper
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import SimpleFailures
from ultrarefiner.systems import SAMRefiner
from ultrarefiner.training import (
    CoarseRecipe,
    JointRecipe,
    RefinerRecipe,
    dice_of_images,
    freeze,
    load_coarse,
    load_refiner,
)
from ultrarefiner.training.coarse import augmented
from ultrarefiner.training.refiner import iou_term


@pytest.fixture
def batch(cases):
    return collate(cases[:3])


def gradients(model: nn.Module) -> set[str]:
    """Top-level parts that have a gradient other than zero."""
    return {
        name
        for name, part in model.named_children()
        if any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    }


def step(recipe, batch, seed: int = 0):
    return recipe.step(batch, torch.Generator().manual_seed(seed))


def test_coarse_step_is_the_loss_of_the_logits(coarse, batch) -> None:
    recipe = coarse()
    recipe.network.eval()
    result = step(recipe, batch)
    logits = recipe.network(batch.images)
    torch.testing.assert_close(result.loss, recipe.loss(logits, batch.masks))
    torch.testing.assert_close(result.dice, dice_of_images(logits.sigmoid(), batch.masks).mean())
    assert not result.terms["segmentation"].requires_grad


def test_augmentation_follows_the_generator(network, batch) -> None:
    recipe = CoarseRecipe(network().eval())
    losses = [step(recipe, batch, seed).loss.item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_refiner_step_damages_and_scores(ultra, batch) -> None:
    recipe = RefinerRecipe(ultra().refiner, augmentation=None)
    result = step(recipe, batch)
    generator = torch.Generator().manual_seed(0)
    damaged = recipe.failures(batch.masks, generator)
    refinement = recipe.refiner(batch.images, damaged)
    target = recipe.refiner.in_sam_frame(batch.masks, None, (32, 32))
    refined = recipe.loss(refinement.logits, batch.masks, damaged)
    iou = recipe.iou_loss(refinement.candidates.iou, refinement.candidates.logits, target, refinement.prompts.valid)
    torch.testing.assert_close(result.loss, refined + 0.1 * iou)
    torch.testing.assert_close(result.terms["coarse_dice"], dice_of_images(damaged, batch.masks).mean())
    assert 0.3 < result.terms["coarse_dice"] < 1


@pytest.fixture
def narrow():
    """Images whose content is the upper left of the frame, the lesion at its right edge."""
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 5:11, 10:16] = 1
    sizes = torch.tensor([[20, 16], [20, 16]])
    image = 0.2 + 0.6 * mask
    image[..., 20:, :] = image[..., 16:] = 0
    return Batch(image, mask, ("a", "b"), sizes, sizes)


@pytest.mark.parametrize("kind", ["refiner", "joint"])
def test_regions_stay_inside_the_content(ultra, narrow, kind) -> None:
    model = ultra()
    model.refiner.cropper = ROICropper(expand=0.2)
    seen = []
    model.refiner.register_forward_hook(lambda module, inputs, options, out: seen.append(out.boxes), with_kwargs=True)
    model.coarse.forward = lambda images: 20 * narrow.masks - 10 + 0 * images
    # Of failures that fit: a region that is wider than the content cannot stay inside it.
    recipe = RefinerRecipe(model.refiner, failures=SimpleFailures()) if kind == "refiner" else JointRecipe(model)
    with torch.no_grad():
        model.refiner(narrow.images, narrow.masks)
        assert (seen.pop()[..., 2] > 16.5).all(), "the padding would be seen"
        recipe.predict(narrow, [0, 1])
    assert (seen.pop()[..., 2] <= 16).all()
    step(replace(recipe, augmentation=None), narrow)
    assert (seen.pop()[..., 2] <= 16).all()
    if kind == "refiner":  # mirrored, the content ends at the frame's right edge, and the lesion is left of its middle
        mirrored = Augmentation(
            flip=1.0, rotation=0.0, scale=(1.0, 1.0), translation=0.0, gamma=(1.0, 1.0), gain=(1.0, 1.0)
        )
        step(replace(recipe, augmentation=mirrored), narrow)
        box = seen.pop()
        assert (box[..., 0] < 16).all()
        assert (box[..., 2] > 20).all()


def test_augmented_content_goes_where_the_image_goes(narrow, generator) -> None:
    geometry = Augmentation(gamma=(1.0, 1.0), gain=(1.0, 1.0), speckle=0.0, blur=0.0)
    bright = narrow._replace(images=0.95 * (narrow.images > 0))
    images, masks, _, content, *_ = augmented(geometry, bright, generator)
    assert masks.shape == narrow.masks.shape
    assert not torch.equal(masks, narrow.masks)
    for image, (height, width) in zip(images, content.tolist(), strict=True):
        rows, columns = (torch.nonzero((image[0] > 0.7).any(dim))[-1].item() + 1 for dim in (1, 0))
        assert abs(height - rows) <= 1
        assert abs(width - columns) <= 1
    assert augmented(None, narrow, generator) is narrow

    class Away(nn.Module):
        def forward(self, images, masks, generator):
            return 0 * images, 0 * masks

    gone = augmented(Away(), narrow, generator).content_sizes
    assert gone.tolist() == [[1, 1], [1, 1]]


def test_the_truth_in_a_region_is_a_label(ultra, batch) -> None:
    refiner = ultra().refiner
    refiner.cropper = ROICropper(expand=0.2)
    damaged = batch.masks.clone().requires_grad_()
    refinement = refiner(batch.images, damaged)
    assert refinement.boxes.requires_grad
    labels = []

    class Recording(nn.Module):
        def forward(self, iou, logits, target, valid):
            labels.append(target)
            return iou.mean()

    iou_term(Recording(), refiner, refinement, batch.masks, batch.images)
    assert not labels[0].requires_grad
    assert labels[0].max() > 0.9


def test_refiner_validation_is_the_same_whatever_the_batch(ultra, cases) -> None:
    recipe = RefinerRecipe(ultra().refiner.eval())
    with torch.no_grad():
        together = recipe.predict(collate(cases[:3]), [0, 1, 2])
        alone = [recipe.predict(collate(cases[i : i + 1]), [i]) for i in range(3)]
        other = recipe.predict(collate(cases[:3]), [3, 4, 5])
        seeded = RefinerRecipe(recipe.refiner, validation_seed=1).predict(collate(cases[:3]), [0, 1, 2])
    damaged = torch.cat([prediction.coarse_probability for prediction in alone])
    assert torch.equal(together.coarse_probability, damaged)
    torch.testing.assert_close(together.probability, torch.cat([prediction.probability for prediction in alone]))
    assert not torch.equal(together.coarse_probability, other.coarse_probability)
    assert not torch.equal(together.coarse_probability, seeded.coarse_probability)


def test_joint_step_sends_gradients_through_the_prompts(ultra, batch) -> None:
    recipe = JointRecipe(ultra(), coarse_weight=0.0, augmentation=None)
    recipe.unfreezing.bind(recipe.module).enter(0)
    step(recipe, batch).loss.backward()
    assert gradients(recipe.model) == {"coarse", "refiner"}
    assert gradients(recipe.model.refiner.sam) == {"prompt_encoder", "mask_decoder"}

    cut = JointRecipe(ultra(gradient_scale=0.0), coarse_weight=0.0, augmentation=None)
    step(cut, batch).loss.backward()
    assert gradients(cut.model) == {"refiner"}


def test_joint_weights_weigh_their_terms(ultra, batch) -> None:
    def loss(**weights):
        recipe = JointRecipe(ultra().eval(), augmentation=None, **weights)
        return step(recipe, batch)

    base = loss(coarse_weight=1.0, refined_weight=0.0, iou_weight=0.0)
    torch.testing.assert_close(base.loss.detach(), base.terms["coarse"])
    mixed = loss(coarse_weight=0.2, refined_weight=0.5, iou_weight=2.0)
    expected = 0.2 * mixed.terms["coarse"] + 0.5 * mixed.terms["refined"] + 2.0 * mixed.terms["iou"]
    torch.testing.assert_close(mixed.loss.detach(), expected)


def test_anchor_pulls_back_and_takes_weight_decay_away(ultra, batch) -> None:
    recipe = JointRecipe(ultra().eval(), augmentation=None, anchor_weight=3.0)
    with torch.no_grad():
        for parameter in recipe.model.coarse.parameters():
            parameter.add_(0.1)
    result = step(recipe, batch)
    assert result.terms["anchor"].item() == pytest.approx(0.01, rel=1e-3)
    plain = JointRecipe(recipe.model, augmentation=None)
    assert (result.loss - step(plain, batch).loss).item() == pytest.approx(0.03, rel=1e-2)
    assert {group.name: group.weight_decay for group in recipe.parameter_groups()} == {"coarse": 0, "refiner": 1e-4}
    assert {group.name: group.weight_decay for group in plain.parameter_groups()} == {"coarse": 1e-4, "refiner": 1e-4}


def test_a_gate_is_always_in_the_optimiser_with_separate_rates(ultra) -> None:
    recipe = JointRecipe(
        ultra(gate=LearnedGate()), coarse_learning_rate=1e-3, refiner_learning_rate=1e-4, freeze_refiner_epochs=5
    )
    rates = {group["name"]: group["lr"] for group in recipe.optimizer().param_groups}
    assert rates == {"coarse": 1e-3, "refiner": 1e-4, "gate": 1e-4}
    recipe.unfreezing.bind(recipe.module).enter(0)
    assert all(parameter.requires_grad for parameter in recipe.model.gate.parameters())


@pytest.mark.parametrize("kind", ["refiner", "joint"])
def test_recipes_train_with_a_cropper_in_bfloat16(ultra, fit, other_cases, kind: str) -> None:
    model = ultra(gate=LearnedGate())
    model.refiner.cropper = ROICropper(expand=0.2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = (
        RefinerRecipe(model.refiner, learning_rate=1e-3)
        if kind == "refiner"
        else JointRecipe(model, coarse_learning_rate=1e-3, freeze_coarse_epochs=1)
    )
    result = fit(recipe, validation=other_cases, precision="bf16-mixed")
    with (result.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 0 <= result.best_dice <= 1
    assert all(0 < float(row["validation/coarse_dice"]) <= 1 for row in rows) or kind == "joint"
    if kind == "refiner":
        assert len({row["validation/coarse_dice"] for row in rows}) == 1, "the same failures in every epoch"
    after = model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert any(name.startswith("refiner.sam.mask_decoder") for name in moved)
    assert not any("image_encoder" in name for name in moved)
    assert any(name.startswith("coarse") for name in moved) is (kind == "joint")
    assert any(name.startswith("gate") for name in moved) is (kind == "joint")
    if kind == "joint":
        assert int(after["coarse.encoder.1.num_batches_tracked"]) == 3, "its first epoch was frozen, batch norm too"


def test_the_image_encoder_trains_when_it_is_to(ultra, fit) -> None:
    model = ultra()
    before = {name: tensor.clone() for name, tensor in model.refiner.sam.image_encoder.state_dict().items()}
    fit(RefinerRecipe(model.refiner, train_image_encoder=True, augmentation=None), epochs=1)
    after = model.refiner.sam.image_encoder.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_three_phases_hand_over(ultra, network, fit, other_cases, tmp_path) -> None:
    phase1 = fit(CoarseRecipe(network(), augmentation=None), validation=other_cases, folder=tmp_path / "1")
    trained = ultra().refiner
    phase2 = fit(RefinerRecipe(trained, augmentation=None), epochs=1, folder=tmp_path / "2")
    model = ultra()
    load_coarse(model.coarse, phase1.best)
    load_refiner(model.refiner, phase2.last)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.refiner.state_dict()[name], tensor)
    phase3 = fit(JointRecipe(model, augmentation=None), epochs=1, folder=tmp_path / "3")
    again = ultra()
    load_coarse(again.coarse, phase3.last)
    load_refiner(again.refiner, phase3.last)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_setting_that_changes_gradients_only_does_not_stop_the_handover(ultra, fit) -> None:
    model = ultra()
    path = fit(RefinerRecipe(model.refiner, augmentation=None), epochs=1).last
    other = SAMRefiner(build_sam("tiny", image_size=64), through_crop=True)
    load_refiner(other, path)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.refiner.state_dict().items())


def test_handover_complaints(ultra, network, fit, tmp_path) -> None:
    model = ultra()
    freeze(model.refiner.sam.image_encoder)
    phase3 = fit(JointRecipe(model, augmentation=None), epochs=1).last
    before = {name: tensor.clone() for name, tensor in model.refiner.state_dict().items()}

    cropped = SAMRefiner(build_sam("tiny", image_size=64), cropper=ROICropper(expand=0.2))
    with pytest.raises(ValueError, match=r"trained with cropper None, but this one has \{.*or use load_weights"):
        load_refiner(cropped, phase3)
    larger = SAMRefiner(build_sam("tiny", image_size=128))
    with pytest.raises(ValueError, match=r"holds a refiner that was trained with .*64.*, but this one has .*128"):
        load_refiner(larger, phase3)
    with pytest.raises(ValueError, match=r"holds a coarse that was trained with parameters 85, but this one has 169"):
        load_coarse(network(width=8), phase3)
    phase1 = fit(CoarseRecipe(network(), augmentation=None), epochs=1, folder=tmp_path / "1").last
    with pytest.raises(
        ValueError, match=r"must be a checkpoint that train\(\) wrote and hold the part 'refiner'.*coarse"
    ):
        load_refiner(model.refiner, phase1)
    torch.save({"weight": torch.ones(1)}, tmp_path / "foreign.pt")
    with pytest.raises(
        ValueError, match=r"hold the part 'coarse', but it holds weight. Use load_weights for other files"
    ):
        load_coarse(network(), tmp_path / "foreign.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.refiner.state_dict().items())


def test_a_network_with_the_same_number_of_weights_but_others_is_refused(network, fit) -> None:
    class Renamed(type(network())):
        pass

    path = fit(CoarseRecipe(network(), augmentation=None), epochs=1).last
    Renamed.__qualname__ = "SmallNetwork"
    renamed = Renamed()
    renamed.mouth, renamed.head = renamed.head, nn.Identity()
    with pytest.raises(
        ValueError, match=r"does not fit this Renamed: 4 tensors are missing, unknown or of another shape"
    ):
        load_coarse(renamed, path)
