"""Edits of signed distances: no dead knobs, each edit does what its name says, and sizes are relative."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import lesion
from torch import Tensor

from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.simulation.edits import (
    BoundaryRoughness,
    Bridge,
    ContourNoise,
    Edit,
    Empty,
    Fragmentation,
    GiantOverSegmentation,
    InternalHoles,
    Islands,
    MissingChunk,
    OverSegmentation,
    PartialCollapse,
    ScatterOnly,
    Shift,
    UnderSegmentation,
)
from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.presets import PRESETS
from ultrarefiner.simulation.shapes import capsule, ellipse, strip, wedge
from ultrarefiner.simulation.strength import distance_to_bin, flip_strength, solve_strength

quick = settings(deadline=None, max_examples=15)
KINDS: list[Edit] = list(
    {type(edit): edit for one in PRESETS.values() for edit in (*one.edits, *one.complete)}.values()
)
KNOBS = [(edit, knob.name) for edit in KINDS for knob in dataclasses.fields(edit)]


def ellipses(count: int, side: int = 72, seed: int = 0) -> Tensor:
    """Ellipses of 6 to 16 px across and along, somewhere in the middle, (n, h, w)."""
    radii, centres = counter_uniform(seed, torch.arange(count), 4).split(2, 1)
    return torch.stack(
        [
            lesion(side, side, tuple(side * (0.4 + 0.2 * centre)), tuple((6 + 10 * radius) * side / 72)) > 0
            for centre, radius in zip(centres, radii, strict=True)
        ]
    )


def edited(edit: Edit, masks: Tensor, severity: float = 0.2, seed: int = 0) -> Tensor:
    """The edited distance of each mask."""
    lesions = Lesions.of(masks)
    uniform = counter_uniform(seed, torch.arange(len(masks)), edit.uniforms)
    return edit(lesions.distance, lesions, uniform, torch.full((len(masks),), severity))


def pieces(masks: Tensor) -> np.ndarray:
    """Components of each mask, diagonal neighbours together."""
    return np.array([ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks.numpy()])


def pieces_of_background(masks: Tensor) -> np.ndarray:
    """Components of each mask's complement, with a frame around it."""
    return np.array([ndimage.label(~np.pad(mask, 1))[1] for mask in masks.numpy()])


def area(masks: Tensor) -> Tensor:
    return masks.flatten(1).sum(1).double()


def hard_dice(one: Tensor, other: Tensor) -> Tensor:
    return dice_coefficient(one[:, None].float(), other[:, None].float())[:, 0]


def changed(value: Any) -> Any:
    """Another sensible value of a field."""
    if isinstance(value, tuple) and isinstance(value[0], int):
        return (value[1], value[1])
    if isinstance(value, tuple):
        return (value[0], 0.5 * (value[0] + value[1]))
    return 2.5 * value


@pytest.mark.parametrize(("edit", "knob"), KNOBS, ids=[f"{type(edit).__name__}.{knob}" for edit, knob in KNOBS])
def test_every_knob_changes_the_result(edit: Edit, knob: str) -> None:
    masks = ellipses(24)
    other = dataclasses.replace(edit, **{knob: changed(getattr(edit, knob))})
    assert other != edit
    before, after = (edited(one, masks, 0.3) < 0 for one in (edit, other))
    # What counts is the mask, not some number in its distance.
    assert (before != after).flatten(1).any(1).float().mean() > 0.2


def test_every_edit_is_in_a_preset_and_has_a_knob() -> None:
    def kinds(kind: type) -> set[type]:
        return {kind, *(below for one in kind.__subclasses__() for below in kinds(one))}

    ours = {kind for kind in kinds(Edit) if kind.__module__.startswith("ultrarefiner") and kind.__name__[0] != "_"}
    assert ours - {Edit} == {type(edit) for edit in KINDS}
    assert {type(edit) for edit, _ in KNOBS} == ours - {Edit, Empty}


@pytest.mark.parametrize("edit", KINDS, ids=lambda edit: type(edit).__name__)
def test_every_random_number_counts(edit: Edit) -> None:
    masks, severity = ellipses(40), torch.full((40,), 0.3)
    lesions = Lesions.of(masks)
    uniform = counter_uniform(1, torch.arange(40), edit.uniforms)
    before = edit(lesions.distance, lesions, uniform, severity)
    for number in range(edit.uniforms):
        other = uniform.clone()
        other[:, number] = (other[:, number] + 0.5) % 1
        assert not torch.equal(edit(lesions.distance, lesions, other, severity), before), number


