"""A gate that learns in phase 2, and stored masks that phase 3 goes on practising with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import Batch, CoarsePredictions, FittedCases, Phantoms, PredictedCases, collate
from ultrarefiner.losses import QualityAwareLoss
from ultrarefiner.refinement import LearnedGate, ProductGate, UncertaintyGate, blend
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.training import JointRecipe, RefinerRecipe, TrainingResult, load_gate, load_refiner

Ultra = Callable[..., UltraRefiner]
Fit = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def predicted() -> PredictedCases:
    fitted = FittedCases(Phantoms(4, size=(32, 40)), 32)
    logits = 4 * torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return PredictedCases(fitted, CoarsePredictions(fitted.names, logits, (0,) * 4, ((),), "FitToSquare"))


@pytest.fixture(scope="module")
def batch(predicted: PredictedCases) -> Batch:
    return collate([predicted[index] for index in range(4)])


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_loss_sees_the_blended_mask(ultra: Ultra, batch: Batch) -> None:
    refiner, gate = ultra().refiner.eval(), LearnedGate(bias=0.0)
    recipe = RefinerRecipe(refiner, gate=gate, augmentation=None, iou_weight=0.0, loss=QualityAwareLoss(weight=0.0))
    found = recipe.step(batch, drawn())
    coarse = batch.coarse_probability
    assert coarse is not None
    with torch.no_grad():
        sam = refiner(batch.images, coarse, content_sizes=batch.content_sizes).logits.sigmoid()
        mixed = blend(coarse, sam, torch.full_like(sam, 0.5))  # a new gate of bias 0 says one half everywhere
        expected = QualityAwareLoss(weight=0.0)(torch.logit(mixed.clamp(1e-6, 1 - 1e-6)), batch.masks, coarse)
    torch.testing.assert_close(found.loss, expected, atol=1e-4, rtol=1e-4)


def test_gate_and_refiner_learn_together_and_apart_from_one_file(
    ultra: Ultra, fit: Fit, predicted: PredictedCases, tmp_path: Path
) -> None:
    refiner, gate = ultra().refiner, LearnedGate(bias=0.0)
    before = gate.layers[-1].bias.item()
    recipe = RefinerRecipe(refiner, gate=gate, learning_rate=1e-2, augmentation=None)
    result = fit(recipe, dataset=predicted, epochs=2, folder=tmp_path / "two")
    assert gate.layers[-1].bias.item() != before
    assert read_tensors(result.last)["parts"] == {"refiner": "refiner", "gate": "gate"}
    other, other_gate = ultra().refiner, LearnedGate(bias=0.0)
    load_refiner(other, result.last)
    load_gate(other_gate, result.last)
    for name, tensor in other_gate.state_dict().items():
        assert torch.equal(tensor, gate.state_dict()[name])
    assert torch.equal(next(other.parameters()), next(refiner.parameters()))


def test_a_gate_is_not_loaded_into_another_or_from_a_file_without(
    ultra: Ultra, fit: Fit, predicted: PredictedCases, tmp_path: Path
) -> None:
    without = fit(RefinerRecipe(ultra().refiner), dataset=predicted, epochs=1, folder=tmp_path / "without")
    with pytest.raises(ValueError, match="hold the part 'gate'"):
        load_gate(LearnedGate(), without.last)
    gated = RefinerRecipe(ultra().refiner, gate=LearnedGate(width=8))
    result = fit(gated, dataset=predicted, epochs=1, folder=tmp_path / "with")
    with pytest.raises(ValueError, match="was trained with width 8"):
        load_gate(LearnedGate(width=16), result.last)


def test_named_parts_stay_frozen_with_and_without_a_gate(
    ultra: Ultra, fit: Fit, predicted: PredictedCases, tmp_path: Path
) -> None:
    for name, gate in (("plain", None), ("gated", LearnedGate())):
        refiner = ultra().refiner
        frozen = {name: tensor.clone() for name, tensor in refiner.sam.mask_decoder.state_dict().items()}
        recipe = RefinerRecipe(
            refiner, gate=gate, train_image_encoder=True, frozen={"sam.mask_decoder": None}, learning_rate=1e-2
        )
        moved = next(refiner.sam.image_encoder.parameters()).clone()
        fit(recipe, dataset=predicted, epochs=1, folder=tmp_path / name)
        assert all(torch.equal(tensor, frozen[key]) for key, tensor in refiner.sam.mask_decoder.state_dict().items())
        assert not torch.equal(moved, next(refiner.sam.image_encoder.parameters()))


@pytest.mark.parametrize("gate", [None, LearnedGate(bias=0.0)])
def test_stored_masks_are_practised_beside_the_networks_own(ultra: Ultra, batch: Batch, gate: Any) -> None:
    model = ultra(gate=gate).eval()
    plain = JointRecipe(model, augmentation=None).step(batch, drawn())
    practised = JointRecipe(model, augmentation=None, stored_weight=0.7).step(batch, drawn())
    alone = RefinerRecipe(model.refiner, gate=gate, augmentation=None, iou_weight=0.0).step(batch, drawn())
    torch.testing.assert_close(practised.loss, plain.loss + 0.7 * alone.loss)
    torch.testing.assert_close(practised.terms["stored"], alone.loss.detach())
    assert "stored" not in plain.terms


def test_stored_masks_send_no_gradient_to_the_coarse_network(ultra: Ultra, batch: Batch) -> None:
    model = ultra().eval()
    weights = {"coarse_weight": 0.0, "refined_weight": 0.0, "iou_weight": 0.0}
    JointRecipe(model, augmentation=None, stored_weight=1.0, **weights).step(batch, drawn()).loss.backward()
    reached = [parameter.grad for parameter in model.coarse.parameters() if parameter.grad is not None]
    assert all(not gradient.any() for gradient in reached)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.refiner.parameters())


def test_stored_masks_must_be_there(ultra: Ultra, batch: Batch) -> None:
    recipe = JointRecipe(ultra(), stored_weight=1.0)
    with pytest.raises(ValueError, match=r"stored_weight must be 0 for a data set without coarse masks, but it is 1.0"):
        recipe.step(batch._replace(coarse_probability=None), drawn())


def test_parts_are_named_alike_with_and_without_a_gate(ultra: Ultra) -> None:
    refiner, frozen = ultra().refiner, {"sam.mask_decoder": None, "prompts": 1}
    plain, gated = (RefinerRecipe(refiner, frozen=frozen, gate=gate).unfreezing for gate in (None, LearnedGate()))
    assert plain.starts == {"sam.image_encoder": None, **frozen}
    assert gated.starts == {f"refiner.{name}": start for name, start in plain.starts.items()}
    # The whole refiner from its second epoch on, the gate from the first.
    later = RefinerRecipe(refiner, frozen={"": 1}, gate=LearnedGate(), train_image_encoder=True)
    assert later.unfreezing.starts == {"refiner": 1}
    stages = later.unfreezing.bind(later.module)
    for epoch, trains in ((0, False), (1, True)):
        stages.enter(epoch)
        assert all(parameter.requires_grad == trains for parameter in refiner.parameters())
        assert all(parameter.requires_grad for parameter in later.gate.parameters())
    stages.leave()


@pytest.mark.parametrize("gate", [UncertaintyGate(), ProductGate(UncertaintyGate(), LearnedGate())])
def test_a_gate_may_have_nothing_to_learn(ultra: Ultra, fit: Fit, predicted: PredictedCases, gate: Any) -> None:
    refiner = ultra().refiner
    before = {name: tensor.clone() for name, tensor in refiner.state_dict().items()}
    fit(RefinerRecipe(refiner, gate=gate, learning_rate=1e-2), dataset=predicted, epochs=1)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in refiner.state_dict().items())
