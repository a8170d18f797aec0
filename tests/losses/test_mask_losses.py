"""Dice, cross entropy, their sum, focal: against independent oracles, mask by mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.losses import (
    BinaryCrossEntropyLoss,
    DiceBCELoss,
    DiceLoss,
    FocalLoss,
    PixelQualityAwareLoss,
    QualityAwareLoss,
    binary_cross_entropy_loss,
    dice_bce_loss,
    dice_loss,
    focal_loss,
    pixel_quality_aware_loss,
    quality_aware_loss,
)

quick = settings(deadline=None, max_examples=6)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 10_000)


def _soft_coarse(logits: Tensor) -> Tensor:
    return torch.rand(logits.shape, generator=torch.Generator().manual_seed(3))


def _quality(logits: Tensor, target: Tensor, **options: object) -> Tensor:
    return quality_aware_loss(logits, target, 0.6 * target.float() + 0.4 * _soft_coarse(logits), **options)


def _pixel_quality(logits: Tensor, target: Tensor, **options: object) -> Tensor:
    return pixel_quality_aware_loss(logits, target, _soft_coarse(logits), **options)


every_loss = pytest.mark.parametrize(
    "loss", [dice_loss, binary_cross_entropy_loss, dice_bce_loss, focal_loss, _quality, _pixel_quality]
)


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    return logits, (torch.rand(shape, generator=generator) > 0.5).to(dtype)


@every_loss
@given(shape=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)), seed=seeds)
@quick
def test_the_gradient_is_the_derivative(loss: Callable[..., Tensor], shape: tuple[int, ...], seed: int) -> None:
    logits, target = draw(shape, seed)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, target, reduction="none"), logits)


@every_loss
@given(shape=shapes, seed=seeds)
@quick
def test_a_batch_is_each_mask_alone_and_the_mean_is_over_masks(
    loss: Callable[..., Tensor], shape: tuple[int, ...], seed: int
) -> None:
    # _soft_coarse depends on the shape, so the quality losses are given their coarse masks once.
    logits, target = draw(shape, seed)
    together = loss(logits, target, reduction="none")
    assert together.shape == shape[:2]
    torch.testing.assert_close(loss(logits, target), together.mean())
    if loss in (_quality, _pixel_quality):
        return
    for image in range(shape[0]):
        for mask in range(shape[1]):
            one = (slice(image, image + 1), slice(mask, mask + 1))
            torch.testing.assert_close(loss(logits[one], target[one]), together[image, mask])


@pytest.mark.parametrize("loss", [quality_aware_loss, pixel_quality_aware_loss])
def test_a_batch_is_each_mask_alone_for_the_quality_losses(loss: Callable[..., Tensor]) -> None:
    logits, target = draw((3, 2, 8, 8), 0)
    coarse = (target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    together = loss(logits, target, coarse, reduction="none")
    for image in range(3):
        one = slice(image, image + 1)
        alone = loss(logits[one], target[one], coarse[one], reduction="none")[0]
        torch.testing.assert_close(alone, together[image])


@given(shape=shapes, seed=seeds, smooth=st.floats(0.01, 5))
@quick
def test_dice_is_monai_s(shape: tuple[int, ...], seed: int, smooth: float) -> None:
    from monai.losses import DiceLoss as MonaiDiceLoss

    logits, target = draw(shape, seed)
    oracle = MonaiDiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth, reduction="none")
    expected = oracle(logits, target).reshape(shape[:2])
    torch.testing.assert_close(dice_loss(logits, target, smooth=smooth, reduction="none"), expected)


@given(shape=shapes, seed=seeds)
@quick
def test_cross_entropy_is_the_formula(shape: tuple[int, ...], seed: int) -> None:
    logits, target = draw(shape, seed)
    expected = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), target)
    torch.testing.assert_close(binary_cross_entropy_loss(logits, target), expected)


@given(shape=shapes, seed=seeds, dice_weight=st.floats(0, 3), bce_weight=st.floats(0, 3))
@quick
def test_the_sum_is_the_weighted_sum(shape: tuple[int, ...], seed: int, dice_weight: float, bce_weight: float) -> None:
    logits, target = draw(shape, seed)
    expected = dice_weight * dice_loss(logits, target, smooth=2.0)
    expected = expected + bce_weight * binary_cross_entropy_loss(logits, target)
    actual = dice_bce_loss(logits, target, dice_weight=dice_weight, bce_weight=bce_weight, smooth=2.0)
    torch.testing.assert_close(actual, expected)


@given(shape=shapes, seed=seeds, gamma=st.floats(0, 4), alpha=st.none() | st.floats(0, 1))
@quick
def test_focal_is_the_paper_s_formula(shape: tuple[int, ...], seed: int, gamma: float, alpha: float | None) -> None:
    logits, target = draw(shape, seed)
    right = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())
    share = 1.0 if alpha is None else torch.where(target == 1, alpha, 1 - alpha).to(logits)
    expected = (-share * (1 - right) ** gamma * right.log()).mean((-2, -1))
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma, alpha=alpha, reduction="none"), expected)


def test_a_small_missed_lesion_costs_as_much_as_a_large_one() -> None:
    target = torch.zeros(2, 1, 64, 64)
    target[0, 0, :48, :48] = 1  # found
    target[1, 0, 30:34, 30:34] = 1  # missed
    logits = torch.full_like(target, -20.0)
    logits[0] = 40 * target[0] - 20
    assert dice_loss(logits, target, smooth=0.0).item() == pytest.approx(0.5, abs=1e-4)


@every_loss
@pytest.mark.parametrize("value", [-50.0, 50.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_certain_logits_stay_finite(loss: Callable[..., Tensor], value: float, truth: float) -> None:
    logits = torch.full((2, 1, 4, 4), value, requires_grad=True)
    result = loss(logits, torch.full((2, 1, 4, 4), truth))
    result.backward()
    assert result.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    # 512 x 512 ones overflow float16, whose largest number is 65504.
    logits = torch.full((1, 1, 512, 512), 2.0, dtype=dtype, requires_grad=True)
    target = torch.ones(1, 1, 512, 512, dtype=dtype)
    result = loss(logits, target)
    result.backward()
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(logits.float(), target.float()))
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@pytest.mark.usefixtures("unhooked")
@every_loss
def test_another_shape_is_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"target must have the shape of the logits.*\(1, 1, 4, 4\).*\(1, 1, 8, 8\)"):
        dice_bce_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"logits must be \(b, k, h, w\).*got shape \(4, 4\)"):
        loss(torch.zeros(4, 4), torch.zeros(4, 4))


@pytest.mark.usefixtures("unhooked")
@every_loss
def test_an_unknown_reduction_is_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none'; got 'sum'"):
        loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), reduction="sum")


@pytest.mark.parametrize(
    ("loss", "kind", "option"),
    [
        (dice_loss, DiceLoss, "smooth"),
        (dice_bce_loss, DiceBCELoss, "dice_weight"),
        (dice_bce_loss, DiceBCELoss, "bce_weight"),
        (dice_bce_loss, DiceBCELoss, "smooth"),
        (focal_loss, FocalLoss, "gamma"),
        *[
            (loss, kind, option)
            for loss, kind in ((_quality, QualityAwareLoss), (_pixel_quality, PixelQualityAwareLoss))
            for option in ("weight", "dice_weight", "bce_weight", "smooth")
        ],
    ],
)
@pytest.mark.parametrize("number", [-0.5, float("nan"), float("inf")])
def test_negative_numbers_are_refused(
    loss: Callable[..., Tensor], kind: type[torch.nn.Module], option: str, number: float
) -> None:
    sentence = rf"{option} must be a finite number of at least 0; got {number}\."
    with pytest.raises(ValueError, match=sentence):
        kind(**{option: number})
    with pytest.raises(ValueError, match=sentence):
        loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), **{option: number})


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], or None; got {alpha}"):
        FocalLoss(alpha=alpha)
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 1\], or None; got {alpha}"):
        focal_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), alpha=alpha)


@pytest.mark.parametrize(
    ("module", "other"),
    [
        (DiceLoss(), DiceLoss(smooth=9.0)),
        (BinaryCrossEntropyLoss(), BinaryCrossEntropyLoss(reduction="none")),
        (DiceBCELoss(), DiceBCELoss(dice_weight=2.0)),
        (DiceBCELoss(), DiceBCELoss(bce_weight=2.0)),
        (DiceBCELoss(), DiceBCELoss(smooth=9.0)),
        (FocalLoss(), FocalLoss(gamma=1.0)),
        (FocalLoss(), FocalLoss(alpha=None)),
    ],
)
def test_each_knob_changes_the_result(module: torch.nn.Module, other: torch.nn.Module) -> None:
    logits, target = draw((2, 1, 4, 4), 0)
    first, second = module(logits, target), other(logits, target)
    assert first.shape != second.shape or not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (QualityAwareLoss, {"weight": 2.0}),
        (QualityAwareLoss, {"start": 0.1}),
        (QualityAwareLoss, {"dice_weight": 2.0}),
        (QualityAwareLoss, {"bce_weight": 2.0}),
        (QualityAwareLoss, {"smooth": 9.0}),
        (PixelQualityAwareLoss, {"weight": 2.0}),
        (PixelQualityAwareLoss, {"dice_weight": 2.0}),
        (PixelQualityAwareLoss, {"bce_weight": 2.0}),
        (PixelQualityAwareLoss, {"smooth": 9.0}),
    ],
)
def test_each_knob_of_the_quality_losses_changes_the_result(
    kind: type[torch.nn.Module], options: dict[str, float]
) -> None:
    logits, target = draw((2, 1, 4, 4), 0)
    coarse = 0.6 * target + 0.2
    coarse[:, :, 0, :2] = 0.4  # no longer perfect
    assert not torch.allclose(kind()(logits, target, coarse), kind(**options)(logits, target, coarse))
    assert kind(reduction="none")(logits, target, coarse).shape == (2, 1)
