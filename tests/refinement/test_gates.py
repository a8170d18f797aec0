"""Gates: their formulas, gradients everywhere, and a conservative start."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import soft_masks
from torch import Tensor

from ultrarefiner.refinement import LearnedGate, ProductGate, UncertaintyGate, blend, finite_logit


@given(gamma=st.floats(0.3, 4), low=st.floats(0, 0.4), high=st.floats(0.5, 1), c=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_the_uncertainty_gate_is_its_formula(gamma: float, low: float, high: float, c: float) -> None:
    coarse = torch.full((1, 1, 1, 1), c, dtype=torch.float64)
    gate = UncertaintyGate(gamma, minimum=low, maximum=high)(coarse, coarse, coarse).item()
    expected = low + (high - low) * (1 - abs(2 * c - 1) ** gamma)
    # The rounding of |2c - 1| at 0 is what keeps the gradient finite; its size is epsilon ** gamma.
    assert gate == pytest.approx(expected, abs=3 * UncertaintyGate.EPSILON ** min(gamma, 1))


@pytest.mark.parametrize("gamma", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("c", [0.0, 0.5, 1.0])
def test_its_gradient_is_finite_everywhere(gamma: float, c: float) -> None:
    coarse = torch.full((1, 1, 2, 2), c, requires_grad=True)
    UncertaintyGate(gamma)(coarse, coarse, coarse).sum().backward()
    assert torch.isfinite(coarse.grad).all()


def gates() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    learned = LearnedGate(width=4)
    torch.nn.init.normal_(learned.layers[-1].weight)
    return [
        UncertaintyGate(0.7, maximum=0.9),
        learned,
        ProductGate(UncertaintyGate(2.0, minimum=0.1), learned),
    ]


@pytest.mark.parametrize("gate", gates(), ids=lambda gate: type(gate).__name__)
@given(masks=soft_masks(side=9))
@settings(deadline=None, max_examples=5)
def test_gradcheck_and_batch_equals_element(gate: torch.nn.Module, masks: Tensor) -> None:
    gate = gate.double()
    refined = masks.flip(-1).clone().requires_grad_()
    images = torch.rand(masks.shape[0], 1, *masks.shape[-2:], dtype=torch.float64)
    coarse = masks.requires_grad_()

    def blended(c: Tensor, r: Tensor) -> Tensor:
        return finite_logit(blend(c, r, gate(images, c, r)))

    assert torch.autograd.gradcheck(blended, (coarse, refined), fast_mode=True)
    whole = gate(images, coarse, refined)
    for b in range(masks.shape[0]):
        for k in range(masks.shape[1]):
            part = gate(images[b : b + 1], coarse[b : b + 1, k : k + 1], refined[b : b + 1, k : k + 1])
            torch.testing.assert_close(part, whole[b : b + 1, k : k + 1])
    assert ((whole >= 0) & (whole <= 1)).all()


def test_the_learned_gate_starts_conservative_and_learns() -> None:
    gate = LearnedGate()
    masks = torch.rand(2, 1, 8, 8)
    share = gate(torch.rand(2, 3, 8, 8), masks, 1 - masks)
    torch.testing.assert_close(share, torch.full_like(share, torch.sigmoid(torch.tensor(-2.0)).item()))
    share.sum().backward()
    assert gate.layers[-1].weight.grad.abs().sum() > 0
    assert sum(parameter.numel() for parameter in gate.parameters()) == 10_177


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_certain_probabilities_are_finite(dtype: torch.dtype) -> None:
    certain = torch.tensor([0.0, 1.0, 0.5], dtype=dtype, requires_grad=True)
    logits = finite_logit(certain)
    logits.sum().backward()
    assert logits.abs().max() < 14
    assert logits[2] == 0
    assert torch.isfinite(certain.grad).all()


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("arguments", [{"gamma": 0}, {"minimum": 0.9, "maximum": 0.5}, {"maximum": 1.5}])
def test_wrong_gates_get_a_sentence(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gamma > 0 and 0 <= minimum <= maximum <= 1, but was given"):
        UncertaintyGate(**arguments)


def test_a_product_of_nothing_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="gates must be at least one gate"):
        ProductGate()


@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.5])
def test_the_learned_gate_starts_at_the_share_of_its_bias(bias: float) -> None:
    masks = torch.rand(2, 1, 9, 9)
    share = LearnedGate(bias=bias)(torch.rand(2, 1, 9, 9), masks, masks)
    torch.testing.assert_close(share, torch.full_like(share, bias).sigmoid())


def test_only_another_bias_than_the_default_is_remembered() -> None:
    assert LearnedGate().settings() == {"gate": "learned", "width": 32}
    assert LearnedGate(bias=0.0).settings() == {"gate": "learned", "width": 32, "bias": 0.0}
