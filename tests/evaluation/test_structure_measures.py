"""The polyp benchmarks' measures against plain loops over the papers' formulas, and degenerate masks."""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion
from torch import Tensor

from ultrarefiner.evaluation import StructureMeasures, structure_measures

Grid = list[list[float]]


def grids(probability: Tensor, target: Tensor) -> tuple[Grid, Grid]:
    """Plain lists; the map in 8 bits."""
    return [[round(value * 255) / 255 for value in row] for row in probability[0].double().tolist()], target[
        0
    ].double().tolist()


# S-measure: Fan et al., ICCV 2017


def s_measure(values: Grid, truth: Grid) -> float:
    height, width = len(truth), len(truth[0])
    inside = [(y, x) for y in range(height) for x in range(width) if truth[y][x]]
    outside = [(y, x) for y in range(height) for x in range(width) if not truth[y][x]]
    if not inside:
        return 1 - sum(map(sum, values)) / (height * width)
    if not outside:
        return sum(map(sum, values)) / (height * width)
    share = len(inside) / (height * width)
    objects = share * object_likeness([values[y][x] for y, x in inside])
    objects += (1 - share) * object_likeness([1 - values[y][x] for y, x in outside])
    # Python rounds halves to even, as numpy does; the cut lies behind the centroid's pixel.
    row = round(sum(y for y, _ in inside) / len(inside)) + 1
    column = round(sum(x for _, x in inside) / len(inside)) + 1
    regions = 0.0
    for rows in (range(row), range(row, height)):
        for columns in (range(column), range(column, width)):
            part = [(y, x) for y in rows for x in columns]
            if part:
                likeness = part_likeness([values[y][x] for y, x in part], [truth[y][x] for y, x in part])
                regions += likeness * len(part) / (height * width)
    return max(0.0, 0.5 * objects + 0.5 * regions)


def object_likeness(values: list[float]) -> float:
    mean, deviation = mean_and_deviation(values)
    return 2 * mean / (mean**2 + 1 + deviation)


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def part_likeness(values: list[float], truth: list[float]) -> float:
    """Luminance times contrast times structure, where all three are defined."""
    (x, deviation), (y, true_deviation) = mean_and_deviation(values), mean_and_deviation(truth)
    pairs = [(a - x) * (b - y) for a, b in zip(values, truth, strict=True)]
    covariance = sum(pairs) / (len(pairs) - 1) if len(pairs) > 1 else 0.0
    above = 4 * x * y * covariance
    below = (x**2 + y**2) * (deviation**2 + true_deviation**2)
    if above:
        return above / below
    return 1.0 if below == 0 else 0.0


# E-measure: Fan et al., IJCAI 2018


def mean_e_measure(values: Grid, truth: Grid) -> float:
    count = len(truth) * len(truth[0])
    true_mean = sum(map(sum, truth)) / count
    total = 0.0
    for level in range(256):
        mask = [[float(round(value * 255) >= level) for value in row] for row in values]
        mean = sum(map(sum, mask)) / count
        for row, true_row in zip(mask, truth, strict=True):
            for one, true_one in zip(row, true_row, strict=True):
                if true_mean in (0, 1):
                    total += one if true_mean else 1 - one
                    continue
                a, b = one - mean, true_one - true_mean
                total += (1 + 2 * a * b / (a * a + b * b)) ** 2 / 4
    return total / (256 * count)


# Weighted F-measure: Margolin et al., CVPR 2014


