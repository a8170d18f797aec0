"""UltraRefiner: wiring of coarse network, refiner and gate."""

from __future__ import annotations

import pytest
import torch
from strategies import lesion
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.refinement import LearnedGate, ROICropper, UncertaintyGate
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import AtSize, SAMRefiner, UltraRefiner


class Says(nn.Module):
    """A coarse network that says what it was given, times a weight."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: torch.Size | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.shape
        return self.weight * self.logits.expand(images.shape[0], -1, -1, -1)


def refiner(cropper: ROICropper | None = None) -> SAMRefiner:
    torch.manual_seed(0)
    return SAMRefiner(build_sam("tiny", image_size=64), cropper=cropper)


def coarse_logits(height: int = 40, width: int = 56) -> Tensor:
    return (8 * lesion(height, width, (18, 30), (9, 11)) - 4)[None, None]


@pytest.mark.parametrize("gate", [None, UncertaintyGate(maximum=0.8), LearnedGate()])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_what_it_says(gate: nn.Module | None, channels: int) -> None:
    model = UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(), gate=gate)
    result = model(torch.rand(2, channels, 40, 56))
    torch.testing.assert_close(result.coarse_probability, torch.sigmoid(result.coarse_logits))
    torch.testing.assert_close(result.refined_probability, torch.sigmoid(result.refined_logits), atol=3e-6, rtol=0)
    assert result.iou.shape == (2, 1)
    assert result.prompts.points.shape == (2, 1, 2, 2)
    if gate is None:
        assert result.gate is None
        assert torch.equal(result.refined_logits, result.refinement.logits)
    else:
        proposal, coarse = torch.sigmoid(result.refinement.logits), result.coarse_probability
        torch.testing.assert_close(result.refined_probability, coarse + result.gate * (proposal - coarse))


def test_the_refined_mask_teaches_the_coarse_network() -> None:
    model = UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(ROICropper()))
    model(torch.rand(1, 1, 40, 56)).refined_logits.sum().backward()
    assert model.coarse.weight.grad.abs() > 0


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("gate", [None, UncertaintyGate()])
def test_gradient_scale_acts_on_what_the_refined_mask_sends(scale: float, gate: nn.Module | None) -> None:
    gradients = []
    for factor in (1.0, scale):
        model = UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(), gate=gate, gradient_scale=factor)
        result = model(torch.rand(1, 1, 40, 56, generator=torch.Generator().manual_seed(0)))
        refined = torch.autograd.grad(result.refined_logits.mean(), model.coarse.weight, retain_graph=True)[0]
        coarse = torch.autograd.grad(result.coarse_logits.mean(), model.coarse.weight)[0]
        gradients.append((refined, coarse))
    torch.testing.assert_close(gradients[1][0], scale * gradients[0][0])
    torch.testing.assert_close(gradients[1][1], gradients[0][1])


def test_the_coarse_network_may_see_a_smaller_square() -> None:
    coarse = Says(coarse_logits(32, 32))
    result = UltraRefiner(coarse=AtSize(coarse, 48), refiner=refiner())(torch.rand(1, 1, 60, 90))
    assert coarse.seen == (1, 1, 48, 48)
    assert result.coarse_logits.shape == result.refined_logits.shape == (1, 1, 60, 90)
    assert AtSize(coarse, 48).settings() == {"network": "Says", "size": 48}
    with pytest.raises(ValueError, match="size must be a whole number of pixels from 1 on, but it is 0"):
        AtSize(coarse, 0)


def test_padding_is_no_place_for_sam_to_look() -> None:
    model = UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(ROICropper(expand=0.0, floor=0.05)))
    images, sizes = torch.rand(2, 1, 40, 56), torch.tensor([[30, 56], [40, 56]])
    boxes = model(images, sizes).refinement.boxes
    assert boxes[0, 0, 3] <= 30 < boxes[1, 0, 3]


@pytest.mark.parametrize("gate", [None, UncertaintyGate(), LearnedGate()])
def test_an_empty_mask_passes_through(gate: nn.Module | None) -> None:
    model = UltraRefiner(coarse=Says(torch.full((1, 1, 40, 56), -25.0)), refiner=refiner(ROICropper()), gate=gate)
    result = model(torch.rand(1, 1, 40, 56))
    torch.testing.assert_close(result.refined_logits, result.coarse_logits)
    assert not result.prompts.valid.any()
    result.refined_logits.sum().backward()
    assert torch.isfinite(model.coarse.weight.grad)


def test_narrow_coarse_logits_are_widened() -> None:
    model = UltraRefiner(coarse=Says(coarse_logits().bfloat16()).bfloat16(), refiner=refiner())
    assert model(torch.rand(1, 1, 40, 56)).refined_logits.dtype == torch.float32


def test_settings_name_every_part() -> None:
    settings = UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(), gate=LearnedGate()).settings()
    assert settings["coarse"] == "Says"
    assert settings["gate"] == {"gate": "learned", "width": 32}
    assert settings["refiner"]["prompts"]["mask_style"] == "direct"


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("answer", "came"),
    [
        (torch.zeros(1, 8, 8), r"a tensor of shape \(1, 8, 8\)"),
        ({"out": 1}, "dict"),
        (torch.zeros(2, 1, 8, 8), r"a tensor of shape \(2, 1, 8, 8\)"),
    ],
)
def test_a_coarse_network_that_returns_something_else_gets_a_sentence(answer: object, came: str) -> None:
    class Wrong(nn.Module):
        def forward(self, images: Tensor) -> object:
            return answer

    with pytest.raises(
        ValueError, match=rf"coarse must return logits \(b, k, h, w\) with b = 1, but it returned {came}"
    ):
        UltraRefiner(coarse=Wrong(), refiner=refiner())(torch.zeros(1, 1, 16, 16))


def test_a_negative_gradient_scale_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="gradient_scale must be a finite number of at least 0, but it is -1"):
        UltraRefiner(coarse=Says(coarse_logits()), refiner=refiner(), gradient_scale=-1.0)


@pytest.mark.parametrize("cropper", [None, ur.ROICropper()], ids=["whole", "roi"])
@pytest.mark.parametrize("policy", ["sam", "medsam"])
def test_under_bfloat16_autocast(cropper, policy) -> None:
    torch.manual_seed(0)
    refiner = ur.SAMRefiner(ur.build_sam("tiny", image_size=64, input_policy=policy), cropper=cropper)
    model = ur.UltraRefiner(coarse=ur.build_microsegnet("tiny", image_size=64), refiner=refiner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.rand(2, 1, 64, 64))
    assert out.refined_logits.dtype == torch.float32
    out.refined_logits.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.coarse.stem.parameters())
