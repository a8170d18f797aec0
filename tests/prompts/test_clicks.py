"""Simulated clicks against plain loops and scipy."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import degenerate_masks
from torch import Tensor

from ultrarefiner.prompts import ROUND_WEIGHTS, draw_rounds, next_click

SIZES = [(9, 11), (1, 8), (4, 6, 5), (1, 7, 6), (1, 1, 1)]


def components(error: np.ndarray) -> list[set[tuple[int, ...]]]:
    """By flooding, in raster order of their first voxels."""
    left = {tuple(int(i) for i in at) for at in np.argwhere(error)}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        part, edge = {start}, [start]
        while edge:
            at = edge.pop()
            for step in itertools.product((-1, 0, 1), repeat=error.ndim):
                near = tuple(a + s for a, s in zip(at, step, strict=True))
                if near in left:
                    left.remove(near)
                    part.add(near)
                    edge.append(near)
        found.append(part)
    return found


def deepest(error: np.ndarray) -> set[tuple[int, ...]]:
    """Every voxel that the click may be at."""
    parts = components(error)
    if not parts:
        return set()
    largest = max(parts, key=len)  # the first of equals
    whole = np.zeros(tuple(side + 2 for side in error.shape), dtype=bool)
    for at in largest:
        whole[tuple(i + 1 for i in at)] = True
    depth = ndimage.distance_transform_edt(whole)
    best = depth.max()
    return {at for at in largest if math.isclose(depth[tuple(i + 1 for i in at)], best)}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    size = draw(st.sampled_from(SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    share = draw(st.sampled_from([0.1, 0.5, 0.9]))
    prediction = torch.rand(2, 1, *size, generator=generator)
    return prediction, torch.rand(2, 1, *size, generator=generator) < share


@settings(deadline=None, max_examples=40)
@given(masks=pairs(), seed=st.integers(0, 2**31) | st.none())
def test_the_click_is_the_deepest_voxel_of_the_largest_error(masks, seed) -> None:
    prediction, truth = masks
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    click = next_click(prediction, truth, generator=generator)
    for index in range(2):
        error = ((prediction[index, 0] > 0.5) ^ truth[index, 0]).numpy()
        allowed = deepest(error)
        place = tuple(click.positions[index, 0].tolist())
        assert click.valid[index, 0].item() == bool(allowed)
        if not allowed:
            assert not any(place)
            assert not click.positive[index, 0]
            continue
        assert place in allowed
        assert click.positive[index, 0] == truth[index, 0][place]
        if generator is None:
            assert place == min(allowed)


def test_a_large_error_far_from_the_origin() -> None:
    truth = torch.zeros(2, 1, 30, 40, 50, dtype=torch.bool)
    truth[0, 0, 10:19, 20:31, 25:36] = True
    truth[0, 0, 0, 0, :40] = True
    prediction = truth.clone()
    prediction[0, 0, 10:19, 20:31, 25:36] = False  # missed
    prediction[1, 0, 2:7, 2:7, 2:7] = True  # invented
    click = next_click(prediction, truth)
    # Of the missed block 9 thick the middle slice is deepest; along the other axes the first that is as deep.
    assert click.positions[0, 0].tolist() == [14, 24, 29]
    assert click.positions[1, 0].tolist() == [4, 4, 4]
    assert click.positive[:, 0].tolist() == [True, False]


def test_diagonal_neighbours_are_one_error() -> None:
    truth = torch.zeros(1, 1, 6, 6, 6, dtype=torch.bool)
    for index in range(4):
        truth[0, 0, index, index, index] = True
    truth[0, 0, 5, 0, :3] = True
    click = next_click(torch.zeros_like(truth), truth)
    assert click.positions[0, 0].tolist() == [0, 0, 0]


def test_ties_are_drawn_from_the_generator_alone() -> None:
    truth = torch.ones(1, 1, 2, 9, dtype=torch.bool)
    places = set()
    for seed in range(300):
        click = next_click(~truth, truth, generator=torch.Generator().manual_seed(seed))
        again = next_click(~truth, truth, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(click.positions, again.positions)
        places.add(tuple(click.positions[0, 0].tolist()))
    assert places == set(itertools.product(range(2), range(9))), "the volume's outside is outside, so all are as deep"
    assert next_click(~truth, truth).positions[0, 0].tolist() == [0, 0]


def test_degenerate_masks() -> None:
    for name, mask in degenerate_masks().items():
        nothing = next_click(mask, mask)
        assert not nothing.valid.any(), name
        missed = next_click(torch.zeros_like(mask), mask)
        invented = next_click(mask, torch.zeros_like(mask))
        assert missed.valid.item() == invented.valid.item() == bool((mask > 0.5).any()), name
        assert torch.equal(missed.positions, invented.positions), name
        if missed.valid.any():
            assert missed.positive.item(), name
            assert not invented.positive.item(), name


def test_clicks_until_nothing_is_wrong() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 1, 5, 6, 4, generator=generator) > 0.6
    prediction = torch.zeros_like(truth)
    rounds = 0
    while (click := next_click(prediction, truth, generator=generator)).valid.all():
        prediction[(0, 0, *click.positions[0, 0].tolist())] = click.positive[0, 0]
        rounds += 1
    assert rounds == truth.sum()
    assert torch.equal(prediction, truth)


def test_rounds_are_drawn_with_their_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.random.get_rng_state()
    drawn = np.bincount([draw_rounds(generator) for _ in range(4000)], minlength=6)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"
    expected = np.array([1, 3, 10, 10, 3, 1]) / 28
    assert tuple(ROUND_WEIGHTS) == (1, 3, 10, 10, 3, 1)
    deviation = np.sqrt(expected * (1 - expected) / 4000)
    assert (np.abs(drawn / 4000 - expected) < 4 * deviation).all()


@pytest.mark.usefixtures("unhooked")
def test_sentences() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"prediction and truth must have one shape, but have \(1, 1, 4, 4\)"):
        next_click(mask, torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"truth must be .* its shape is \(1, 2, 4, 4\); add the missing dimensions"):
        next_click(mask, mask.expand(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"prediction must be .* its shape is \(4, 4\)"):
        next_click(mask[0, 0], mask)
    with pytest.raises(ValueError, match="prediction must not hold NaN"):
        next_click(torch.full_like(mask, math.nan), mask)


def test_a_missing_scipy_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ModuleNotFoundError, match=r"scipy is needed to find where a click goes.*ultrarefiner\[evalu"):
        next_click(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
