"""Logits: finite, resized as networks' are, and a sigmoid whose bits depend on nothing but its argument."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import soft_masks
from torch.nn import functional

from ultrarefiner.ops.logits import LOGIT_EPSILON, finite_logit, resize_logits, steady_sigmoid

quick = settings(deadline=None, max_examples=15)


@quick
@given(masks=soft_masks())
def test_a_logit_is_torchs_and_goes_back(masks: torch.Tensor) -> None:
    logits = finite_logit(masks)
    torch.testing.assert_close(logits, torch.logit(masks))
    torch.testing.assert_close(steady_sigmoid(logits), masks)
    assert torch.autograd.gradcheck(finite_logit, masks.flatten()[:8].requires_grad_())
    assert torch.autograd.gradcheck(steady_sigmoid, logits.flatten()[:8].requires_grad_())


def test_what_is_sure_has_a_finite_logit_that_sends_no_gradient() -> None:
    sure = torch.tensor([0.0, 1e-9, 0.5, 1.0], requires_grad=True)
    logits = finite_logit(sure)
    torch.testing.assert_close(logits, torch.logit(sure, eps=LOGIT_EPSILON))
    assert logits.abs().max() < 13.9
    logits.sum().backward()
    assert sure.grad is not None
    assert sure.grad.tolist() == [0, 0, 4, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_wide(dtype: torch.dtype) -> None:
    logits = finite_logit(torch.tensor([0.0, 0.25, 1.0], dtype=dtype))
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.isfinite().all()


def test_a_sigmoid_has_the_same_bits_anywhere_and_with_any_number_of_threads() -> None:
    logits = 5 * torch.randn(2**18 + 13, generator=torch.Generator().manual_seed(0))
    probability = logits.sigmoid()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        soft, back = steady_sigmoid(logits), finite_logit(probability)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(steady_sigmoid(logits), soft)
            assert torch.equal(finite_logit(probability), back)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat([steady_sigmoid(part) for part in logits.split(961)]), soft)
    assert torch.equal(torch.cat([finite_logit(part) for part in probability.split(961)]), back)
    torch.testing.assert_close(soft, probability)


def test_a_sigmoid_of_what_is_far_out_is_0_or_1() -> None:
    far = torch.tensor([-torch.inf, -1e4, -200.0, 200.0, torch.inf])
    assert steady_sigmoid(far).tolist() == [0, 0, 0, 1, 1]
    assert steady_sigmoid(torch.tensor([torch.nan])).isnan().all()


@quick
@given(masks=soft_masks(side=10), height=st.integers(1, 15), width=st.integers(1, 15))
def test_resized_logits_are_interpolated_between_pixel_centres(masks: torch.Tensor, height: int, width: int) -> None:
    resized = resize_logits(masks, (height, width))
    assert resized.shape == (*masks.shape[:2], height, width)
    old_height, old_width = masks.shape[-2:]
    y, x = height // 2, width - 1
    # By hand, at one pixel: its centre in the old frame, between the centres around it.
    at_y = min(max((y + 0.5) * old_height / height - 0.5, 0), old_height - 1)
    at_x = min(max((x + 0.5) * old_width / width - 0.5, 0), old_width - 1)
    top, left = int(at_y), int(at_x)
    bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
    down, along = at_y - top, at_x - left
    upper = (1 - along) * masks[..., top, left] + along * masks[..., top, right]
    lower = (1 - along) * masks[..., bottom, left] + along * masks[..., bottom, right]
    torch.testing.assert_close(resized[..., y, x], (1 - down) * upper + down * lower)
    each = torch.cat([resize_logits(mask[None], (height, width)) for mask in masks])
    assert torch.equal(resized, each)


def test_logits_of_the_wanted_size_are_left_alone_and_gradients_pass() -> None:
    logits = torch.randn(2, 1, 5, 7, dtype=torch.float64, requires_grad=True)
    assert resize_logits(logits, torch.Size([5, 7])) is logits
    assert resize_logits(logits, [5, 7]) is logits
    assert torch.autograd.gradcheck(lambda value: resize_logits(value, (8, 4)), logits)
    expected = functional.interpolate(logits, (8, 4), mode="bilinear", align_corners=False)
    assert torch.equal(resize_logits(logits, (8, 4)), expected)
