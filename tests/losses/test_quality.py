"""The two quality-aware losses, against plain loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.losses import (
    QualityAwareLoss,
    dice_bce_loss,
    pixel_quality_aware_loss,
    quality_aware_loss,
    quality_weight,
)

quick = settings(deadline=None, max_examples=6)


def draw(seed: int, agreement: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and coarse masks that agree with the target on about that share of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64)
    target = (torch.rand(2, 2, 5, 4, generator=generator) > 0.4).double()
    right = torch.rand(2, 2, 5, 4, generator=generator) < agreement
    confidence = 0.5 + 0.5 * torch.rand(2, 2, 5, 4, generator=generator, dtype=torch.float64)
    lesion = torch.where(right, target, 1 - target)
    return logits, target, torch.where(lesion == 1, confidence, 1 - confidence)


def loop(logits: Tensor, target: Tensor, coarse: Tensor, weight: float, per_pixel: bool) -> float:
    """Both formulas with Python's own numbers."""
    losses = []
    for z, t, c in zip(logits.flatten(0, 1), target.flatten(0, 1), coarse.flatten(0, 1), strict=True):
        pixels = list(zip(z.flatten().tolist(), t.flatten().tolist(), c.flatten().tolist(), strict=True))
        count = len(pixels)
        p = [1 / (1 + math.exp(-zi)) for zi, _, _ in pixels]
        bce = -sum(math.log(pi) if ti else math.log(1 - pi) for pi, (_, ti, _) in zip(p, pixels, strict=True)) / count
        true = sum(ti for _, ti, _ in pixels)
        dice = 1 - (2 * sum(pi * ti for pi, (_, ti, _) in zip(p, pixels, strict=True)) + 1) / (sum(p) + true + 1)
        hard = [1.0 if ci > 0.5 else 0.0 for _, _, ci in pixels]
        if per_pixel:
            change = sum(abs(pi - hi) for pi, hi, (_, ti, _) in zip(p, hard, pixels, strict=True) if hi == ti)
            price = change / count
        else:
            overlap = 2 * sum(hi * ti for hi, (_, ti, _) in zip(hard, pixels, strict=True)) / (sum(hard) + true)
            protection = min(1.0, max(0.0, (overlap - 0.6) / 0.4))
            price = protection * sum((pi - ci) ** 2 for pi, (_, _, ci) in zip(p, pixels, strict=True)) / count
        losses.append(bce + dice + weight * price)
    return sum(losses) / len(losses)


@given(seed=st.integers(0, 10_000), agreement=st.floats(0.5, 1), weight=st.floats(0, 4))
@quick
def test_both_forms_are_the_formulas(seed: int, agreement: float, weight: float) -> None:
    logits, target, coarse = draw(seed, agreement)
    assert quality_aware_loss(logits, target, coarse, weight=weight).item() == pytest.approx(
        loop(logits, target, coarse, weight, per_pixel=False)
    )
    assert pixel_quality_aware_loss(logits, target, coarse, weight=weight).item() == pytest.approx(
        loop(logits, target, coarse, weight, per_pixel=True)
    )


@given(seed=st.integers(0, 10_000), agreement=st.floats(0.6, 1))
@quick
def test_gradcheck_where_masks_are_protected(seed: int, agreement: float) -> None:
    logits, target, coarse = (tensor[:, :1, :3] for tensor in draw(seed, agreement))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: quality_aware_loss(z, target, coarse, weight=3.0), logits)
    assert torch.autograd.gradcheck(lambda z: pixel_quality_aware_loss(z, target, coarse, weight=3.0), logits)


@pytest.mark.parametrize("loss", [quality_aware_loss, pixel_quality_aware_loss])
def test_no_gradient_reaches_the_coarse_mask(loss: object) -> None:
    logits, target, coarse = draw(0, 0.9)
    coarse.requires_grad_()
    logits.requires_grad_()
    assert callable(loss)
    loss(logits, target, coarse).backward()
    assert coarse.grad is None
    assert logits.grad is not None


def test_the_weight_follows_the_hard_dice() -> None:
    target = torch.zeros(1, 4, 10, 10)
    target[:, :, :, :5] = 1
    coarse = torch.zeros(1, 4, 10, 10)
    coarse[:, 0, :, :5] = 0.51  # Dice 1, barely confident
    coarse[:, 1, :8, :5] = 1.0  # 40 of 50 pixels: Dice 80 / 90
    coarse[:, 2, :2, :5] = 1.0  # 10 of 50 pixels: Dice 1 / 3
    coarse[:, 3] = 0.5  # nothing above one half
    expected = torch.tensor([[1.0, (80 / 90 - 0.6) / 0.4, 0.0, 0.0]])
    torch.testing.assert_close(quality_weight(coarse, target), expected)
    torch.testing.assert_close(quality_weight(coarse.half(), target.half()), expected)


def test_a_good_mask_is_protected_and_a_bad_one_in_the_same_batch_is_not() -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 4:12, 4:12] = 1
    coarse = target.clone()
    coarse[1] = target[1].roll(8, -1)  # misses the lesion
    logits = torch.zeros(2, 1, 16, 16)
    price = quality_aware_loss(logits, target, coarse, weight=1.0, reduction="none") - dice_bce_loss(
        logits, target, reduction="none"
    )
    torch.testing.assert_close(price, torch.tensor([[0.25], [0.0]]))


def test_an_empty_coarse_mask_of_an_empty_target_is_protected() -> None:
    empty = torch.zeros(1, 1, 8, 8)
    assert quality_weight(empty, empty).item() == 1.0
    assert quality_weight(empty, torch.ones(1, 1, 8, 8)).item() == 0.0
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    quality_aware_loss(logits, empty, empty).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_pixel_that_the_coarse_mask_has_wrong_costs_nothing_extra() -> None:
    target = torch.ones(1, 1, 1, 2)
    coarse = torch.tensor([[[[0.9, 0.1]]]])
    logits = torch.zeros(1, 1, 1, 2)
    price = pixel_quality_aware_loss(logits, target, coarse, weight=1.0) - dice_bce_loss(logits, target)
    assert price.item() == pytest.approx(0.25)  # |0.5 - 1| on one of two pixels


@pytest.mark.parametrize("start", [-0.1, 1.0])
def test_a_start_outside_its_range_is_refused(start: float) -> None:
    mask = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"start must be a Dice in \[0, 1\).*got"):
        quality_weight(mask, mask, start=start)
    with pytest.raises(ValueError, match=r"start must be a Dice in \[0, 1\).*got"):
        QualityAwareLoss(start=start)


@pytest.mark.usefixtures("unhooked")
def test_a_quality_weight_never_broadcasts() -> None:
    mask = torch.ones(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"target must have the shape of the coarse_probability.*\(1, 1, 4, 4\)"):
        quality_weight(mask, mask[:1])
    with pytest.raises(ValueError, match=r"coarse_probability must be \(b, k, h, w\).*got shape \(4, 4\)"):
        quality_weight(mask[0, 0], mask[0, 0])


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("loss", [quality_aware_loss, pixel_quality_aware_loss])
def test_a_coarse_mask_of_another_size_is_refused(loss: object) -> None:
    assert callable(loss)
    mask = torch.ones(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"coarse_probability must have the shape of the logits.*\(1, 1, 2, 2\)"):
        loss(mask, mask, torch.ones(1, 1, 2, 2))
