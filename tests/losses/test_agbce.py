"""Annotation-guided cross entropy: OpenCV's dilation, the published code's numbers, a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import ORACLES
from torch import Tensor

from ultrarefiner.losses import (
    AGBCELoss,
    BinaryCrossEntropyLoss,
    annotation_guided_bce_loss,
    binary_cross_entropy_loss,
    disagreement_region,
)

quick = settings(deadline=None, max_examples=10)
shapes = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 10_000)
kernels = st.integers(1, 5)
weights = st.floats(0, 20)


def draw(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).round()
    flipped = torch.rand(shape, generator=generator) < 0.2
    return logits, target, torch.where(flipped, 1 - target, target)


def test_the_region_is_opencv_s_dilation() -> None:
    # tests/oracles/dilation.npz, written by
    #   random = np.random.RandomState(0)
    #   masks = (random.rand(12, 21, 17) < 0.02).astype(np.uint8)
    #   masks[0], masks[1] = 0, 1
    #   masks[2:6, [0, -1]] |= (random.rand(4, 2, 17) < 0.2).astype(np.uint8)
    #   masks[2:6, :, [0, -1]] |= (random.rand(4, 21, 2) < 0.2).astype(np.uint8)
    #   dilated = {f"kernel_{k}": np.stack([cv2.dilate(mask, np.ones((k, k), np.uint8)) for mask in masks])
    #              for k in range(1, 6)}
    #   np.savez_compressed("tests/oracles/dilation.npz", masks=masks, **dilated)
    with np.load(ORACLES / "dilation.npz") as arrays:
        masks = torch.from_numpy(arrays["masks"]).float()[:, None]
        for kernel_size in range(1, 6):
            expected = torch.from_numpy(arrays[f"kernel_{kernel_size}"]).bool()[:, None]
            region = disagreement_region(masks, torch.zeros_like(masks), kernel_size=kernel_size)
            assert torch.equal(region, expected)
            assert torch.equal(disagreement_region(torch.ones_like(masks), 1 - masks, kernel_size=kernel_size), region)


@given(shape=shapes, seed=seeds, kernel_size=st.integers(1, 8))
@quick
def test_the_region_is_scipy_s_dilation(shape: tuple[int, ...], seed: int, kernel_size: int) -> None:
    from scipy.ndimage import maximum_filter

    _, target, other = draw(shape, seed)
    differs = np.logical_xor(target.numpy(), other.numpy()).astype(np.uint8)
    dilated = maximum_filter(differs, size=(1, 1, kernel_size, kernel_size), mode="constant")
    expected = torch.from_numpy(dilated).bool()
    assert torch.equal(disagreement_region(target, other, kernel_size=kernel_size), expected)


def test_annotations_are_binarised_at_a_half() -> None:
    target = torch.tensor([0.49, 0.5, 0.2, 0.8])[None, None, None]
    other = torch.tensor([0.5, 1.0, 0.49, 0.4])[None, None, None]
    assert disagreement_region(target, other, kernel_size=1).flatten().tolist() == [True, False, False, True]
    for dtype in (torch.float16, torch.bfloat16):
        assert disagreement_region(target.to(dtype), other.to(dtype), kernel_size=1).dtype == torch.bool


GOLDEN = [(1.0, size, 0.089168) for size in range(1, 5)] + [
    (weight, size, value)
    for weight, values in (
        (4.0, (0.049043, 0.069105, 0.095856, 0.117591)),
        (12.0, (0.032581, 0.060875, 0.098600, 0.129251)),
    )
    for size, value in enumerate(values, 1)
]


@pytest.mark.parametrize(("weight", "kernel_size", "value"), GOLDEN)
def test_the_published_code_s_numbers(weight: float, kernel_size: int, value: float) -> None:
    target, other = torch.zeros(2, 1, 1, 8, 8, dtype=torch.float64)
    target[..., 2:6, 2:6] = 1
    other[..., 2:6, 3:7] = 1
    logits = torch.where(target == 1, 0.7, 0.3).double().logit()
    loss = AGBCELoss(weight=weight, kernel_size=kernel_size)(logits, target, other)
    assert loss.item() == pytest.approx(value, abs=1e-6)


@given(shape=shapes, seed=seeds, weight=weights, kernel_size=kernels)
@quick
def test_it_is_the_formula_pixel_by_pixel(shape: tuple[int, ...], seed: int, weight: float, kernel_size: int) -> None:
    logits, target, other = draw(shape, seed)
    height, width = shape[2:]
    expected = torch.zeros(shape[:2], dtype=torch.float64)
    for image, mask in np.ndindex(*shape[:2]):
        z, t, o = (tensor[image, mask].tolist() for tensor in (logits, target, other))
        hard = set()
        for row, column in np.ndindex(height, width):
            if t[row][column] != o[row][column]:
                reach = range(kernel_size // 2 - kernel_size + 1, kernel_size // 2 + 1)
                hard |= {(row + down, column + right) for down in reach for right in reach}
        for row, column in np.ndindex(height, width):
            p = 1 / (1 + math.exp(-z[row][column]))
            y = t[row][column]
            error = -0.5 * (y * math.log(p) + (1 - y) * math.log(1 - p))
            share = weight / (1 + weight) if (row, column) in hard else 1 / (1 + weight)
            expected[image, mask] += share * error / (height * width)
    actual = annotation_guided_bce_loss(logits, target, other, weight=weight, kernel_size=kernel_size, reduction="none")
    torch.testing.assert_close(actual, expected)


@given(shape=shapes, seed=seeds, weight=weights, kernel_size=kernels)
@quick
def test_the_gradient_is_the_derivative(shape: tuple[int, ...], seed: int, weight: float, kernel_size: int) -> None:
    logits, target, other = draw(shape, seed)
    logits.requires_grad_()
    loss = AGBCELoss(weight=weight, kernel_size=kernel_size, reduction="none")
    assert torch.autograd.gradcheck(lambda z: loss(z, target, other), logits)


@given(seed=seeds, kernel_size=kernels)
@quick
def test_a_batch_is_each_mask_alone_and_the_mean_is_over_masks(seed: int, kernel_size: int) -> None:
    logits, target, other = draw((3, 2, 7, 5), seed)
    loss, each = AGBCELoss(kernel_size=kernel_size), AGBCELoss(kernel_size=kernel_size, reduction="none")
    together = each(logits, target, other)
    torch.testing.assert_close(loss(logits, target, other), together.mean())
    for image, mask in np.ndindex(3, 2):
        one = (slice(image, image + 1), slice(mask, mask + 1))
        torch.testing.assert_close(loss(logits[one], target[one], other[one]), together[image, mask])


@given(shape=shapes, seed=seeds, kernel_size=kernels)
@quick
def test_weight_1_is_a_quarter_of_cross_entropy(shape: tuple[int, ...], seed: int, kernel_size: int) -> None:
    logits, target, other = draw(shape, seed)
    expected = BinaryCrossEntropyLoss()(logits, target) / 4
    torch.testing.assert_close(AGBCELoss(weight=1.0, kernel_size=kernel_size)(logits, target, other), expected)


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize(("disagree", "share"), [(False, 1 / 26), (True, 12 / 26)])
def test_all_agree_and_all_disagree(truth: float, disagree: bool, share: float) -> None:
    logits = draw((2, 2, 4, 4), 0)[0]
    target = torch.full_like(logits, truth)
    loss = AGBCELoss()(logits, target, 1 - target if disagree else target)
    torch.testing.assert_close(loss, share * binary_cross_entropy_loss(logits, target))


def test_one_disputed_pixel() -> None:
    logits, target = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    for kernel_size in (1, 4, 5):
        loss = AGBCELoss(kernel_size=kernel_size)(logits, target, 0 * target)
        assert loss.item() == pytest.approx(12 / 26 * math.log(2))


@pytest.mark.parametrize("value", [-1e4, 1e4])
@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_certain_logits_stay_finite(value: float, truth: float, dtype: torch.dtype) -> None:
    logits = torch.full((2, 1, 4, 4), value, dtype=dtype, requires_grad=True)
    target = torch.full((2, 1, 4, 4), truth, dtype=dtype)
    loss = AGBCELoss()(logits, target, 1 - target)
    loss.backward()
    expected = abs(value) * 12 / 26 if (value > 0) != (truth > 0) else 0.0
    assert loss.item() == pytest.approx(expected, rel=0.01)  # bfloat16 has no 10000
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.full((1, 1, 512, 512), -2.0, dtype=dtype)
    target = torch.ones(1, 1, 512, 512, dtype=dtype)
    loss = AGBCELoss()(logits, target, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, AGBCELoss()(logits.float(), target.float(), target.float()))


def test_each_knob_changes_the_result() -> None:
    arguments = draw((2, 1, 8, 8), 0)
    plain = AGBCELoss()(*arguments)
    assert not torch.allclose(plain, AGBCELoss(weight=4.0)(*arguments))
    assert not torch.allclose(plain, AGBCELoss(kernel_size=1)(*arguments))
    assert AGBCELoss(reduction="none")(*arguments).shape == (2, 1)
    assert torch.equal(plain, annotation_guided_bce_loss(*arguments))


def test_no_gradient_reaches_the_other_annotation() -> None:
    logits, target, other = draw((1, 1, 4, 4), 0)
    logits.requires_grad_()
    other.requires_grad_()
    AGBCELoss()(logits, target, other).backward()
    assert other.grad is None


@pytest.mark.usefixtures("unhooked")
def test_it_compiles_to_one_graph() -> None:
    arguments = draw((2, 1, 8, 8), 0)
    compiled = torch.compile(AGBCELoss(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), AGBCELoss()(*arguments))


def test_it_says_that_it_compares_annotations() -> None:
    assert AGBCELoss.compares_annotations is True


@pytest.mark.parametrize("size", [0, -2])
def test_a_kernel_without_a_pixel_is_refused(size: int) -> None:
    sentence = rf"kernel_size must be a whole number of at least 1 pixel, which does not dilate; got {size}\."
    masks = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=sentence):
        AGBCELoss(kernel_size=size)
    with pytest.raises(ValueError, match=sentence):
        disagreement_region(masks, masks, kernel_size=size)
    with pytest.raises(ValueError, match=sentence):
        annotation_guided_bce_loss(masks, masks, masks, kernel_size=size)


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_negative_weight_is_refused(weight: float) -> None:
    masks = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=rf"weight must be a finite number of at least 0; got {weight}\."):
        AGBCELoss(weight=weight)
    with pytest.raises(ValueError, match=rf"weight must be a finite number of at least 0; got {weight}\."):
        annotation_guided_bce_loss(masks, masks, masks, weight=weight)


@pytest.mark.usefixtures("unhooked")
def test_other_shapes_are_refused() -> None:
    small, large = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"target must have the shape of the logits.*\(1, 1, 4, 4\).*\(1, 1, 8, 8\)"):
        AGBCELoss()(small, large, large)
    with pytest.raises(ValueError, match=r"other_annotation must have the shape of the target.*got \(1, 1, 8, 8\)"):
        AGBCELoss()(small, small, large)
    with pytest.raises(ValueError, match=r"logits must be \(b, k, h, w\).*got shape \(4, 4\)"):
        AGBCELoss()(torch.zeros(4, 4), torch.zeros(4, 4), torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"target must be \(b, k, h, w\).*got shape \(4, 4\)"):
        disagreement_region(torch.zeros(4, 4), torch.zeros(4, 4), kernel_size=1)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none'; got 'sum'"):
        AGBCELoss(reduction="sum")(small, small, small)
