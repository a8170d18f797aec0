from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from ultrarefiner.evaluation import (
    area_under_clicks,
    bootstrap_estimates,
    click_figure,
    click_table,
    normalised_surface_dice,
    segmentation_metrics,
)


def smooth(seed: int, shape: tuple[int, ...] = (12, 20, 18)) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) > 0


def nsd(first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    return normalised_surface_dice(
        torch.from_numpy(first)[None], torch.from_numpy(second)[None], spacing=spacing, tolerance=tolerance
    )


# normalised_surface_dice


@pytest.mark.parametrize(
    ("spacing", "shares"),
    [
        ((1.0, 1.0, 1.0), (0.5056203478272188, 0.714354234797336, 0.9137972686680113)),
        ((3.0, 0.8, 0.8), (0.45298751165619056, 0.6824039691623006, 0.777077018470131)),
        ((2.0, 1.0, 0.5), (0.4835945073368184, 0.7781766988456905, 0.923354963171101)),
    ],
)
def test_it_is_deepminds(spacing: tuple[float, float, float], shares: tuple[float, ...]) -> None:
    """Numbers of surface-distance 0.1 (compute_surface_dice_at_tolerance) for six pairs, drawn in this order."""
    generator = np.random.default_rng(0)
    pairs = [[gaussian_filter(generator.normal(size=(12, 20, 18)), 2) > 0 for _ in range(2)] for _ in range(9)]
    start = {1.0: 0, 3.0: 3, 2.0: 6}[spacing[0]]
    for (first, second), tolerance, share in zip(pairs[start:], (0.0, 1.0, 2.0), shares, strict=False):
        assert nsd(first, second, spacing, tolerance) == pytest.approx(share, abs=1e-6)


def test_slices_count_in_millimetres() -> None:
    truth = np.zeros((9, 20, 20), bool)
    truth[3:6, 5:15, 5:15] = True
    moved = np.roll(truth, 1, 0)
    assert nsd(moved, truth, (3.0, 1.0, 1.0), 3.0) == 1
    assert nsd(moved, truth, (1.0, 1.0, 1.0), 1.0) == 1
    assert nsd(moved, truth, (3.0, 1.0, 1.0), 2.9) < 0.9
    aside = np.roll(truth, 3, 2)
    assert nsd(aside, truth, (3.0, 1.0, 1.0), 2.9) < nsd(aside, truth, (3.0, 1.0, 0.9), 2.9) == 1


@given(seed=st.integers(0, 1000), spacing=st.tuples(*(st.sampled_from([0.5, 1.0, 3.0]) for _ in range(3))))
@settings(deadline=None, max_examples=10)
def test_it_is_a_symmetric_share_that_grows(seed: int, spacing: tuple[float, float, float]) -> None:
    first, second = smooth(seed, (7, 9, 8)), smooth(seed + 1, (7, 9, 8))
    shares = [nsd(first, second, spacing, tolerance) for tolerance in (0.0, 0.5, 1.0, 2.0, 100.0)]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] == 1
    assert nsd(second, first, spacing, 1.0) == pytest.approx(shares[2], abs=1e-6)
    doubled = nsd(first, second, tuple(2 * size for size in spacing), 2.0)
    assert doubled == pytest.approx(shares[2], abs=1e-5)


def test_masks_that_are_empty_full_or_thin() -> None:
    empty = np.zeros((4, 6, 5), bool)
    one = empty.copy()
    one[2, 3, 1] = True
    assert nsd(empty, empty, (1.0, 1.0, 1.0), 2.0) == 1
    assert nsd(one, empty, (1.0, 1.0, 1.0), 2.0) == nsd(empty, one, (1.0, 1.0, 1.0), 2.0) == 0
    for mask in (one, ~empty, ~one):
        assert nsd(mask, mask, (1.0, 1.0, 1.0), 0.0) == 1
    slice_ = smooth(0, (1, 12, 12))
    assert nsd(slice_, slice_, (5.0, 1.0, 1.0), 0.0) == 1
    square = np.zeros((20, 20), bool)
    square[5:12, 5:12] = True
    assert nsd(np.roll(square, 1, 0), square, (2.0, 1.0), 2.0) == 1
    assert nsd(np.roll(square, 1, 0), square, (2.0, 1.0), 1.0) < 0.8


