"""Dice of two masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ultrarefiner.ops.overlap import dice_coefficient

quick = settings(deadline=None, max_examples=20)
masks = arrays(bool, (2, 2, 4, 5))


@given(first=masks, second=masks)
@quick
def test_hard_masks_follow_the_definition_by_sets(first: np.ndarray, second: np.ndarray) -> None:
    actual = dice_coefficient(torch.from_numpy(first).float(), torch.from_numpy(second).float())
    for index in np.ndindex(2, 2):
        a, b = set(np.flatnonzero(first[index])), set(np.flatnonzero(second[index]))
        expected = 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
        assert actual[index].item() == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), smooth=st.floats(0, 5))
@quick
def test_gradcheck_symmetry_and_range(seed: int, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    second = torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: dice_coefficient(a, b, smooth=smooth), (first, second))
    dice = dice_coefficient(first, second, smooth=smooth)
    torch.testing.assert_close(dice, dice_coefficient(second, first, smooth=smooth))
    assert ((dice >= 0) & (dice <= 1)).all()


def test_two_empty_masks_agree_with_a_finite_gradient() -> None:
    empty = torch.zeros(1, 1, 3, 3, requires_grad=True)
    dice = dice_coefficient(empty, torch.zeros(1, 1, 3, 3))
    dice.sum().backward()
    assert dice.item() == 1.0
    assert empty.grad is not None
    assert empty.grad.isfinite().all()
    assert dice_coefficient(torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3)).item() == 0.0


def test_smooth_counts_as_common_pixels() -> None:
    nothing, one = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert dice_coefficient(nothing, one, smooth=1.0).item() == pytest.approx(0.5)
    assert dice_coefficient(nothing, nothing, smooth=1.0).item() == 1.0
