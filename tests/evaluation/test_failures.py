"""What is wrong with masks in numbers, two sets side by side, and their pictures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.stats import ks_2samp
from strategies import lesion
from torch import Tensor

from ultrarefiner.evaluation import (
    FailureStatistics,
    compare_failures,
    failure_comparison_figure,
    failure_sheet,
    failure_statistics,
    failures_table,
)
from ultrarefiner.evaluation.failures import TITLES
from ultrarefiner.simulation import BoundaryRoughness, Empty, FailureSimulator, MissingChunk, Shift

MEASURES = tuple(TITLES)


def disc(radius: float, *, side: int = 96, centre: tuple[float, float] = (48.0, 48.0)) -> Tensor:
    return lesion(side, side, centre, (radius, radius)).bool()


def measured(mask: Tensor, target: Tensor) -> dict[str, float]:
    found = failure_statistics(mask[None], target[None])
    return {name: getattr(found, name).item() for name in (*MEASURES, "empty")}


@st.composite
def noise(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two masks of random pixels, few or many of them, the second never empty."""
    height, width = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    share = draw(st.floats(0.05, 0.95))
    mask = torch.rand(height, width, generator=generator) < share
    target = torch.rand(height, width, generator=generator) < 0.4
    target[0, 0] = True
    return mask, target


def parts(mask: Tensor, *, corners: bool) -> list[set[tuple[int, int]]]:
    """Connected parts by flooding, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in mask.nonzero()}
    found = []
    while left:
        flood, part = [left.pop()], set()
        while flood:
            y, x = flood.pop()
            part.add((y, x))
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if (corners or i * j == 0) and (y + i, x + j) in left:
                        left.remove((y + i, x + j))
                        flood.append((y + i, x + j))
        found.append(part)
    return found


def surface_distances(one: Tensor, other: Tensor) -> np.ndarray:
    """From the border pixels of one mask to those of the other, by scipy's distance transform."""
    first, second = (mask.numpy() & ~binary_erosion(mask.numpy()) for mask in (one, other))
    return distance_transform_edt(~second)[first]


# failure_statistics


@settings(deadline=None, max_examples=25)
@given(noise())
def test_counts_are_those_of_flooding(masks: tuple[Tensor, Tensor]) -> None:
    mask, target = masks
    height, width = mask.shape
    found = measured(mask, target)
    assert found["components"] == len(parts(mask, corners=True))
    enclosed = [
        part for part in parts(~mask, corners=False) if all(0 < y < height - 1 and 0 < x < width - 1 for y, x in part)
    ]
    assert found["holes"] == len(enclosed)
    assert found["area_ratio"] == pytest.approx(mask.sum().item() / target.sum().item())
    both = (mask & target).sum().item()
    assert found["dice"] == pytest.approx(2 * both / (mask.sum() + target.sum()).item())


@settings(deadline=None, max_examples=10)
@given(noise())
def test_distances_are_those_of_scipy_in_radii(masks: tuple[Tensor, Tensor]) -> None:
    mask, target = masks
    mask[-1, -1] = True
    radius = math.sqrt(target.sum().item() / math.pi)
    there, back = surface_distances(mask, target), surface_distances(target, mask)
    found = measured(mask, target)
    assert found["boundary_error"] == pytest.approx(np.concatenate([there, back]).mean() / radius, rel=1e-5)
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    assert found["hausdorff_error"] == pytest.approx(hausdorff / radius, rel=1e-5)
    centres = [mask.nonzero().double().mean(0) for mask in (mask, target)]
    assert found["centroid_shift"] == pytest.approx((centres[0] - centres[1]).norm().item() / radius, abs=1e-9)


@pytest.mark.parametrize("grown", [-6, 3, 9])
def test_a_disc_that_grows_by_a_known_amount_errs_by_it(grown: int) -> None:
    found = measured(disc(24 + grown), disc(24))
    assert found["boundary_error"] == pytest.approx(abs(grown) / 24, abs=0.02)
    assert found["hausdorff_error"] == pytest.approx(abs(grown) / 24, abs=0.04)
    assert found["area_ratio"] == pytest.approx(((24 + grown) / 24) ** 2, rel=0.02)
    assert found["centroid_shift"] == pytest.approx(0, abs=1e-6)
    assert (found["components"], found["holes"], found["empty"]) == (1, 0, False)


