"""Moments against plain sums, in 2-D and 3-D, and where there is nothing to sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from strategies import degenerate_masks, soft_masks
from torch import Tensor

from ultrarefiner.ops import moments, remove_floor


@given(mask=soft_masks())
@settings(deadline=None, max_examples=20)
def test_equals_a_plain_loop(mask: Tensor) -> None:
    found = moments(mask)
    for b in range(mask.shape[0]):
        for k in range(mask.shape[1]):
            mass = x = y = 0.0
            for i, row in enumerate(mask[b, k].tolist()):
                for j, value in enumerate(row):
                    mass, x, y = mass + value, x + value * (j + 0.5), y + value * (i + 0.5)
            variance = sum(
                value * (j + 0.5 - x / mass) ** 2 for row in mask[b, k].tolist() for j, value in enumerate(row)
            )
            assert found.mass[b, k].item() == pytest.approx(mass)
            assert found.centroid[b, k].tolist() == pytest.approx([x / mass, y / mass])
            assert found.variance[b, k, 0].item() == pytest.approx(variance / mass)


def test_three_axes_are_x_y_z() -> None:
    volume = torch.zeros(1, 1, 4, 6, 8)
    volume[..., 1, 2, 3] = 1
    assert moments(volume, axes=3).centroid[0, 0].tolist() == [3.5, 2.5, 1.5]
    assert moments(volume, axes=3).variance.abs().max() == 0


@pytest.mark.parametrize("name", list(degenerate_masks()))
def test_finite_with_finite_gradients(name: str) -> None:
    mask = degenerate_masks()[name].requires_grad_()
    found = moments(mask)
    (found.centroid.sum() + found.variance.sum() + found.mass.sum()).backward()
    assert all(torch.isfinite(x).all() for x in (found.mass, found.centroid, found.variance, mask.grad))


def test_nothing_is_in_the_middle_of_the_frame() -> None:
    found = moments(torch.zeros(1, 1, 10, 20))
    assert found.centroid[0, 0].tolist() == [10, 5]
    assert found.variance.tolist() == [[[0, 0]]]


def test_half_precision_does_not_overflow() -> None:
    found = moments(torch.full((1, 1, 1024, 1024), 0.5, dtype=torch.float16))
    assert found.mass.item() == 0.5 * 1024**2
    assert found.centroid[0, 0].tolist() == pytest.approx([512, 512])


@given(mask=soft_masks(images=1, masks=1, side=9))
@settings(deadline=None, max_examples=8)
def test_gradcheck(mask: Tensor) -> None:
    def summed(x: Tensor) -> tuple[Tensor, ...]:
        found = moments(remove_floor(x, 0.01))
        return found.mass, found.centroid, found.variance

    assert torch.autograd.gradcheck(summed, mask.requires_grad_())


def test_the_floor_is_smooth_at_its_edge() -> None:
    assert torch.autograd.gradcheck(
        lambda x: remove_floor(x, 0.1),
        torch.full((1, 1, 2, 2), 0.1, dtype=torch.float64, requires_grad=True),
        atol=1e-4,
    )
    assert remove_floor(torch.full((1, 1, 1, 1), 0.1), 0.1).item() == 0
