"""The predictor against the model itself, and against doing it by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.prediction import Predictor, refine_in_rounds
from ultrarefiner.refinement import AcceptanceRule, ROICropper, UncertaintyGate
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner

CONTENT = torch.tensor([[64, 48], [40, 64]])


@pytest.fixture
def images() -> Tensor:
    """Two images with a bright blob each, padded to (64, 64)."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(2, 1, 64, 64, generator=generator) * 0.3
    drawn[0, :, 10:30, 8:30] = 0.9
    drawn[1, :, 20:35, 30:60] = 0.8
    drawn[0, :, :, 48:] = drawn[1, :, 40:] = 0.449
    return drawn


class Sensitive(nn.Module):
    """A coarse network that is no mirror of itself, and answers NaN where nobody should look."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        return 30 * (images - 0.5) + 8 * self.layer(images)


def cropping() -> SAMRefiner:
    return SAMRefiner(build_sam("tiny", image_size=64), cropper=ROICropper())


@pytest.mark.parametrize("crops", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_one_round_is_the_model(make_model: Any, images: Tensor, crops: bool, gated: bool) -> None:
    gate, rule = (UncertaintyGate(maximum=0.7), AcceptanceRule(minimum_agreement=0.2)) if gated else (None, None)
    model = make_model(cropping() if crops else None, gate=gate, acceptance=rule)
    with torch.no_grad():
        expected = model(images, CONTENT)
    found = Predictor(model)(images, CONTENT)
    assert torch.allclose(found.refined_probability, expected.refined_probability, atol=1e-6)
    assert torch.equal(found.coarse_probability, expected.coarse_probability)
    assert torch.allclose(found.iou, expected.iou, atol=1e-6)
    assert (found.accepted is None) == (expected.accepted is None)
    assert (found.regions is None) == (expected.refinement.boxes is None)
    assert not found.refined_probability.requires_grad


@pytest.mark.parametrize("crops", [False, True])
def test_two_rounds_are_done_by_hand(make_model: Any, images: Tensor, crops: bool) -> None:
    gate = UncertaintyGate(minimum=0.1, maximum=0.7)
    model = make_model(cropping() if crops else None, gate=gate, acceptance=AcceptanceRule(minimum_agreement=0.2))
    with torch.no_grad():
        coarse = torch.sigmoid(model.coarse(images))
        last = coarse
        for _ in range(2):
            mask = torch.sigmoid(model.refiner(images, last, content_sizes=CONTENT).logits)
            share = gate(images, coarse, mask)
            last = coarse * (1 - share) + share * mask
        accepted = model.acceptance(coarse, last, torch.ones(2, 1))
        expected = torch.where(accepted[..., None, None], last, coarse)
    found = Predictor(model, rounds=2)(images, CONTENT)
    assert torch.allclose(found.refined_probability, expected, atol=1e-6)
    assert not torch.allclose(
        found.refined_probability, Predictor(model)(images, CONTENT).refined_probability, atol=1e-5
    )


def test_the_encoder_runs_again_only_where_the_region_moved(make_model: Any, images: Tensor) -> None:
    seen: list[int] = []
    whole, regions = make_model(), make_model(cropping())
    for model in (whole, regions):
        model.refiner.sam.image_encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    Predictor(whole, rounds=3)(images, CONTENT)
    assert seen == [2]
    seen.clear()
    # The second image is black: its mask is empty, its region the whole image in every round.
    half = torch.cat([images[:1], torch.zeros(1, 1, 64, 64)])
    Predictor(regions, rounds=3)(half, CONTENT)
    assert seen[0] == 2
    assert set(seen[1:]) == {1}


def test_flips_of_a_model_without_sides_change_nothing(make_model: Any, pointwise: Any, images: Tensor) -> None:
    model = make_model(pointwise())
    plain = Predictor(model)(images, CONTENT)
    for flips in (True, "vertical", "both"):
        found = Predictor(model, flips=flips)(images, CONTENT)
        assert torch.allclose(found.refined_probability, plain.refined_probability, atol=1e-6)
        assert torch.allclose(found.coarse_probability, plain.coarse_probability, atol=1e-6)
        assert torch.equal(found.iou, plain.iou)


def test_flips_average_the_mirror_images(make_model: Any, images: Tensor) -> None:
    model = make_model(coarse=Sensitive())
    with torch.no_grad():
        one, other = model(images), model(images.flip(-1))
    found = Predictor(model, flips=True)(images)
    expected = (one.refined_probability + other.refined_probability.flip(-1)) / 2
    assert torch.allclose(found.refined_probability, expected, atol=1e-5)
    assert torch.allclose(found.coarse_probability, (one.coarse_probability + other.coarse_probability.flip(-1)) / 2)
    assert torch.allclose(found.iou, (one.iou + other.iou) / 2, atol=1e-5)
    assert not torch.allclose(found.refined_probability, one.refined_probability, atol=1e-4)


def test_the_rule_judges_the_average_once(make_model: Any, pointwise: Any, images: Tensor) -> None:
    strict = make_model(pointwise(iou=0.4), acceptance=AcceptanceRule(minimum_iou=0.5))
    found = Predictor(strict, flips=True, rounds=3)(images, CONTENT)
    assert found.accepted is not None
    assert not found.accepted.any()
    assert torch.equal(found.refined_probability, found.coarse_probability)
    lenient = make_model(pointwise(iou=0.6), acceptance=AcceptanceRule(minimum_iou=0.5))
    assert bool(Predictor(lenient, flips=True)(images, CONTENT).accepted.all())  # type: ignore[union-attr]


def test_an_empty_coarse_mask_stays_empty(make_model: Any) -> None:
    model = make_model(cropping(), acceptance=AcceptanceRule(minimum_iou=0.9))
    found = Predictor(model, flips="both", rounds=2)(torch.zeros(2, 1, 64, 64))
    assert torch.allclose(found.refined_probability, found.coarse_probability)
    assert found.accepted is not None
    assert bool(found.accepted.all())
    assert found.iou.eq(0).all()
    assert not found.prompts.valid.any()


def test_a_batch_is_each_of_its_images(make_model: Any, images: Tensor) -> None:
    model = make_model(cropping(), gate=UncertaintyGate(), acceptance=AcceptanceRule())
    predictor = Predictor(model, flips=True, rounds=2)
    together = predictor(images, CONTENT)
    for index in range(2):
        alone = predictor(images[index : index + 1], CONTENT[index : index + 1])
        assert torch.allclose(together.refined_probability[index], alone.refined_probability[0], atol=1e-4)
        assert torch.allclose(together.regions[index], alone.regions[0], atol=1e-3)  # type: ignore[index]


def test_half_precision_is_near(make_model: Any, images: Tensor) -> None:
    model = make_model()
    rough = Predictor(model, precision="bf16")(images, CONTENT)
    fine = Predictor(model)(images, CONTENT)
    assert rough.refined_probability.dtype == torch.float32
    difference = (rough.refined_probability - fine.refined_probability).abs().max().item()
    assert 0 < difference < 0.1


def test_the_model_ends_in_evaluation_mode(make_model: Any) -> None:
    model = make_model().train()
    Predictor(model, device="cpu")
    assert not model.training


def test_options_out_of_range_are_refused(make_model: Any, images: Tensor, unhooked: None) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="rounds must be at least 1, but it is 0"):
        Predictor(model, rounds=0)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        refine_in_rounds(model, images, rounds=0)
    with pytest.raises(ValueError, match="precision must be '32-true' or 'bf16', but it is '16'"):
        Predictor(model, precision="16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device must be one that this machine has, but 'quantum' cannot be used"):
        Predictor(model, device="quantum")
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        Predictor(model)(images * 255)