def test_measures_do_not_depend_on_the_size_of_the_lesion() -> None:
    small = measured(disc(13, centre=(50.0, 48.0)), disc(10))
    large = measured(disc(39, side=288, centre=(150.0, 144.0)), disc(30, side=288, centre=(144.0, 144.0)))
    for name in ("dice", "boundary_error", "hausdorff_error", "centroid_shift", "area_ratio"):
        assert small[name] == pytest.approx(large[name], rel=0.07), name
    assert large["centroid_shift"] == pytest.approx(0.2, rel=0.01)


@pytest.mark.parametrize("temperature", [0.8, 1.5, 3.0])
def test_softness_is_the_width_of_a_logistic_border(temperature: float) -> None:
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    soft = torch.sigmoid((30 - ((x - 48) ** 2 + (y - 48) ** 2).sqrt()) / temperature)
    found = measured(soft, disc(30))
    assert found["dice"] == 1
    assert found["softness"] == pytest.approx(2 * math.log(9) * temperature, rel=0.06)
    assert math.isnan(measured(soft > 0.5, disc(30))["softness"])


def test_a_straight_contour_has_its_length_and_the_frame_is_none() -> None:
    """A half plane with two columns of doubt: 2 pixels wide, less what Crofton's four directions add."""
    soft = torch.zeros(200, 200)
    soft[:, :100] = 1.0
    soft[:, 99:101] = torch.tensor([0.7, 0.3])
    four = math.pi / 8 * (1 + math.sqrt(2))
    assert measured(soft, soft > 0.5)["softness"] == pytest.approx(2 / four, rel=0.01)
    assert four == pytest.approx(1, abs=0.06)


def test_degenerate_masks() -> None:
    target = disc(20)
    empty, full, pixel = target & False, target | True, target & False
    pixel[48, 48] = True
    nothing = measured(empty.float(), target)
    assert (nothing["dice"], nothing["area_ratio"], nothing["components"], nothing["holes"]) == (0, 0, 0, 0)
    assert nothing["empty"]
    assert all(
        math.isnan(nothing[name]) for name in ("boundary_error", "hausdorff_error", "centroid_shift", "softness")
    )
    whole = measured(full.float(), target)
    assert (whole["components"], whole["holes"], whole["empty"]) == (1, 0, False)
    assert whole["boundary_error"] > 0.5
    assert math.isnan(whole["softness"])
    dot = measured(pixel, target)
    assert (dot["components"], dot["holes"]) == (1, 0)
    assert dot["boundary_error"] == pytest.approx(1, abs=0.1)
    same = measured(pixel, pixel)
    assert [same[name] for name in MEASURES[:6]] == [1, 0, 0, 0, 1, 1]
    half = torch.full((8, 8), 0.5)
    assert measured(half, half > 0)["empty"], "0.5 is not lesion"


def test_a_batch_is_each_mask_and_empty_lesions_are_left_out() -> None:
    target = torch.stack([disc(20), disc(20) & False, disc(9), disc(30)])
    soft = torch.stack([disc(22), disc(5), disc(9) & False, disc(28)]).half() * 0.8
    whole = failure_statistics(soft, target)
    assert len(whole) == 3
    assert whole.index.tolist() == [0, 2, 3]
    for place, index in enumerate(whole.index.tolist()):
        alone = failure_statistics(soft[index : index + 1], target[index : index + 1])
        for name in (*MEASURES, "empty"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[place])
    assert len(whole.defined("boundary_error")) == 2
    assert len(failure_statistics(soft[1:2], target[1:2])) == 0


@pytest.mark.usefixtures("unhooked")
def test_masks_that_cannot_be_measured_are_refused() -> None:
    target = disc(20)[None]
    with pytest.raises(ValueError, match=r"on the same pixels; got \(1, 1, 96, 96\) and \(1, 96, 96\)"):
        failure_statistics(target[None], target)
    with pytest.raises(ValueError, match=r"target must be boolean masks; got torch\.float32"):
        failure_statistics(target, target.float())
    for wrong in (2.5, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"probability must be boolean or in \[0, 1\]; got torch\.float32 from"):
            failure_statistics(torch.where(target, wrong, 0.0), target)


# compare_failures, failures_table