def test_monai_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nsd(smooth(0), smooth(0), (1.0, 1.0, 1.0), 0.0) == 1


def test_wrong_masks_get_a_sentence(unhooked: None) -> None:
    mask = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    spacing = (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"prediction must be one boolean mask, .* got torch.float32 \(1, 4, 4, 4\)"):
        normalised_surface_dice(mask.float(), mask, spacing=spacing)
    with pytest.raises(ValueError, match=r"truth must be one boolean mask"):
        normalised_surface_dice(mask, mask.expand(2, -1, -1, -1), spacing=spacing)
    with pytest.raises(ValueError, match="must be on the same voxels"):
        normalised_surface_dice(mask, mask[..., :3], spacing=spacing)
    for bad in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)):
        with pytest.raises(ValueError, match="spacing must be 3 positive sizes, one an axis of the masks; got"):
            normalised_surface_dice(mask, mask, spacing=bad)
    for tolerance in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="tolerance must be at least 0 and finite"):
            normalised_surface_dice(mask, mask, spacing=spacing, tolerance=tolerance)


# segmentation_metrics of volumes


@given(seed=st.integers(0, 1000), spacing=st.tuples(*(st.sampled_from([0.5, 1.0, 3.0]) for _ in range(3))))
@settings(deadline=None, max_examples=10)
def test_metrics_of_volumes_follow_their_definitions(seed: int, spacing: tuple[float, float, float]) -> None:
    prediction, target = smooth(seed, (6, 9, 8)), smooth(seed + 1, (6, 9, 8))
    found = segmentation_metrics(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None], spacing=spacing)
    assert found.dice == pytest.approx(2 * (prediction & target).sum() / (prediction.sum() + target.sum()))
    borders = [mask & ~binary_erosion(mask) for mask in (prediction, target)]
    there = distance_transform_edt(~borders[1], sampling=spacing)[borders[0]]
    back = distance_transform_edt(~borders[0], sampling=spacing)[borders[1]]
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert found.assd == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)


def test_a_missed_object_is_as_far_as_the_volume_is_long() -> None:
    target = torch.zeros(1, 3, 4, 12, dtype=torch.bool)
    target[0, 1, 1, 1] = True
    missed = segmentation_metrics(target & False, target, spacing=(2.0, 2.0, 2.0))
    assert missed.hd95 == missed.assd == 26.0
    assert segmentation_metrics(target & False, target).hd95 == 13.0
    with pytest.raises(ValueError, match=r"spacing must be the positive \(slice, row, column\) size of a voxel"):
        segmentation_metrics(target, target, spacing=(1.0, 1.0))


# area_under_clicks


def test_the_area_is_the_challenges() -> None:
    values = np.random.default_rng(0).random((7, 6))
    found = area_under_clicks(values, normalised=False)
    for case, area in zip(values, found, strict=True):
        theirs = integrate.cumulative_trapezoid(np.array(case[-5:]), np.arange(5))[-1]
        assert area == pytest.approx(theirs)
    assert np.allclose(area_under_clicks(values), found / 4)
    assert area_under_clicks(np.ones(6), normalised=False) == 4
    assert area_under_clicks(np.ones((2, 3, 9))).tolist() == [[1, 1, 1]] * 2
    assert area_under_clicks(values, first=0)[0] == pytest.approx(integrate.trapezoid(values[0]) / 5)
    changed = values.copy()
    changed[:, 0] += 1
    assert np.array_equal(area_under_clicks(changed), area_under_clicks(values)), "the box does not count"


def test_too_few_clicks_get_a_sentence() -> None:
    for values, first in ((np.ones((3, 2)), 1), (np.ones((3, 6)), 5), (np.ones((3, 6)), -1)):
        with pytest.raises(ValueError, match="at least two finite results from click"):
            area_under_clicks(values, first=first)
    with pytest.raises(ValueError, match=r"the shape \(3, 6\) with 1 that are not finite"):
        area_under_clicks(np.where(np.arange(18).reshape(3, 6) == 7, np.nan, 0.5))


