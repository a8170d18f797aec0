"""The published recipes: what they are made of, and that they learn; TransUNet in all three phases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nifti import write_micro_ultrasound
from torch import nn

import ultrarefiner as ur
from ultrarefiner.data import Augmentation, Batch, FittedCases, MicroUltrasound, StretchToSquare, collate, group_folds
from ultrarefiner.evaluation import evaluate_volumes
from ultrarefiner.losses import AGBCELoss, DeepSupervision
from ultrarefiner.simulation import SimpleFailures
from ultrarefiner.training import (
    MICROSEGNET,
    TRANSUNET,
    AnnotationGuidedRecipe,
    CoarseRecipe,
    JointRecipe,
    Polynomial,
    RefinerRecipe,
    load_coarse,
    load_refiner,
    microsegnet_recipe,
    train,
    transunet_recipe,
)
from ultrarefiner.training.coarse import augmented


@pytest.fixture
def batch(cases) -> Batch:
    plain = collate(cases[:3])
    return plain._replace(other_masks=plain.masks.roll(2, -1))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return ur.build_microsegnet("tiny", image_size=32, dropout=0.0).eval()


def loss_of(recipe, batch, seed: int = 0) -> torch.Tensor:
    return recipe.step(batch, torch.Generator().manual_seed(seed)).loss


def test_the_published_numbers() -> None:
    assert (TRANSUNET.epochs, TRANSUNET.batch_size, TRANSUNET.image_size, TRANSUNET.folds) == (150, 24, 224, 5)
    assert (MICROSEGNET.epochs, MICROSEGNET.batch_size, MICROSEGNET.image_size) == (10, 8, 224)
    for run in (TRANSUNET, MICROSEGNET):
        assert run.schedule == Polynomial(power=0.9)
        assert run.options().keys() == {"epochs", "batch_size", "schedule", "clip_norm"}
    for recipe in (transunet_recipe(nn.Conv2d(1, 1, 1)), microsegnet_recipe(nn.Conv2d(1, 1, 1))):
        optimizer = recipe.optimizer()
        assert isinstance(optimizer, torch.optim.SGD)
        group = optimizer.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 1e-4)


def test_settings_hold_the_algorithm_and_the_annotator(tiny) -> None:
    published = microsegnet_recipe(tiny)
    kinds = [published, replace(published, annotator="prediction"), replace(published, algorithm=torch.optim.AdamW)]
    described = [recipe.settings() for recipe in kinds]
    assert all(described.count(one) == 1 for one in described)


def test_the_second_annotators_mask_is_what_guides(tiny, batch) -> None:
    recipe = microsegnet_recipe(tiny)
    answer = tiny(batch.images)
    torch.testing.assert_close(loss_of(recipe, batch), recipe.loss(answer, batch.masks, batch.other_masks))
    agreed = batch._replace(other_masks=batch.masks)
    assert loss_of(recipe, agreed) < loss_of(recipe, batch)


def test_the_prediction_guides_where_there_is_no_second_annotator(tiny, batch) -> None:
    alone = batch._replace(other_masks=None)
    recipe = microsegnet_recipe(tiny, annotator="prediction")
    answer = tiny(batch.images)
    predicted = (answer.logits.sigmoid() >= 0.5).float()
    torch.testing.assert_close(loss_of(recipe, alone), recipe.loss(answer, batch.masks, predicted))
    with pytest.raises(ValueError, match=r"must have a second annotation for every case .* annotator='prediction'"):
        loss_of(microsegnet_recipe(tiny), alone)


def test_a_simulated_annotator_follows_the_generator(tiny, batch) -> None:
    recipe = microsegnet_recipe(tiny, annotator=SimpleFailures())
    losses = [loss_of(recipe, batch, seed).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    simulated = SimpleFailures()(batch.masks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss_of(recipe, batch), recipe.loss(tiny(batch.images), batch.masks, simulated))


@pytest.mark.usefixtures("unhooked")
def test_an_unknown_annotator() -> None:
    with pytest.raises(ValueError, match="annotator must be 'second', 'prediction' or something that simulates"):
        AnnotationGuidedRecipe(nn.Conv2d(1, 1, 1), annotator=None)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CoarseRecipe(nn.Conv2d(1, 1, 1), loss=AGBCELoss()), "compares no annotations, .* to AnnotationGuided"),
        (
            lambda: AnnotationGuidedRecipe(nn.Conv2d(1, 1, 1), loss=ur.DiceBCELoss()),
            "compares two annotations, .* to CoarseRec",
        ),
        (lambda: DeepSupervision(lambda logits, target: 0), "loss must be a module, or a sequence of modules"),
        (lambda: DeepSupervision(AGBCELoss(), 1.0), "weights must be None or one number for each output"),
        (lambda: DeepSupervision.paper(sides=0), "sides must be at least 1"),
        (lambda: DeepSupervision(AGBCELoss(), "abc"), "weights must be None or one number for each output"),
        (lambda: DeepSupervision.paper(sides=2.5), "sides must be at least 1"),
        (lambda: AGBCELoss(kernel_size=2.5), "kernel_size must be a whole number"),
    ],
)
@pytest.mark.usefixtures("unhooked")
def test_parts_that_do_not_fit(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_softmax_needs_its_wrapper(batch, fit, cases) -> None:
    network = ur.build_transunet("tiny", classes=2, image_size=32)
    with pytest.raises(ValueError, match=r"one logit for each of the 1 masks, but it returned 2; .* ForegroundLogits"):
        loss_of(transunet_recipe(network), batch)
    assert loss_of(transunet_recipe(ur.ForegroundLogits(network)), batch).isfinite()


def test_side_logits_are_phase_ones(ultra) -> None:
    model = ultra()
    for make in (
        lambda: JointRecipe(model, loss=DeepSupervision.paper()),
        lambda: JointRecipe(model, coarse_loss=DeepSupervision.paper()),
        lambda: RefinerRecipe(model.refiner, loss=DeepSupervision.paper()),
    ):
        with pytest.raises(ValueError, match="DeepSupervision wants side logits, which only phase 1 has"):
            make()


@pytest.mark.usefixtures("unhooked")
def test_a_schedule_by_name(fit) -> None:
    with pytest.raises(ValueError, match=r"schedule must be a Schedule such as Cosine\(\) .* but it is 'poly'"):
        fit(transunet_recipe(nn.Conv2d(1, 1, 1)), schedule="poly")


def test_plain_losses_see_the_mask_alone(tiny, batch) -> None:
    recipe = CoarseRecipe(tiny, augmentation=None)
    torch.testing.assert_close(loss_of(recipe, batch), recipe.loss(tiny(batch.images).logits, batch.masks))
    at_size = CoarseRecipe(ur.AtSize(tiny, 16), augmentation=None, loss=DeepSupervision(ur.DiceBCELoss()))
    assert loss_of(at_size, batch).isfinite()
    assert at_size.predict(batch, [0, 1, 2]).probability.shape == batch.masks.shape


def test_the_other_mask_moves_with_the_image(batch) -> None:
    marked = batch._replace(images=batch.masks.clone(), other_masks=batch.masks.clone())
    geometry = Augmentation(gamma=(1.0, 1.0), gain=(1.0, 1.0), speckle=0.0, blur=0.0)
    moved = augmented(geometry, marked, torch.Generator().manual_seed(3))
    assert torch.equal(moved.masks, moved.other_masks)
    assert not torch.equal(moved.masks, marked.masks)


def test_annotation_guided_loss_in_the_later_phases(ultra, batch) -> None:
    # There the coarse mask is the other annotation.
    model = ultra()
    recipe = JointRecipe(model, augmentation=None, loss=AGBCELoss())
    model.eval()
    out = model(batch.images, batch.content_sizes)
    refined = recipe.loss(out.refined_logits, batch.masks, out.coarse_probability)
    torch.testing.assert_close(recipe.step(batch, torch.Generator().manual_seed(0)).terms["refined"], refined.detach())


def test_microsegnet_learns_from_volumes(tmp_path) -> None:
    root = write_micro_ultrasound(tmp_path / "data", volumes=4, slices=5, size=(40, 56), test_volumes=2)
    slices = MicroUltrasound(root)
    folds = group_folds(slices, folds=4, seed=0)
    fit = StretchToSquare(48)
    training, validation = (
        FittedCases(slices.subset(names), fit).fill(progress=False)
        for names in (folds.training(0), folds.validation(0))
    )
    torch.manual_seed(0)
    network = ur.build_microsegnet("tiny", image_size=48)
    before = evaluate_volumes(network, MicroUltrasound(root, split="test"), fit=fit, panels=0, progress=False)
    options = {**MICROSEGNET.options(), "epochs": 12, "batch_size": 4}
    result = train(
        microsegnet_recipe(network, learning_rate=0.05), training, validation=validation, folder=tmp_path / "run",
        accelerator="cpu", tensorboard=False, progress=False, **options,
    )  # fmt: skip
    load_coarse(network, result.best)
    after = evaluate_volumes(network, MicroUltrasound(root, split="test"), fit=fit, progress=False)
    assert len(after.volumes) == 2
    for volume in after.volumes:
        assert volume.dice > 0.85
        assert volume.slice_hd95_mm < 3.0, "40 x 0.2 mm and 56 x 0.3 mm are the sides"
        assert volume.slices == 5
    assert after.mean().dice.mean > before.mean().dice.mean + 0.2
    after.to_markdown(tmp_path / "table.md")
    after.to_figure(tmp_path / "slices.png")
    assert "mm" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    "coarse",
    [
        lambda: ur.build_transunet("tiny", image_size=32),
        lambda: ur.build_microsegnet("tiny", image_size=32),
        lambda: ur.AtSize(ur.ForegroundLogits(ur.build_transunet("tiny", classes=2, image_size=48)), 48),
    ],
    ids=["transunet", "microsegnet", "two-channel softmax at its own size"],
)
def test_transunet_in_all_three_phases(coarse, ultra, fit, cases, other_cases, tmp_path) -> None:
    torch.manual_seed(0)
    network = coarse()
    refiner = ultra().refiner
    first = fit(transunet_recipe(network), validation=other_cases, folder=tmp_path / "1", schedule=Polynomial())
    second = fit(RefinerRecipe(refiner), folder=tmp_path / "2")
    network, refiner = coarse(), ultra().refiner
    load_coarse(network, first.best)
    load_refiner(refiner, second.best)
    model = ur.UltraRefiner(coarse=network, refiner=refiner, gate=ur.UncertaintyGate())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    third = fit(JointRecipe(model), folder=tmp_path / "3", validation=other_cases)
    assert third.steps == 6
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert any("stem.conv" in name for name in changed), "the gradient reached the coarse network's first layer"
    again = ur.UltraRefiner(coarse=coarse(), refiner=ultra().refiner, gate=ur.UncertaintyGate())
    ur.load_weights(again, tmp_path / "3" / "last.pt")
    images = torch.stack([case.image for case in cases])
    assert torch.equal(again.eval()(images).refined_logits, model.eval()(images).refined_logits)