def statistics(seed: int, number: int, *, shift: float = 0.0) -> FailureStatistics:
    """Random numbers in place of measured ones, some of them not defined."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(shift, 1, number) for name in MEASURES}
    columns["components"] = rng.integers(0, 12, number).astype(float)
    columns["dice"] = rng.random(number)
    columns["boundary_error"][::7] = np.nan
    columns["softness"][:] = np.nan
    return FailureStatistics(index=np.arange(number), empty=np.arange(number) % 4 == 0, **columns)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 40), st.floats(-2, 2))
def test_distance_is_the_largest_gap_between_the_shares_below(seed: int, few: int, many: int, shift: float) -> None:
    real, simulated = statistics(seed, few), statistics(seed + 1, many, shift=shift)
    for one in compare_failures(real, simulated).measures:
        first, second = real.defined(one.measure).tolist(), simulated.defined(one.measure).tolist()
        if not first or not second:
            assert math.isnan(one.distance)
            continue
        gaps = [
            abs(sum(a <= x for a in first) / len(first) - sum(b <= x for b in second) / len(second))
            for x in first + second
        ]
        assert one.distance == pytest.approx(max(gaps), abs=1e-12)
        if min(few, many) > 2:
            assert one.distance == pytest.approx(ks_2samp(first, second, method="asymp").statistic, abs=1e-12)


def test_spreads_leave_out_what_is_not_defined() -> None:
    found = statistics(0, 21)
    values = np.linspace(0, 2, 21)
    values[::2] = np.nan
    comparison = compare_failures(dataclasses.replace(found, area_ratio=values), found)
    assert [one.measure for one in comparison.measures] == list(MEASURES)
    spread = comparison.measures[MEASURES.index("area_ratio")].real
    # 0.1, 0.3 ... 1.9
    assert dataclasses.astuple(spread) == pytest.approx((0.19, 0.55, 1.0, 1.45, 1.81, 10))
    none = comparison.measures[MEASURES.index("softness")]
    assert none.real.count == 0
    assert math.isnan(none.real.median)
    assert math.isnan(none.distance)
    assert comparison.real_empty == pytest.approx(6 / 21)


def test_the_table_says_all_that_is_needed_to_judge() -> None:
    comparison = compare_failures(statistics(0, 100), statistics(1, 400, shift=5.0))
    lines = failures_table(comparison).splitlines()
    assert {line.count("|") for line in lines[: 3 + len(MEASURES)]} == {5}
    assert [line.split("|")[1].strip() for line in lines[2:10]] == list(TITLES.values())
    assert lines[9] == "| Width of the soft border (px) | - | - | - |"
    assert lines[10] == "| Empty masks | 25.0% | 25.0% | 0.00 |"
    assert float(lines[5].split("|")[4]) > 0.9
    dice = comparison.measures[0]
    assert f"{dice.real.median:.2f} ({dice.real.first_quartile:.2f} to {dice.real.third_quartile:.2f})" in lines[2]
    assert f"[{dice.simulated.low:.2f}, {dice.simulated.high:.2f}]" in lines[2]
    assert lines[7].startswith(f"| Components | {comparison.measures[5].real.median:.0f} (")
    text = lines[-1]
    assert "100 real and 400 simulated masks" in text
    # 1.358 sqrt(1/100 + 1/400), from any table of the test.


def test_a_set_without_masks_is_refused(tmp_path: Path) -> None:
    some, none = statistics(0, 5), statistics(0, 0)
    with pytest.raises(ValueError, match="real must hold at least one mask of a lesion; got none"):
        compare_failures(none, some)
    with pytest.raises(ValueError, match="simulated must hold at least one mask of a lesion; got none"):
        compare_failures(some, none)
    with pytest.raises(ValueError, match="simulated must hold at least one mask of a lesion to draw; got none"):
        failure_comparison_figure(some, none, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# Pictures


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB")).astype(int)


def test_each_measure_of_each_set_is_drawn(tmp_path: Path) -> None:
    real, simulated = statistics(0, 60), statistics(1, 80)
    path = tmp_path / "new" / "a.png"
    failure_comparison_figure(real, simulated, path, dots_per_inch=50)
    whole = pixels(path)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    assert whole.shape == (270, 450, 3)
    assert len(np.unique(whole.reshape(-1, 3), axis=0)) > 20
    panels = ("dice", "boundary_error", "area_ratio", "components", "centroid_shift", "softness")
    for number, name in enumerate(panels):
        sets = [real, simulated]
        sets[number % 2] = dataclasses.replace(sets[number % 2], **{name: np.full(len(sets[number % 2]), 0.5)})
        failure_comparison_figure(*sets, path, dots_per_inch=50)
        assert (pixels(path) != whole).any(), name


def test_histograms_of_equal_sets_do_not_depend_on_their_numbers(tmp_path: Path) -> None:
    """Bars are shares: the same values four times over give the same picture below the legend."""
    target = torch.stack([disc(20), disc(12), disc(30)])
    soft = target.roll((3, 4), (1, 2)) * 0.9
    one, four = failure_statistics(soft, target), failure_statistics(soft.repeat(4, 1, 1), target.repeat(4, 1, 1))
    for name, other in (("a", one), ("b", four)):
        failure_comparison_figure(one, other, tmp_path / f"{name}.png", dots_per_inch=50)
    first, second = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert (first[25:] == second[25:]).all()
    assert (first[:25] != second[:25]).any()


def sheet(simulator: FailureSimulator, masks: Tensor, path: Path, **options: int) -> np.ndarray:
    failure_sheet(simulator, masks, path, **{"dots_per_inch": 40, **options})
    return pixels(path)


def test_the_sheet_has_a_row_for_each_kind_and_a_column_for_each_mask(tmp_path: Path) -> None:
    masks = torch.stack([disc(10, side=48, centre=(20.0, 24.0)), disc(15, side=48, centre=(24.0, 24.0))])
    path = tmp_path / "sheet.png"
    one = FailureSimulator(edits={Shift(): 1.0}, complete={})
    two = dataclasses.replace(one, edits={Shift(): 1.0, MissingChunk(): 2.0})
    three = dataclasses.replace(two, complete={Empty(): 1.0})
    first, second, third = (sheet(simulator, masks, path) for simulator in (one, two, three))
    assert [path.name] == [file.name for file in tmp_path.iterdir()]
    row = second.shape[0] - first.shape[0]
    assert row == pytest.approx(third.shape[0] - second.shape[0], abs=1)
    assert row > 30
    wide = sheet(one, masks[[0, 1, 1]], path)
    assert wide.shape[1] - first.shape[1] == pytest.approx(1.1 * 40, abs=1)
    assert (first != sheet(one, masks, path, seed=1)).any()
    assert (first == sheet(one, masks, path)).all()
    # White is what was predicted: nothing in the last row, where the mask is empty.
    pictures = third[:, int(1.45 * 40) :]
    assert (pictures[-row + 10 :].min(2) > 200).mean() < 0.1 < (pictures[: row - 4].min(2) > 200).mean()


def test_what_a_sheet_shows_is_neither_bins_nor_frequencies_but_the_softening(tmp_path: Path) -> None:
    masks = torch.stack([disc(18, side=64, centre=(30.0, 32.0)), disc(9, side=64, centre=(30.0, 32.0))])
    path = tmp_path / "sheet.png"
    own = FailureSimulator(edits={BoundaryRoughness(): 1.0}, complete={})
    drawn = sheet(own, masks, path)
    others = FailureSimulator.preset("severe", edits={BoundaryRoughness(): 7.0}, complete={}, complete_share=0.0)
    assert (drawn == sheet(others, masks, path)).all()
    assert (drawn != sheet(dataclasses.replace(own, softness=(8.0, 9.0)), masks, path)).any()


@pytest.mark.filterwarnings("error")
def test_lesions_that_touch_or_fill_the_frame_are_drawn(tmp_path: Path) -> None:
    masks = torch.ones(2, 24, 40, dtype=torch.bool)
    masks[1, :, 20:] = False
    failure_sheet(FailureSimulator(), masks, tmp_path / "sheet.pdf")
    assert (tmp_path / "sheet.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("unhooked")
def test_masks_that_cannot_fail_are_refused(tmp_path: Path) -> None:
    masks = torch.stack([disc(20), disc(20) & False])
    simulator, path = FailureSimulator(), tmp_path / "sheet.png"
    with pytest.raises(ValueError, match=r"masks must each have a lesion to fail at; got empty ones at \[1\]"):
        failure_sheet(simulator, masks, path)
    for wrong in (masks.float(), masks[:, None], masks[:0]):
        with pytest.raises(ValueError, match=r"masks must be boolean \(n, h, w\) with at least one mask; got"):
            failure_sheet(simulator, wrong, path)
    assert not path.exists()


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        failure_comparison_figure(statistics(0, 5), statistics(1, 5), path, dots_per_inch=30)
    with pytest.raises(OSError, match="no space"):
        failure_sheet(FailureSimulator(edits={Shift(): 1.0}, complete={}), disc(20)[None], path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
