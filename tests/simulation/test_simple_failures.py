"""Simple segmentation failures."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.simulation import FailureParameters, SimpleFailures, simulate_failures

quick = settings(deadline=None, max_examples=15)


def discs(*radii: float, size: int = 64) -> Tensor:
    axis = torch.arange(size) - (size - 1) / 2
    distance = (axis[:, None].square() + axis.square()).sqrt()
    return torch.stack([(distance < radius).float() for radius in radii])[:, None]


def no_error(b: int = 1, k: int = 1, n: int = 1) -> FailureParameters:
    zero, zeros = torch.zeros(b, k), torch.zeros(b, k, n)
    return FailureParameters(zero, zero, torch.zeros(b, k, 2), zeros, zeros, zero)


def hard_dice(probability: Tensor, target: Tensor) -> Tensor:
    return dice_coefficient((probability > 0.5).float(), target)


DEGENERATE = {
    "empty": lambda m: m,
    "full": lambda m: m + 1,
    "one pixel": lambda m: m.index_put((torch.tensor(5), torch.tensor(7)), torch.tensor(1.0)),
    "one row": lambda m: m.index_fill(0, torch.tensor(4), 1.0),
    "corner": lambda m: torch.nn.functional.pad(torch.ones(5, 4), (0, m.shape[1] - 4, 0, m.shape[0] - 5)),
}


@pytest.mark.parametrize("name", DEGENERATE)
@given(seed=st.integers(0, 10_000), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
@quick
def test_every_mask_gives_a_probability(name: str, seed: int, dtype: torch.dtype) -> None:
    target = DEGENERATE[name](torch.zeros(12, 17))[None, None].to(dtype)
    result = SimpleFailures()(target, torch.Generator().manual_seed(seed))
    assert result.shape == target.shape
    assert result.dtype == torch.promote_types(dtype, torch.float32)
    assert ((result >= 0) & (result <= 1)).all()
    # Nothing that is left of a lesion is too soft to be seen at one half; what the shift carries out is lost.
    assert (result > 0.5).any() == (result > 0.01).any()
    assert name != "empty" or not result.any()
    assert name not in ("full", "one row", "corner", "one pixel") or (result > 0.5).any()


def test_a_nan_in_the_target_is_background() -> None:
    target = discs(12.0)
    broken = target.masked_fill(torch.eye(64, dtype=torch.bool).roll(30, 1), math.nan)
    result = SimpleFailures()(broken, torch.Generator().manual_seed(0))
    assert result.isfinite().all()


def test_without_errors_a_disc_stays() -> None:
    target = discs(20.0)
    assert hard_dice(simulate_failures(target, no_error()), target).item() > 0.995


@pytest.mark.parametrize("growth", [-0.3, -0.1, 0.1, 0.3])
def test_growth_moves_the_contour_by_that_share_of_the_radius(growth: float) -> None:
    target = discs(20.0)
    parameters = dataclasses.replace(no_error(), growth=torch.tensor([[growth]]))
    area = (simulate_failures(target, parameters) > 0.5).sum().item()
    assert math.sqrt(area / math.pi) == pytest.approx(20 * (1 + growth), abs=1.2)


def test_shift_moves_the_centroid_by_that_share_of_the_radius() -> None:
    target = discs(16.0)
    parameters = dataclasses.replace(no_error(), shift=torch.tensor([[[0.25, -0.5]]]))
    y, x = torch.nonzero(simulate_failures(target, parameters)[0, 0] > 0.5).float().mean(0).tolist()
    assert (x - 31.5, y - 31.5) == pytest.approx((4.0, -8.0), abs=0.1)


def test_a_hole_has_its_radius_and_lies_in_the_lesion() -> None:
    target = discs(20.0)
    hole = dataclasses.replace(
        no_error(), hole_position=torch.full((1, 1, 1), 0.484), hole_radius=torch.full((1, 1, 1), 0.3)
    )
    lost = target - (simulate_failures(target, hole) > 0.5).float()
    assert lost.sum().item() == pytest.approx(math.pi * 6**2, rel=0.1)


@example(seed=0, position=1 - 2**-53)
@given(seed=st.integers(0, 1000), position=st.floats(0, 1, exclude_max=True))
@quick
def test_every_hole_removes_a_pixel_of_any_shape(seed: int, position: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(1, 1, 4, 4, generator=generator).repeat_interleave(8, -1).repeat_interleave(8, -2)
    target = (target > 0.6).float()
    target[..., :8, :8] = 1.0
    whole = simulate_failures(target, no_error())
    hole = dataclasses.replace(
        no_error(), hole_position=torch.full((1, 1, 1), position), hole_radius=torch.full((1, 1, 1), 0.2)
    )
    assert simulate_failures(target, hole).sum() < whole.sum() - 0.9


def test_softness_widens_the_edge_with_the_lesion() -> None:
    parameters = dataclasses.replace(no_error(2), softness=torch.full((2, 1), 0.2))
    soft = simulate_failures(discs(8.0, 24.0), parameters)[:, 0, 31]
    unsure = ((soft > 0.05) & (soft < 0.95)).sum(-1) / 2
    # From 5 % to 95 % of a straight edge are 3.3 sigma.
    assert unsure.tolist() == pytest.approx([3.3 * 0.2 * 8, 3.3 * 0.2 * 24], abs=1.5)


def test_an_erosion_keeps_the_thickest_part() -> None:
    target = torch.zeros(1, 1, 32, 32)
    target[..., 10, 4:28] = 1  # one row: every erosion by a share of its equivalent radius is deeper than it
    parameters = dataclasses.replace(no_error(), growth=torch.tensor([[-0.9]]))
    assert (simulate_failures(target, parameters) > 0.5).any()


def test_a_thin_lesion_is_not_blurred_away() -> None:
    target = torch.zeros(1, 1, 64, 64)
    target[..., 4:60, 31] = 1
    parameters = dataclasses.replace(no_error(), softness=torch.tensor([[0.5]]))
    result = simulate_failures(target, parameters)
    assert result.max().item() == pytest.approx(0.55, abs=1e-4)
    assert hard_dice(result, target).item() > 0.7


def test_a_batch_is_each_mask_alone_and_masks_draw_their_own_errors() -> None:
    target = torch.cat([discs(10.0, 10.0, 0.0), discs(10.0, 16.0, 5.0)], 1)
    parameters = SimpleFailures(chance=1.0).draw(3, 2, torch.Generator().manual_seed(1))
    together = simulate_failures(target, parameters)
    for image in range(3):
        for mask in range(2):
            one = (slice(image, image + 1), slice(mask, mask + 1))
            fields = {f.name: getattr(parameters, f.name)[one] for f in dataclasses.fields(parameters)}
            alone = simulate_failures(target[one], FailureParameters(**fields))
            torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=0)
    assert together[2, 0].sum() == 0
    assert parameters.growth.unique().numel() == 6
    assert parameters.shift.flatten(0, 1).unique(dim=0).shape[0] == 6


def test_the_same_generator_state_gives_the_same_masks() -> None:
    target = discs(10.0, 20.0)
    first, again, other = (SimpleFailures()(target, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "options",
    [
        {"growth": (0.1, 0.2)},
        {"rounding": (0.5, 0.6)},
        {"shift": (0.5, 0.6)},
        {"holes": 5},
        {"hole_radius": (0.6, 0.7)},
        {"softness": (0.5, 0.6)},
        {"chance": 0.0},
    ],
)
def test_each_knob_changes_the_result(options: dict[str, object]) -> None:
    target = torch.nn.functional.pad(torch.ones(4, 1, 30, 20), (20, 24, 20, 14))
    default = SimpleFailures()(target, torch.Generator().manual_seed(0))
    changed = SimpleFailures(**options)(target, torch.Generator().manual_seed(0))
    assert not torch.allclose(default, changed, atol=0.05)


def test_chance_is_the_share_of_masks_with_each_error() -> None:
    drawn = SimpleFailures(chance=0.3).draw(4000, 1, torch.Generator().manual_seed(0))
    for error in (drawn.growth, drawn.shift.norm(dim=-1), drawn.hole_radius.amax(-1)):
        assert (error != 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert drawn.softness.min() > 0


def test_draws_stay_in_their_ranges() -> None:
    drawn = SimpleFailures(chance=1.0, holes=3).draw(2000, 1, torch.Generator().manual_seed(0))
    length = drawn.shift.norm(dim=-1)
    assert -0.3 <= drawn.growth.min() < -0.28
    assert 0.33 < drawn.growth.max() <= 0.35
    assert length.max() <= 0.351
    assert drawn.hole_radius.max() <= 0.4
    holes = (drawn.hole_radius > 0).sum(-1).flatten()
    assert [round((holes == n).float().mean().item(), 1) for n in range(4)] == [0.0, 0.3, 0.3, 0.3]
    assert SimpleFailures(holes=0)(discs(10.0), torch.Generator()).shape == (1, 1, 64, 64)


def test_the_dice_of_the_results_is_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(64.0)
    height, width = (6 + 16 * torch.rand(2, 200, 1, 1, generator=generator)).unbind(0)
    target = (((axis[:, None] - 32) / height).square() + ((axis - 32) / width).square() < 1).float()[:, None]
    result = SimpleFailures()(target, generator)
    dice = hard_dice(result, target).flatten().numpy()
    low, quarter, median, high = np.quantile(dice, [0.05, 0.25, 0.5, 0.95])
    assert 0.45 < low < 0.7
    assert quarter > 0.65
    assert 0.72 < median < 0.88
    assert 0.92 < high < 0.99
    assert (dice == 1).mean() < 0.02


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"growth": (-2.0, 0.1)}, r"growth must be \(smallest, largest\).*at least -1; got \(-2.0, 0.1\)"),
        ({"rounding": (0.3, 0.1)}, "rounding must be"),
        ({"shift": (-0.1, 0.1)}, "shift must be"),
        ({"hole_radius": (-0.1, 0.1)}, "hole_radius must be"),
        ({"softness": (0.0, math.nan)}, "softness must be"),
        ({"holes": -1}, "holes must be the largest number of holes.*got -1"),
        ({"chance": 1.5}, r"chance must be a probability in \[0, 1\]; got 1.5"),
    ],
)
def test_numbers_without_a_meaning_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SimpleFailures(**options)


@pytest.mark.usefixtures("unhooked")
def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target must be \(b, k, h, w\).*got shape \(4, 4\)"):
        simulate_failures(torch.zeros(4, 4), no_error())
    with pytest.raises(ValueError, match=r"parameters must hold one set of errors a mask.*\(3, 1\).*\(1, 1\)"):
        simulate_failures(torch.zeros(3, 1, 4, 4), no_error())
    for field, wrong in (
        ("rounding", (1, 1)),
        ("softness", (2, 2)),
        ("shift", (2, 1)),
        ("shift", (2, 1, 3)),
        ("hole_position", (2, 1)),
        ("hole_radius", (2, 1, 4)),
    ):
        parameters = dataclasses.replace(no_error(2, 1, 3), **{field: torch.zeros(wrong)})
        with pytest.raises(ValueError, match=rf"{field} must be \(2, 1.*; got {re.escape(str(wrong))}"):
            simulate_failures(torch.zeros(2, 1, 4, 4), parameters)


def test_parameters_keep_their_values_on_their_way() -> None:
    drawn = SimpleFailures(holes=3).draw(4, 2, torch.Generator().manual_seed(0))
    moved = drawn.to(torch.zeros(1, dtype=torch.float64))
    for field in dataclasses.fields(drawn):
        there = getattr(moved, field.name)
        assert there.dtype == torch.float64
        torch.testing.assert_close(there, getattr(drawn, field.name).double(), rtol=0, atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_gpu() -> None:
    target, generator = discs(10.0, 20.0), torch.Generator()
    expected = SimpleFailures()(target, generator.manual_seed(0))
    on_device = target.cuda()
    SimpleFailures()(on_device, generator.manual_seed(0))  # plans of the FFT are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = SimpleFailures()(on_device, generator.manual_seed(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(result.cpu(), expected, atol=1e-3, rtol=0)
