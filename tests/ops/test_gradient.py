"""Scaling the gradient that passes one tensor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.ops.gradient import scale_gradient

quick = settings(deadline=None, max_examples=15)


@given(factor=st.floats(0, 10), seed=st.integers(0, 10_000))
@quick
def test_values_stay_and_the_gradient_is_scaled(factor: float, seed: int) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    scaled = scale_gradient(x, factor)
    assert torch.equal(scaled, x)
    (gradient,) = torch.autograd.grad(scaled.sin().sum(), x)
    torch.testing.assert_close(gradient, factor * x.cos())


def test_at_one_it_is_the_identity_for_autograd() -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: scale_gradient(t, 1.0).exp(), x)
    assert torch.autograd.gradgradcheck(lambda t: scale_gradient(t, 1.0).exp(), x)


def test_infinities_and_half_precision_pass_unchanged() -> None:
    x = torch.tensor([math.inf, -math.inf, 1.0], dtype=torch.float16, requires_grad=True)
    scaled = scale_gradient(x, 0.5)
    assert torch.equal(scaled, x)
    scaled.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float16
    assert x.grad.tolist() == [0.5, 0.5, 0.5]


def test_zero_gives_a_gradient_of_zero() -> None:
    x = torch.ones(2, requires_grad=True)
    scale_gradient(x, 0.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0]


def test_only_one_branch_is_scaled() -> None:
    """The coarse loss keeps its share; scaling parameter gradients would scale both."""
    weight = torch.ones(1, requires_grad=True)
    coarse = 2 * weight
    (coarse + 3 * scale_gradient(coarse, 0.1)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 + 0.1 * 6)


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_a_factor_that_is_no_share_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be a finite number of at least 0; got"):
        scale_gradient(torch.ones(1), factor)