def weighted_f_measure(values: Grid, truth: Grid) -> float:
    """For truths with one nearest lesion pixel for each other pixel: rectangles."""
    height, width = len(truth), len(truth[0])
    inside = [(y, x) for y in range(height) for x in range(width) if truth[y][x]]
    errors, distances, spread = ({} for _ in range(3))
    for y in range(height):
        for x in range(width):
            errors[y, x] = abs(values[y][x] - truth[y][x])
            near = min(inside, key=lambda other: math.dist(other, (y, x)))
            distances[y, x] = math.dist(near, (y, x))
            spread[y, x] = abs(values[near[0]][near[1]] - 1)
    kernel = {(a, b): math.exp(-(a * a + b * b) / 50) for a in range(-3, 4) for b in range(-3, 4)}
    whole = sum(kernel.values())
    weighted = {}
    for (y, x), error in errors.items():
        if truth[y][x]:
            around = sum(weight * spread.get((y + a, x + b), 0.0) for (a, b), weight in kernel.items()) / whole
            weighted[y, x] = min(error, around)
        else:
            weighted[y, x] = error * (2 - math.exp(math.log(0.5) / 5 * distances[y, x]))
    missed = sum(weighted[place] for place in inside)
    false = sum(error for (y, x), error in weighted.items() if not truth[y][x])
    recall = 1 - missed / len(inside)
    found = len(inside) - missed
    precision = found / (found + false) if found + false else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# Means over thresholds; F by Achanta et al., CVPR 2009


def means_over_thresholds(values: Grid, truth: Grid) -> dict[str, float]:
    sums = dict.fromkeys(("mean_f_measure", "sensitivity", "mean_dice", "mean_iou"), 0.0)
    pairs = [pair for row, true_row in zip(values, truth, strict=True) for pair in zip(row, true_row, strict=True)]
    lesion_pixels = sum(true for _, true in pairs)
    for level in range(256):
        chosen = [true for value, true in pairs if round(value * 255) >= level]
        both = sum(chosen)
        if not lesion_pixels:
            sums = {name: total + (not chosen) for name, total in sums.items()}
            continue
        precision, recall = both / len(chosen) if chosen else 0.0, both / lesion_pixels
        if both:
            sums["mean_f_measure"] += 1.3 * precision * recall / (0.3 * precision + recall)
        sums["sensitivity"] += recall
        sums["mean_dice"] += 2 * both / (len(chosen) + lesion_pixels)
        sums["mean_iou"] += both / (len(chosen) + lesion_pixels - both)
    return {name: total / 256 for name, total in sums.items()}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A random map, sometimes sparse, and a random rectangle, sometimes at the border, one pixel or everything."""
    height, width = draw(st.integers(2, 11)), draw(st.integers(2, 11))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    target = torch.zeros(1, height, width, dtype=torch.bool)
    target[:, top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = True
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    probability = torch.rand(target.shape, generator=generator)
    near = draw(st.sampled_from([0.0, 0.7, 1.0]))
    probability = near * target.float() + (1 - near) * probability
    return probability * draw(st.sampled_from([1.0, 0.3])), target


@settings(deadline=None, max_examples=40)
@given(pairs())
def test_every_measure_is_the_plain_loop(pair: tuple[Tensor, Tensor]) -> None:
    found, (values, truth) = structure_measures(*pair), grids(*pair)
    assert found.s_measure == pytest.approx(s_measure(values, truth), abs=1e-9)
    assert found.mean_e_measure == pytest.approx(mean_e_measure(values, truth), abs=1e-9)
    assert found.weighted_f_measure == pytest.approx(weighted_f_measure(values, truth), abs=1e-9)
    for name, expected in means_over_thresholds(values, truth).items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-9)
    differences = [
        abs(a - b) for row, other in zip(values, truth, strict=True) for a, b in zip(row, other, strict=True)
    ]
    assert found.mae == pytest.approx(sum(differences) / len(differences))


def test_scattered_lesions_too() -> None:
    """S, E and the means have no nearest pixel in them: any truth will do."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        target = torch.rand(1, 9, 13, generator=generator) > 0.7
        probability = torch.rand(1, 9, 13, generator=generator)
        found, (values, truth) = structure_measures(probability, target), grids(probability, target)
        assert found.s_measure == pytest.approx(s_measure(values, truth))
        assert found.mean_e_measure == pytest.approx(mean_e_measure(values, truth))
        assert found.sensitivity == pytest.approx(means_over_thresholds(values, truth)["sensitivity"])


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("true_name", degenerate_masks())
@pytest.mark.parametrize("name", degenerate_masks())
def test_no_degenerate_mask_gives_nan_or_a_warning(name: str, true_name: str, stretched: bool) -> None:
    masks = degenerate_masks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = structure_measures(masks[name][0], masks[true_name][0] >= 0.5, stretched=stretched)
    for field, value in dataclasses.asdict(found).items():
        assert -1e-12 <= value <= 1 + 1e-12, (field, value)


