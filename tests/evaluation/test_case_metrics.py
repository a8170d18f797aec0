"""Metrics of one mask, against plain sets and scipy's distance transform."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt

from ultrarefiner.evaluation import segmentation_metrics

EMPTY = torch.zeros(1, 30, 40, dtype=torch.bool)
SQUARE = EMPTY.clone()
SQUARE[:, 10:20, 10:20] = True


def surface_distances(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Distance of each border pixel of the first mask to the border of the second."""
    border_of_first, border_of_second = (mask & ~binary_erosion(mask) for mask in (first, second))
    return distance_transform_edt(~border_of_second, sampling=spacing)[border_of_first]


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.02, 0.98),
    height=st.integers(2, 16),
    width=st.integers(2, 16),
    spacing=st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.25, 1.0, 3.0])),
)
@settings(deadline=None, max_examples=25)
def test_metrics_follow_their_definitions(
    seed: int, share: float, height: int, width: int, spacing: tuple[float, float]
) -> None:
    generator = np.random.default_rng(seed)
    prediction, target = generator.random((2, height, width)) < share
    prediction[generator.integers(height), generator.integers(width)] = True
    target[generator.integers(height), generator.integers(width)] = True
    metrics = segmentation_metrics(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None], spacing=spacing)
    p, t = set(np.flatnonzero(prediction)), set(np.flatnonzero(target))
    assert metrics.dice == pytest.approx(2 * len(p & t) / (len(p) + len(t)))
    assert metrics.iou == pytest.approx(len(p & t) / len(p | t))
    assert metrics.precision == pytest.approx(len(p & t) / len(p))
    assert metrics.recall == pytest.approx(len(p & t) / len(t))
    assert (metrics.prediction_pixels, metrics.target_pixels) == (len(p), len(t))
    there = surface_distances(prediction, target, spacing)
    back = surface_distances(target, prediction, spacing)
    assert metrics.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert metrics.assd == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)


def test_monai_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert segmentation_metrics(SQUARE, SQUARE.roll(1, -1)).hd95 == 1.0


def test_a_perfect_mask() -> None:
    metrics = segmentation_metrics(SQUARE, SQUARE)
    assert dataclasses.astuple(metrics) == (1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 100, 100)


def test_two_empty_masks_agree() -> None:
    metrics = segmentation_metrics(EMPTY, EMPTY)
    assert dataclasses.astuple(metrics) == (1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0, 0)


@pytest.mark.parametrize(("prediction", "target"), [(EMPTY, SQUARE), (SQUARE, EMPTY)])
def test_one_empty_mask_costs_the_image_s_diagonal(prediction: torch.Tensor, target: torch.Tensor) -> None:
    metrics = segmentation_metrics(prediction, target)
    assert dataclasses.astuple(metrics)[:6] == (0.0, 0.0, 0.0, 0.0, 50.0, 50.0)  # 30, 40, 50
    wide = segmentation_metrics(prediction, target, spacing=(0.4, 0.1))
    assert wide.hd95 == wide.assd == pytest.approx(math.hypot(12, 4))


def test_a_missed_lesion_is_never_better_than_a_bad_mask() -> None:
    far = EMPTY.clone()
    far[:, 29, 39] = True
    assert segmentation_metrics(far, SQUARE).hd95 < segmentation_metrics(EMPTY, SQUARE).hd95


@pytest.mark.parametrize("name", ["full", "one pixel", "one row", "border"])
def test_degenerate_masks_have_finite_metrics(name: str) -> None:
    mask = EMPTY.clone()
    mask[{"full": ..., "one pixel": (0, 3, 3), "one row": (0, 5), "border": (0, slice(0, 4), slice(0, 4))}[name]] = True
    for prediction, target in ((mask, SQUARE), (SQUARE, mask), (mask, mask), (mask, EMPTY)):
        values = dataclasses.astuple(segmentation_metrics(prediction, target))
        assert all(math.isfinite(value) for value in values)


def test_distances_scale_with_the_spacing() -> None:
    shifted = SQUARE.roll(4, -1)
    assert segmentation_metrics(shifted, SQUARE).hd95 == pytest.approx(4.0)
    assert segmentation_metrics(shifted, SQUARE, spacing=(1.0, 0.5)).hd95 == pytest.approx(2.0)


@pytest.mark.usefixtures("unhooked")
def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction must be a boolean mask; got torch.float32.*Threshold it first"):
        segmentation_metrics(SQUARE.float(), SQUARE)
    with pytest.raises(ValueError, match=r"target must be \(1, h, w\).*got shape \(2, 30, 40\)"):
        segmentation_metrics(SQUARE, SQUARE.expand(2, -1, -1))
    with pytest.raises(ValueError, match=r"must be on the same pixels; got \(1, 30, 40\) and \(1, 30, 20\)"):
        segmentation_metrics(SQUARE, SQUARE[..., :20])


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_a_spacing_that_is_no_size_is_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="spacing must be the positive"):
        segmentation_metrics(SQUARE, SQUARE, spacing=spacing)