@pytest.mark.parametrize("edit", [OverSegmentation(), Bridge(), Islands(), GiantOverSegmentation()])
@pytest.mark.parametrize("severity", [0.1, 0.3])
def test_these_only_add(edit: Edit, severity: float) -> None:
    masks = ellipses(40)
    found = edited(edit, masks, severity) < 0
    assert not (masks & ~found).any()
    assert (area(found) > area(masks)).all()


@pytest.mark.parametrize(
    "edit", [UnderSegmentation(), MissingChunk(), InternalHoles(), Fragmentation(), PartialCollapse(), Empty()]
)
@pytest.mark.parametrize("severity", [0.1, 0.3])
def test_these_only_take_away(edit: Edit, severity: float) -> None:
    masks = ellipses(40)
    found = edited(edit, masks, severity) < 0
    assert not (found & ~masks).any()
    assert (area(found) < area(masks)).all()


@pytest.mark.parametrize("edit", [ContourNoise(), BoundaryRoughness(), Shift()])
def test_these_do_both(edit: Edit) -> None:
    masks = ellipses(40)
    found = edited(edit, masks, 0.3) < 0
    assert ((found & ~masks).flatten(1).any(1) & (masks & ~found).flatten(1).any(1)).double().mean() > 0.9


@pytest.mark.parametrize("kind", [OverSegmentation, UnderSegmentation])
def test_the_border_moves_all_around_or_on_one_side(kind: type[Edit]) -> None:
    masks = torch.stack([lesion(72, 72, (36, 36), (14, 14)) > 0] * 20)
    way = 1 if kind is OverSegmentation else -1
    whole = way * (Lesions.of(masks).distance - edited(kind(move=(1.0, 1.0), one_sided=0.0), masks, 0.2))
    radius = (area(masks) / torch.pi).sqrt().float()
    torch.testing.assert_close(whole, (0.2 * radius)[:, None, None].expand_as(whole), rtol=0, atol=1e-4)
    side = way * (Lesions.of(masks).distance - edited(kind(move=(1.0, 1.0), one_sided=1.0), masks, 0.2))
    assert (side >= -1e-5).all()
    assert (side.flatten(1).amin(1) < 1e-5).all()
    torch.testing.assert_close(side.flatten(1).amax(1), 0.4 * radius, rtol=0, atol=1e-4)
    # The other half of the plane does not move.
    assert ((side > 1e-5).float().mean((1, 2)) - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("severity", [0.05, 0.1, 0.3])
def test_holes_lie_inside(severity: float) -> None:
    masks = ellipses(40)
    found = edited(InternalHoles(), masks, severity) < 0
    assert (pieces_of_background(found) > pieces_of_background(masks)).all()
    # The outermost pixels are all there.
    rim = masks & (Lesions.of(masks).distance >= -0.5)
    assert (found | ~rim).all()


def test_holes_may_be_deep_or_near_the_border() -> None:
    masks = torch.stack([lesion(72, 72, (36, 36), (20, 20)) > 0] * 20)
    distance = Lesions.of(masks).distance
    for depth, low, high in (((0.9, 1.0), -21.0, -14.0), ((0.25, 0.35), -11.0, -1.0)):
        lost = masks & (edited(InternalHoles(count=(1, 1), depth=depth, radius=(0.5, 0.5)), masks, 0.05) > 0)
        middle = (distance * lost).sum((1, 2)) / lost.sum((1, 2))
        assert ((middle > low) & (middle < high)).all(), depth


@pytest.mark.parametrize("count", [1, 3, 5])
def test_islands_are_components_of_their_own_at_their_gap(count: int) -> None:
    masks = ellipses(40)
    islands = Islands(count=(count, count), radius=(0.3, 0.3), aspect=(1.0, 1.0), gap=(0.9, 2.0))
    found = edited(islands, masks, 0.1) < 0
    added = pieces(found) - 1
    # Two may touch.
    assert ((added >= 1) & (added <= count)).all()
    assert added.mean() > 0.6 * count
    lesions = Lesions.of(masks)
    away = lesions.distance[found & ~masks]
    radius = lesions.radius[:, None, None].expand_as(masks)[found & ~masks]
    assert (away > (0.9 - 0.3) * radius - 1).all()
    assert (away < (2.0 + 0.3) * radius + 1).all()
    assert (pieces(edited(Islands(), masks, 0.2) < 0) > 1).mean() > 0.9


@given(seed=st.integers(0, 2**31), severity=st.floats(0.02, 0.4))
@quick
def test_a_bridge_stays_connected(seed: int, severity: float) -> None:
    masks = ellipses(12, seed=seed)
    assert (pieces(edited(Bridge(), masks, severity, seed) < 0) == 1).all()


def test_a_bridge_reaches_outwards() -> None:
    masks = torch.stack([lesion(96, 96, (48, 48), (12, 12)) > 0] * 30)
    lesions = Lesions.of(masks)
    found = edited(Bridge(length=(1.0, 1.0), blob=0.0), masks, 0.1) < 0
    reach = torch.where(found, lesions.distance, 0.0).flatten(1).amax(1)
    assert ((reach > 0.7 * lesions.radius) & (reach < 1.4 * lesions.radius)).all()
    assert (area(edited(Bridge(blob=1.0), masks, 0.1) < 0) > area(edited(Bridge(blob=0.0), masks, 0.1) < 0)).all()


def test_fragments_are_pieces() -> None:
    masks = ellipses(40)
    found = edited(Fragmentation(half_width=(1.0, 1.2), offset=0.2), masks, 0.3) < 0
    assert (pieces(found) > 1).all()
    assert pieces(edited(Fragmentation(cuts=(3, 3), offset=0.1), masks, 0.3) < 0).mean() > 4


def test_a_chunk_is_missing_at_the_border() -> None:
    masks = ellipses(40)
    for kind in (MissingChunk(wedge=0.0), MissingChunk(wedge=1.0)):
        found = edited(kind, masks, 0.1) < 0
        lost = masks & ~found
        edge = masks & (Lesions.of(masks).distance >= -0.5)
        assert (lost & edge).flatten(1).any(1).all()
        assert (pieces(lost) == 1).all()


def test_a_shift_keeps_the_area_and_moves_the_centroid() -> None:
    masks = ellipses(40)
    before = Lesions.of(masks)
    found = edited(Shift(move=(1.5, 1.5)), masks, 0.2) < 0
    assert (area(found) / area(masks) - 1).abs().max() < 0.1
    moved = (Lesions.of(found).centre - before.centre).norm(dim=1)
    torch.testing.assert_close(moved, 0.3 * before.radius, rtol=0, atol=0.4)
    # Turned by up to 0.06 of a whole turn, the area stays, the overlap does not.
    long = torch.stack([lesion(72, 72, (36, 36), (6, 20)) > 0] * 20)
    still = edited(Shift(move=(0.0, 0.0), rotation=0.0), long) < 0
    assert torch.equal(still, long)
    turned = edited(Shift(move=(0.0, 0.0), rotation=0.25), long) < 0
    assert (area(turned) / area(long) - 1).abs().max() < 0.1
    assert hard_dice(turned, long).min() < 0.6


def test_contour_noise_is_smoother_than_roughness() -> None:
    masks = torch.stack([lesion(96, 96, (48, 48), (22, 22)) > 0] * 20)

    def contour(mask: Tensor) -> Tensor:
        return (mask[:, 1:] != mask[:, :-1]).flatten(1).sum(1) + (mask[..., 1:] != mask[..., :-1]).flatten(1).sum(1)

    smooth, rough = edited(ContourNoise(), masks, 0.12) < 0, edited(BoundaryRoughness(), masks, 0.2) < 0
    assert (hard_dice(smooth, masks).mean() - hard_dice(rough, masks).mean()).abs() < 0.05
    assert contour(rough).double().mean() > 1.3 * contour(smooth).double().mean()


def test_noise_lies_at_the_border_as_edited() -> None:
    """After another edit has moved the border, it is the new one that wanders."""
    masks = torch.stack([lesion(96, 96, (48, 48), (20, 20)) > 0] * 8)
    lesions = Lesions.of(masks)
    grown = lesions.distance - 9.0
    severity, uniform = torch.full((8,), 0.3), counter_uniform(2, torch.arange(8), BoundaryRoughness.uniforms)
    found = BoundaryRoughness()(grown, lesions, uniform, severity) < 0
    assert ((found != (grown < 0)).flatten(1).sum(1) > 60).all()


def test_complete_failures() -> None:
    masks = ellipses(60)
    giant, collapsed, empty, scatter = (
        edited(edit, masks) < 0 for edit in (GiantOverSegmentation(), PartialCollapse(), Empty(), ScatterOnly())
    )
    assert (area(giant) > 1.5 * area(masks)).all()
    assert (area(collapsed) < 0.35 * area(masks)).all()
    assert (area(collapsed) > 0).all()
    assert (pieces(collapsed) == 1).all()
    assert not empty.any()
    assert not (scatter & masks).any()
    assert (area(scatter) > 0).all()


@pytest.mark.parametrize("mask", ["full", "nearly full", "one pixel", "one row"])
def test_scatter_never_overlaps(mask: str) -> None:
    masks = torch.zeros(20, 24, 32, dtype=torch.bool)
    inside = {"full": ..., "nearly full": (..., slice(1, 31)), "one pixel": (..., 5, 7), "one row": (..., 4, slice(32))}
    masks[inside[mask]] = True
    assert not ((edited(ScatterOnly(), masks) < 0) & masks).any()


@pytest.mark.parametrize("edit", [edit for edit in KINDS if not isinstance(edit, BoundaryRoughness)])
def test_sizes_are_relative_to_the_lesion(edit: Edit) -> None:
    masks = ellipses(24, 144)
    twice = masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    dice = [hard_dice(edited(edit, mask, 0.25) < 0, mask) for mask in (masks, twice)]
    # Points are drawn by the rank of a pixel in its row and column, which doubling changes.
    assert (dice[0].mean() - dice[1].mean()).abs() < 0.015
    assert (dice[0] - dice[1]).abs().mean() < (0.05 if isinstance(edit, InternalHoles) else 0.025)


@pytest.mark.parametrize("edit", [edit for edit in PRESETS["default"].edits if not isinstance(edit, BoundaryRoughness)])
def test_what_is_drawn_is_about_right_for_the_severity(edit: Edit) -> None:
    masks = ellipses(60)
    means = [(1 - hard_dice(edited(edit, masks, severity) < 0, masks)).mean().item() for severity in (0.05, 0.15, 0.3)]
    assert means == sorted(means)
    for severity, mean in zip((0.05, 0.15, 0.3), means, strict=True):
        assert 0.3 * severity < mean < 2.2 * severity


@given(seed=st.integers(0, 2**31), data=st.data())
@quick
def test_points_are_drawn_where_they_may_be(seed: int, data: st.DataObject) -> None:
    masks = ellipses(6, 40, seed)
    lesions = Lesions.of(masks)
    low = data.draw(st.floats(-8, 4))
    high = low + data.draw(st.floats(0.5, 8))
    limits = torch.full((6,), low), torch.full((6,), high)
    points = lesions.drawn_points(*limits, counter_uniform(seed, torch.arange(6), 5))
    for one, (distance, drawn) in enumerate(zip(lesions.distance, points.long(), strict=True)):
        found = distance[drawn[:, 1], drawn[:, 0]]
        there = distance[(distance >= low) & (distance <= high)]
        if len(there):
            assert ((found >= low) & (found <= high)).all(), one
        else:
            assert (found == distance.flatten()[(distance - (low + high) / 2).abs().argmin()]).all()


def test_each_point_is_as_likely_as_another() -> None:
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[:, 1:4, 2:5] = True
    minus_one, zero = torch.tensor([-1.0]), torch.tensor([0.0])
    ranks = (torch.arange(800)[None] + 0.5) / 800
    points = Lesions.of(mask).drawn_points(minus_one, zero, ranks)[0]
    places, counts = points.unique(dim=0, return_counts=True)
    assert counts.tolist() == [100] * 8
    assert [2.5, 1.5] in places.tolist()
    assert [3.5, 2.5] not in places.tolist()


def test_lesions_are_measured_as_scipy_does() -> None:
    masks = ellipses(8)
    lesions = Lesions.of(masks)
    for one, mask in enumerate(masks.numpy()):
        y, x = ndimage.center_of_mass(mask)
        assert lesions.centre[one].tolist() == pytest.approx([x + 0.5, y + 0.5], abs=1e-4)
        outside, inside = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
        expected = np.where(mask, 0.5 - inside, outside - 0.5)
        np.testing.assert_allclose(lesions.distance[one], expected, atol=1e-4)
        assert lesions.radius[one].item() == pytest.approx((mask.sum() / np.pi) ** 0.5, abs=1e-4)
    assert len(lesions) == 8
    torch.testing.assert_close(lesions[2:4].distance, lesions[torch.tensor([2, 3])].distance)


def test_shapes_have_their_area() -> None:
    masks = torch.stack([lesion(128, 128, (64, 64), (20, 20)) > 0] * 3)
    lesions = Lesions.of(masks)
    three, centre = torch.ones(3), torch.tensor([[64.0, 60.0]]).expand(3, 2)
    turn = torch.tensor([0.0, 0.1, 0.3])
    oval = ellipse(lesions, centre, 20 * three, torch.tensor([1.0, 1.5, 2.0]), turn) < 0
    assert area(oval).tolist() == pytest.approx([torch.pi * 400] * 3, rel=0.03)
    sides = [ndimage.find_objects(mask.numpy().astype(int))[0] for mask in oval[:2]]
    assert sides[0][1].stop - sides[0][1].start == pytest.approx(40, abs=1)
    tongue = capsule(lesions, centre, turn, 30 * three, 5 * three) < 0
    assert area(tongue).tolist() == pytest.approx([300 + torch.pi * 25] * 3, rel=0.05)
    dark = strip(lesions, centre, torch.zeros(3), 4 * three) < 0
    assert area(dark).tolist() == [8 * 128] * 3
    sector = wedge(lesions, centre, turn, 0.25 * three) < 0
    disc = ellipse(lesions, centre, 30 * three, three, turn) < 0
    assert area(sector & disc).tolist() == pytest.approx([torch.pi * 900 / 4] * 3, rel=0.05)


# Strength.


def plain_dice(true: Tensor, other: Tensor, strength: float) -> float:
    wrong = true + strength * (other - true) < 0
    inside = true < 0
    total = (wrong.sum() + inside.sum()).item()
    return 2 * (wrong & inside).sum().item() / total if total else 1.0


@given(seed=st.integers(0, 2**31), severity=st.floats(0.05, 0.4))
@quick
def test_only_wrong_pixels_grow_and_dice_only_falls(seed: int, severity: float) -> None:
    edit = KINDS[seed % len(KINDS)]
    masks = ellipses(2, 40, seed)
    true, other = Lesions.of(masks).distance, edited(edit, masks, severity, seed)
    flips = flip_strength(true, other)
    assert (flips > 0).all()
    wrong, dice = torch.zeros_like(masks), torch.ones(2)
    for strength in torch.linspace(0, 2.5, 26):
        now = (true + strength * (other - true) < 0) != masks
        assert torch.equal(now, (flips <= strength) | (flips - strength).abs().le(1e-5) & now)
        assert (now | ~wrong).all()
        falling = torch.tensor([plain_dice(a, b, strength.item()) for a, b in zip(true, other, strict=True)])
        assert (falling <= dice).all()
        wrong, dice = now, falling


@given(seed=st.integers(0, 2**31), wanted=st.floats(0.3, 0.98))
@quick
def test_the_solved_strength_is_as_good_as_any_of_a_plain_loop(seed: int, wanted: float) -> None:
    edit = KINDS[seed % len(KINDS)]
    masks = ellipses(2, 32, seed)
    true, other = Lesions.of(masks).distance, edited(edit, masks, 0.3, seed)
    ends = torch.full((2,), wanted - 0.05), torch.full((2,), wanted), torch.full((2,), min(0.995, wanted + 0.05))
    strength, dice = solve_strength(flip_strength(true, other), masks, *ends, largest=2.5)
    assert ((strength >= 0) & (strength <= 2.5)).all()
    for one in range(2):
        # Rounding does not decide what the strength means.
        assert plain_dice(true[one], other[one], strength[one].item()) == pytest.approx(dice[one].item(), abs=1e-6)
        tried = torch.tensor([plain_dice(true[one], other[one], step.item()) for step in torch.linspace(0, 2.5, 200)])
        far = distance_to_bin(tried, *(end[one].expand(200) for end in ends)).min()
        assert distance_to_bin(dice, *ends)[one] <= far + 1e-5


def test_ties_take_the_end_that_lies_in_the_bin() -> None:
    inside = torch.ones(1, 4, 5, dtype=torch.bool)
    flips = torch.full((1, 4, 5), torch.inf)
    flips[0, 0, :4] = 1.0  # four at once: Dice 1, then 2 * 16 / 36
    low, high = torch.tensor([0.8]), torch.tensor([0.9])
    for dice in (0.81, 0.899):
        strength, found = solve_strength(flips, inside, low, torch.tensor([dice]), high, largest=2.5)
        assert found.item() == pytest.approx(32 / 36)
        assert strength.item() > 1.1
    # Nothing of this lies in the bin, and never is the perfect one taken.
    near = torch.tensor([0.9]), torch.tensor([0.99]), torch.tensor([0.995])
    _, found = solve_strength(flips, inside, *near, largest=2.5)
    assert found.item() == pytest.approx(32 / 36)
    # Dice 1 is all there is.
    _, found = solve_strength(flips + 5, inside, low, torch.tensor([0.85]), high, largest=2.5)
    assert found.item() == 1.0
    _, found = solve_strength(flips + torch.inf, ~inside, low, torch.tensor([0.85]), high, largest=2.5)
    assert found.isnan().all()