def flat(value: float, size: tuple[int, int] = (6, 8)) -> Tensor:
    return torch.full((1, *size), value)


def test_an_empty_truth_rewards_an_empty_map() -> None:
    nothing = flat(0.0) > 1
    silent, loud, faint = (structure_measures(flat(value), nothing) for value in (0.0, 1.0, 10 / 255))
    most = 255 / 256
    assert dataclasses.astuple(silent) == pytest.approx((1, most, 1, most, most, most, most, 0))
    assert loud == StructureMeasures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    # Thresholds from 11 to 255 leave nothing of it.
    assert faint.mean_dice == faint.sensitivity == 245 / 256
    assert faint.mean_e_measure == pytest.approx(245 / 256)
    assert faint.weighted_f_measure == 0
    assert faint.s_measure == pytest.approx(1 - 10 / 255)
    # A constant map cannot be stretched; any other then has a pixel of 1.
    assert structure_measures(flat(10 / 255), nothing, stretched=True) == faint
    one = flat(0.0)
    one[0, 2, 3] = 0.1
    assert structure_measures(one, nothing, stretched=True).mean_dice == 0


def test_a_full_truth() -> None:
    everything = flat(1.0) >= 1
    assert dataclasses.astuple(structure_measures(flat(1.0), everything)) == pytest.approx((*[1] * 7, 0))
    half = structure_measures(flat(51 / 255), everything)
    assert (half.s_measure, half.mae) == (pytest.approx(0.2), pytest.approx(0.8))
    assert half.sensitivity == 52 / 256
    assert half.mean_e_measure == pytest.approx(52 / 256)


def one_pixel() -> Tensor:
    mask = flat(0.0, (60, 60)) > 1
    mask[0, 20, 20] = True
    return mask


def test_an_empty_prediction_still_has_structure_but_no_overlap() -> None:
    target = lesion(60, 60, (30, 30), (5, 5))[None].bool()
    found = structure_measures(flat(0.0, (60, 60)), target)
    assert found.s_measure == pytest.approx((1 - target.float().mean().item()) / 2)
    assert structure_measures(flat(0.0, (60, 60)), one_pixel()).s_measure > 0.8
    assert found.weighted_f_measure == pytest.approx(0)
    assert found.sensitivity == pytest.approx(1 / 256)
    assert found.mean_dice < 0.001
    # Beyond the border lie zeros, and no error.
    corner = structure_measures(flat(0.0, (60, 60)), target.roll((-25, -25), (1, 2)))
    assert corner.weighted_f_measure > 0.05


def test_a_single_pixel_is_an_image_too() -> None:
    one = torch.ones(1, 1, 1)
    assert structure_measures(one, one > 0).mean_e_measure == pytest.approx(1)
    assert structure_measures(one, one < 0).mean_e_measure == 0


def test_a_perfect_mask_loses_only_the_lowest_threshold() -> None:
    target = lesion(40, 50, (20, 22), (9, 12))[None].bool()
    found = structure_measures(target.float(), target)
    assert (found.s_measure, found.weighted_f_measure) == (pytest.approx(1), pytest.approx(1))
    assert (found.sensitivity, found.mae) == (1, 0)
    share = target.float().mean().item()
    assert found.mean_iou == pytest.approx((255 + share) / 256)
    assert found.mean_e_measure == pytest.approx((255 + 0.25) / 256)