# click_table and click_figure


def curves(cases: int = 12, clicks: int = 6) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    start = generator.uniform(0.4, 0.8, (cases, 1))
    gain = 1 - np.exp(-np.arange(clicks) / 2.0)
    noise = 0.03 * generator.normal(size=(3, cases, clicks))
    heights = {"box alone": 0.0, "clicks as points": 0.15, "GRU correction": 0.22}
    return {
        name: np.clip(start + height * gain + one, 0, 1)
        for (name, height), one in zip(heights.items(), noise, strict=True)
    }


GROUPS = [f"p{case // 2}" for case in range(12)]


def test_the_table_holds_the_estimates() -> None:
    found = click_table(curves(), GROUPS, against="clicks as points", resamples=200, seed=3).splitlines()
    assert found[0] == "| Dice | 0 clicks | 1 click | 2 clicks | 3 clicks | 4 clicks | 5 clicks | area 1 to 5 |"
    assert [line.split(" | ")[0] for line in found[2:7]] == [
        "| box alone",
        "| clicks as points",
        "| GRU correction",
        "| box alone - clicks as points",
        "| GRU correction - clicks as points",
    ]
    values = curves()
    (third,) = bootstrap_estimates(values["GRU correction"][:, 3:4], GROUPS, resamples=200, seed=3)
    assert found[4].split(" | ")[4] == f"{third.mean:.3f} [{third.low:.3f}, {third.high:.3f}]"
    (gained,) = bootstrap_estimates(
        (values["GRU correction"] - values["clicks as points"])[:, 3:4], GROUPS, resamples=200, seed=3
    )
    assert found[6].split(" | ")[4] == f"{gained.mean:+.3f} [{gained.low:+.3f}, {gained.high:+.3f}]"
    area = area_under_clicks(values["box alone"]).mean()
    assert found[2].split(" | ")[7].startswith(f"{area:.3f} [")
    assert found[-1].startswith("12 cases in 6 groups; [ ]: 95 % bootstrap interval of the mean (200 resamples")
    assert len({line.count("|") for line in found[:7]}) == 1
    two = click_table({"a": np.ones((2, 2))}, ["p", "q"], measure="NSD", resamples=10).splitlines()
    assert two[0] == "| NSD | 0 clicks | 1 click |"


def test_the_figure_is_whole_and_the_same_again(tmp_path: Path) -> None:
    path = click_figure(curves(), tmp_path / "new" / "clicks.png", groups=GROUPS, resamples=100, dots_per_inch=50)
    first = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.size == (270, 190)
        assert len(picture.convert("RGB").getcolors(100_000)) > 100
    assert click_figure(curves(), path, groups=GROUPS, resamples=100, dots_per_inch=50).read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["clicks.png"]
    assert click_figure(curves(3, 1), tmp_path / "a.pdf", resamples=10).read_bytes().startswith(b"%PDF")
    wider = click_figure(curves(), path, groups=["one"] * 6 + ["two"] * 6, resamples=100, dots_per_inch=50)
    assert wider.read_bytes() != first


def test_curves_that_are_none_get_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for wrong in ({}, {"a": np.ones((3, 2)), "b": np.ones((3, 3))}, {"a": np.ones((0, 2))}):
        groups = [] if not wrong or len(wrong["a"]) == 0 else list("pqr")
        with pytest.raises(ValueError, match=r"curves must hold at least one method, all of them \(cases, clicks\)"):
            click_table(wrong, groups)
        with pytest.raises(ValueError, match="curves must hold at least one method"):
            click_figure(wrong, path)
    with pytest.raises(ValueError, match="curves must be finite, but b is not"):
        click_figure({"a": np.ones((1, 2)), "b": np.array([[1.0, np.nan]])}, path)
    with pytest.raises(ValueError, match="groups must name one group a case, 12, got 1"):
        click_table(curves(), ["p"])
    with pytest.raises(ValueError, match="against must be one of the methods box alone, clicks as points, GRU"):
        click_table(curves(), GROUPS, against="nothing")
    assert not path.exists()
