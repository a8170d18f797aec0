"""Random numbers without a state: a function of seed, index and slot, the same as in plain whole numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ultrarefiner.ops.counter import counter_uniform

quick = settings(deadline=None, max_examples=40)
seeds = st.integers(-(2**70), 2**70)
indices = st.integers(-(2**63), 2**63 - 1)
GOLDEN = 0x9E3779B97F4A7C15


def mixed(bits: int) -> int:
    """The finaliser of SplitMix64."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


def in_whole_numbers(seed: int, index: int, slot: int) -> float:
    stream = mixed(mixed((index * GOLDEN + mixed((seed + GOLDEN) % 2**64)) % 2**64))
    return ((mixed((stream + (slot + 1) * GOLDEN) % 2**64) >> 41) + 0.5) / 2**23


@given(seed=seeds, index=st.lists(indices, min_size=1, max_size=4), count=st.integers(1, 5))
@quick
def test_the_numbers_are_those_of_plain_whole_numbers(seed: int, index: list[int], count: int) -> None:
    drawn = counter_uniform(seed, torch.tensor(index), count)
    assert drawn.dtype == torch.float32
    assert drawn.tolist() == [[in_whole_numbers(seed, one, slot) for slot in range(count)] for one in index]


@given(seed=seeds, index=st.lists(indices, min_size=2, max_size=9), count=st.integers(2, 40), data=st.data())
@quick
def test_no_number_depends_on_what_else_is_drawn(seed: int, index: list[int], count: int, data: st.DataObject) -> None:
    drawn = counter_uniform(seed, torch.tensor(index), count)
    order = data.draw(st.permutations(range(len(index))))[: data.draw(st.integers(1, len(index)))]
    fewer = data.draw(st.integers(0, count))
    assert torch.equal(counter_uniform(seed, torch.tensor(index)[order], fewer), drawn[order, :fewer])
    each = torch.cat([counter_uniform(seed, torch.tensor([one]), count) for one in index])
    assert torch.equal(each, drawn)


def test_indices_may_be_of_any_whole_type_and_there_may_be_none() -> None:
    index = torch.tensor([0, 5, 100])
    assert torch.equal(counter_uniform(1, index.to(torch.int32), 3), counter_uniform(1, index, 3))
    assert counter_uniform(1, index[:0], 3).shape == (0, 3)
    assert counter_uniform(1 + 2**64, index, 3).equal(counter_uniform(1, index, 3))


def test_all_lie_strictly_between_0_and_1() -> None:
    # 2**24 numbers of 2**23 values: nearly every one occurs, and the ends almost surely.
    lowest, highest = 1.0, 0.0
    for part in range(16):
        drawn = counter_uniform(3, torch.arange(1024) + 1024 * part, 1024)
        lowest, highest = min(lowest, drawn.min().item()), max(highest, drawn.max().item())
    assert 0 < lowest < 2**-21
    assert 1 - 2**-21 < highest < 1


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 123_456_789])
def test_uniform_along_indices_and_along_slots(seed: int) -> None:
    for drawn in (counter_uniform(seed, torch.arange(20_000), 1), counter_uniform(seed, torch.tensor([7]), 20_000)):
        assert stats.kstest(drawn.flatten().double().numpy(), "uniform").pvalue > 1e-3
    # Even in two dimensions, and in the lowest of the bits that are kept.
    pairs = (counter_uniform(seed, torch.arange(20_000), 2) * 8).long()
    assert stats.chisquare(torch.bincount(pairs[:, 0] * 8 + pairs[:, 1], minlength=64).numpy()).pvalue > 1e-3
    last = (counter_uniform(seed, torch.arange(20_000), 1) * 2**23).long() % 16
    assert stats.chisquare(torch.bincount(last[:, 0], minlength=16).numpy()).pvalue > 1e-3


def test_neighbours_are_uncorrelated() -> None:
    count, indices = 100, 1000
    by_seed = torch.stack([counter_uniform(seed, torch.arange(indices), count) for seed in range(3)])
    normal = (by_seed - 0.5) * 12**0.5
    limit = 4.5 / (count * indices) ** 0.5
    for seed, index, slot in itertools.product((0, 1, 2), (-2, -1, 0, 1, 2), (-2, -1, 0, 1, 2)):
        if (seed, index, slot) != (0, 0, 0):
            other = normal.roll((seed, index, slot), (0, 1, 2))
            assert abs((normal[0] * other[0]).mean().item()) < limit, (seed, index, slot)


@given(seed=seeds, other=seeds, index=indices)
@quick
def test_seeds_and_indices_differ(seed: int, other: int, index: int) -> None:
    drawn = counter_uniform(seed, torch.tensor([index]), 8)
    if (seed - other) % 2**64:
        assert not torch.equal(drawn, counter_uniform(other, torch.tensor([index]), 8))
    assert not torch.equal(drawn, counter_uniform(seed, torch.tensor([index ^ 1]), 8))
    assert drawn.unique().numel() == 8