def test_nothing_is_stretched_unless_asked_for() -> None:
    target = lesion(40, 50, (20, 22), (9, 12))[None].bool()
    faint = 0.1 * target.float()
    plain, stretched = structure_measures(faint, target), structure_measures(faint, target, stretched=True)
    assert plain.sensitivity == pytest.approx(27 / 256)  # 0.1 is level 26 of 255
    assert stretched == structure_measures(target.float(), target)
    noisy = 0.02 * torch.rand(1, 40, 50, generator=torch.Generator().manual_seed(0))
    assert structure_measures(noisy, target).mae < 0.2 < structure_measures(noisy, target, stretched=True).mae


def test_stretched_is_the_toolbox_as_it_comes() -> None:
    import py_sod_metrics

    generator = torch.Generator().manual_seed(3)
    target = lesion(40, 50, (20, 22), (9, 12))[None].bool()
    probability = 0.1 + 0.5 * torch.rand(1, 40, 50, generator=generator) * (0.3 + 0.7 * target)
    found = structure_measures(probability, target, stretched=True)
    picture = np.round(probability[0].double().numpy() * 255).astype(np.uint8)
    truth = target[0].numpy().astype(np.uint8) * 255
    handlers = {"dice": py_sod_metrics.DICEHandler(True, False), "iou": py_sod_metrics.IOUHandler(True, False)}
    tools = [py_sod_metrics.Smeasure(), py_sod_metrics.Emeasure(), py_sod_metrics.WeightedFmeasure()]
    tools += [py_sod_metrics.MAE(), py_sod_metrics.FmeasureV2(handlers)]
    for tool in tools:
        tool.step(picture, truth)
    s, e, weighted, error, overlap = (tool.get_results() for tool in tools)
    assert found.s_measure == pytest.approx(s["sm"])
    assert found.mean_e_measure == pytest.approx(e["em"]["curve"].mean() * (2000 - 1) / 2000)
    assert found.weighted_f_measure == pytest.approx(weighted["wfm"])
    assert found.mae == pytest.approx(error["mae"])
    assert found.mean_dice == pytest.approx(overlap["dice"]["dynamic"].mean())
    assert found.mean_iou == pytest.approx(overlap["iou"]["dynamic"].mean())


def test_any_floating_point_will_do() -> None:
    target = lesion(20, 24, (10, 12), (5, 6))[None].bool()
    levels = torch.randint(0, 256, (1, 20, 24), generator=torch.Generator().manual_seed(0))
    narrow, wide = (structure_measures((levels / 255).to(dtype), target) for dtype in (torch.float32, torch.float64))
    assert narrow == wide
    assert structure_measures((levels / 255).requires_grad_(), target) == wide


@pytest.mark.usefixtures("unhooked")
def test_what_cannot_be_measured_gets_a_sentence() -> None:
    target = torch.zeros(1, 6, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"probability must be \(1, h, w\).*got shape \(6, 8\)"):
        structure_measures(torch.zeros(6, 8), target)
    with pytest.raises(ValueError, match=r"target must be \(1, h, w\).*got shape \(2, 6, 8\)"):
        structure_measures(torch.zeros(1, 6, 8), target.expand(2, -1, -1))
    with pytest.raises(ValueError, match=r"same pixels; got \(1, 3, 4\) and \(1, 6, 8\)"):
        structure_measures(torch.zeros(1, 3, 4), target)
    with pytest.raises(ValueError, match=r"in \[0, 1\], without NaN; got torch.float32 from -2.0 to 3.0"):
        structure_measures(torch.linspace(-2, 3, 48).view(1, 6, 8), target)
    with pytest.raises(ValueError, match=r"without NaN; got .* from nan"):
        structure_measures(torch.full((1, 6, 8), float("nan")), target)
    with pytest.raises(ValueError, match=r"probability must be floating point.*got torch\.bool"):
        structure_measures(target, target)
    with pytest.raises(ValueError, match=r"target must be a boolean mask; got torch\.float32"):
        structure_measures(target.float(), target.float())


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    target = torch.zeros(1, 6, 8, dtype=torch.bool)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ultrarefiner\[measures\]'"):
        structure_measures(target.float(), target)
