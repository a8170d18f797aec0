"""Boxes: tight against a plain search, soft against ellipses, profiles against their product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lesion

from ultrarefiner.ops import box_profile, box_to_mask, clip_box, expand_box, moments, soft_box, tight_box


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_tight_box_equals_nonzero(seed: int) -> None:
    mask = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(seed)) > 0.93
    for one, box in zip(mask, tight_box(mask), strict=True):
        y, x = one.nonzero(as_tuple=True)
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert box.tolist() == [float(value) for value in expected]


def test_soft_box_of_an_ellipse_is_a_quarter_larger_than_tight() -> None:
    found = moments(lesion(200, 300, (100, 150), (40, 80))[None, None])
    box = soft_box(found.centroid, found.variance)[0, 0]
    assert box.tolist() == pytest.approx([150 - 100, 100 - 50, 150 + 100, 100 + 50], abs=0.5)


def test_the_mask_of_a_box_is_one_inside_and_differentiable() -> None:
    box = torch.tensor([2.0, 1.0, 6.0, 4.0], dtype=torch.float64, requires_grad=True)
    mask = box_to_mask(box, (6, 8), softness=0.01)
    expected = torch.zeros(6, 8, dtype=torch.float64)
    expected[1:4, 2:6] = 1
    torch.testing.assert_close(mask.detach(), expected, atol=1e-6, rtol=0)
    assert torch.autograd.gradcheck(lambda x: box_to_mask(x, (6, 8), softness=0.8), box)


def test_profile_is_soft_by_its_softness() -> None:
    low, high = torch.tensor(10.0), torch.tensor(30.0)
    soft, hard = (box_profile(low, high, 40, softness=t) for t in (3.0, 0.1))
    assert soft[8] > 10 * hard[8]


def test_expand_and_clip() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 24.0]])
    assert expand_box(box, 0.5).tolist() == [[0, 18, 40, 26]]
    assert clip_box(expand_box(box, 1.0), (22, 35)).tolist() == [[0, 16, 35, 22]]
