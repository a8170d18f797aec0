"""Smooth random fields: their mean, variance and correlation length are those asked for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.simulation.random_field import WAVES, random_field

quick = settings(deadline=None, max_examples=15)


def fields(count: int, length: float, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    uniform = counter_uniform(seed, torch.arange(count), 3 * WAVES)
    return random_field(uniform, torch.full((count,), length), x[None, None], y[None, :, None])


@pytest.mark.parametrize("length", [1.5, 6.0, 40.0])
def test_mean_0_and_variance_1_at_every_pixel(length: float) -> None:
    drawn = fields(20_000, length, torch.tensor([0.5, 7.5, 200.5]), torch.tensor([0.5, 100.5]))
    assert drawn.mean(0).abs().max() < 5 / 20_000**0.5
    # Of a sum of many waves the square's standard deviation is about the square root of 2.
    assert (drawn.square().mean(0) - 1).abs().max() < 5 * (2 / 20_000) ** 0.5


def test_values_are_about_normal() -> None:
    drawn = fields(5_000, 5.0, torch.tensor([30.5]), torch.tensor([11.5])).flatten().double()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("length", [2.0, 9.0, 30.0])
@pytest.mark.parametrize("lags", [0.5, 1.0, 1.5])
def test_the_autocorrelation_has_the_length_asked_for(length: float, lags: float) -> None:
    count, turns = 6_000, torch.arange(8) * math.pi / 4
    distance = lags * length
    x = 50 + torch.cat([torch.zeros(1), distance * turns.cos()])
    y = 40 + torch.cat([torch.zeros(1), distance * turns.sin()])
    drawn = fields(count, length, x, y)
    around = drawn[:, torch.arange(1, 9), torch.arange(1, 9)]
    products = drawn[:, 0, 0, None] * around
    # The same in all directions, to 0.02 in their mean: about four standard errors.
    assert products.mean().item() == pytest.approx(math.exp(-(lags**2) / 2), abs=0.025)
    assert (products.mean(0) - math.exp(-(lags**2) / 2)).abs().max() < 0.08


def test_the_correlation_along_one_field_is_that_of_many() -> None:
    length, lag = 4.0, 4
    axis = torch.arange(256.0)
    drawn = fields(60, length, axis, axis)
    for pairs in (drawn[:, :, lag:] * drawn[:, :, :-lag], drawn[:, lag:] * drawn[:, :-lag]):
        assert pairs.mean().item() == pytest.approx(math.exp(-0.5), abs=0.03)


def test_smooth() -> None:
    """The slope has variance 1 / length² along each axis, and on a finer grid it is the same field."""
    length = 8.0
    fine = torch.arange(0, 64, 0.25)
    drawn = fields(400, length, fine, fine[:3])
    slope = (drawn[:, 0, 1:] - drawn[:, 0, :-1]) / 0.25
    assert slope.square().mean().item() == pytest.approx(1 / length**2, rel=0.1)
    assert slope.abs().max() < 8 / length
    torch.testing.assert_close(fields(400, length, fine[::4], fine[:3]), drawn[:, :, ::4], rtol=0, atol=1e-4)


@given(seed=st.integers(0, 2**40), count=st.integers(2, 9), data=st.data())
@quick
def test_no_field_depends_on_the_batch(seed: int, count: int, data: st.DataObject) -> None:
    uniform = counter_uniform(seed, torch.arange(count), 3 * WAVES)
    length = 1 + 9 * counter_uniform(seed + 1, torch.arange(count), 1)[:, 0]
    # Not for one column: a matrix times a vector is another routine's work, which rounds otherwise.
    width, height = data.draw(st.integers(2, 70)), data.draw(st.integers(1, 70))
    x, y = torch.arange(width).float()[None, None], torch.arange(height).float()[None, :, None]
    together = random_field(uniform, length, x, y)
    each = torch.cat([random_field(uniform[i : i + 1], length[i : i + 1], x, y) for i in range(count)])
    assert together.shape == (count, height, width)
    assert torch.equal(together, each)


def test_it_is_a_sum_of_waves() -> None:
    uniform = counter_uniform(4, torch.arange(2), 3 * WAVES).double()
    length = torch.tensor([3.0, 5.0], dtype=torch.float64)
    found = random_field(
        uniform.float(), length.float(), torch.arange(5.0)[None, None], torch.arange(4.0)[None, :, None]
    )
    for n in range(2):
        first, second, third = uniform[n].view(3, WAVES).tolist()
        for row in range(4):
            for column in range(5):
                total = 0.0
                for a, b, c in zip(first, second, third, strict=True):
                    speed = math.sqrt(-2 * math.log(a)) / length[n].item()
                    toward = column * math.cos(2 * math.pi * b) + row * math.sin(2 * math.pi * b)
                    total += math.cos(speed * toward + 2 * math.pi * c)
                assert found[n, row, column].item() == pytest.approx(total * math.sqrt(2 / WAVES), abs=1e-4)
