"""Writing at points against a plain loop, and its derivatives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.refinement import write_points, written_voxels

SIZES = [(5, 6), (1, 7), (3, 4, 5), (1, 4, 3), (1, 1)]


def written_by_loop(logits: Tensor, positions: Tensor, values: Tensor, valid: Tensor, mode: str) -> Tensor:
    """The formula in the module's docstring, voxel by voxel; a tent of half-width 1 on each axis."""
    result = logits.clone()
    size = logits.shape[2:]
    for b in range(len(logits)):
        for at in itertools.product(*(range(side) for side in size)):
            weight, amount = 0.0, 0.0
            for place, value, counts in zip(positions[b].tolist(), values[b].tolist(), valid[b].tolist(), strict=True):
                if not counts:
                    continue
                inside = [min(max(p, 0), side - 1) for p, side in zip(place, size, strict=True)]
                share = math.prod(max(0.0, 1 - abs(p - a)) for p, a in zip(inside, at, strict=True))
                weight, amount = weight + share, amount + share * value
            old = logits[b, 0][at].item()
            if weight > 0:
                change = amount if mode == "add" else amount - weight * old
                result[b, 0][at] = old + change / max(weight, 1)
    return result


def drawn(size: tuple[int, ...], seed: int, n: int, *, whole: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 1, *size, generator=generator, dtype=torch.float64)
    sides = torch.tensor(size, dtype=torch.float64)
    positions = torch.rand(2, n, len(size), generator=generator, dtype=torch.float64) * (sides + 1) - 1
    values = torch.randn(2, n, generator=generator, dtype=torch.float64)
    valid = torch.rand(2, n, generator=generator) > 0.3
    return logits, positions.round() if whole else positions, values, valid


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 2**31),
    n=st.integers(0, 25),
    whole=st.booleans(),
    mode=st.sampled_from(["add", "set"]),
)
def test_writing_is_the_formula(size, seed, n, whole, mode) -> None:
    logits, positions, values, valid = drawn(size, seed, n, whole=whole)
    found = write_points(logits, positions, values, valid, mode=mode)
    torch.testing.assert_close(found, written_by_loop(logits, positions, values, valid, mode), rtol=1e-9, atol=1e-12)
    changed = found != logits
    touched = written_voxels(positions, valid, size)
    assert not (changed & ~touched).any()
    assert torch.equal(changed, touched), "drawn values are never 0"


@pytest.mark.parametrize("mode", ["add", "set"])
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
def test_padding_writes_nothing_whatever_it_holds(size, mode) -> None:
    logits = torch.randn(1, 1, *size)
    logits[..., 0] = -0.0
    positions = torch.full((1, 4, len(size)), math.nan)
    values = torch.tensor([[math.nan, math.inf, 5.0, -2.0]])
    positions[0, 3] = 2.0
    valid = torch.tensor([[False, False, False, True]])
    found = write_points(logits, positions, values, valid, mode=mode)
    differs = found.view(torch.int32) != logits.view(torch.int32)
    assert differs.sum() == 1, "all other voxels keep their bits, -0.0 included"
    assert differs[(0, 0, *[2] * len(size))]
    logits.requires_grad_()
    write_points(logits, positions.requires_grad_(), values.requires_grad_(), valid, mode=mode).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (logits, positions, values))


@pytest.mark.parametrize(("mode", "expected"), [("add", 12.0), ("set", 2.0)])
def test_points_on_one_voxel_write_their_mean(mode, expected) -> None:
    logits = torch.full((1, 1, 3, 3), 10.0)
    positions = torch.ones(1, 3, 2)
    valid = torch.ones(1, 3, dtype=torch.bool)
    values = torch.tensor([[1.0, 2.0, 3.0]])
    found = write_points(logits, positions, values, valid, mode=mode)
    assert found[0, 0, 1, 1] == expected
    assert (found == 10).sum() == 8


def test_the_order_of_points_on_a_voxel_hardly_matters_and_runs_agree() -> None:
    logits, positions, values, valid = (
        t.float() if t.is_floating_point() else t for t in drawn((3, 3), 0, 60, whole=True)
    )
    first = write_points(logits, positions, values, valid)
    assert torch.equal(first, write_points(logits, positions, values, valid))
    order = torch.randperm(60)
    torch.testing.assert_close(write_points(logits, positions[:, order], values[:, order], valid[:, order]), first)


@pytest.mark.parametrize("mode", ["add", "set"])
@pytest.mark.parametrize("size", [(4, 5), (3, 4, 3), (1, 4)])
def test_gradcheck_in_logits_values_and_positions(size, mode) -> None:
    logits, positions, values, valid = drawn(size, 3, 5, whole=False)
    positions = positions.floor() + 0.2 + 0.6 * (positions - positions.floor())  # away from the kinks at whole numbers
    tensors = (logits.requires_grad_(), positions.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, p, v: write_points(x, p, v, valid, mode=mode), tensors)


def test_a_whole_position_has_the_derivative_of_moving_on() -> None:
    positions = torch.tensor([[[1.0]]]).expand(1, 1, 2).clone().requires_grad_()
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    valid = torch.ones(1, 1, dtype=torch.bool)
    (write_points(torch.zeros(1, 1, 4, 4), positions, torch.ones(1, 1), valid) * ramp).sum().backward()
    assert positions.grad.tolist() == [[[4.0, 1.0]]]


def test_a_batch_is_each_of_its_elements_and_half_precision_is_summed_in_float32() -> None:
    logits, positions, values, valid = drawn((3, 4, 5), 9, 20, whole=False)
    found = write_points(logits, positions, values, valid)
    for index in range(2):
        one = slice(index, index + 1)
        assert torch.equal(write_points(logits[one], positions[one], values[one], valid[one]), found[one])
    halved = write_points(logits.half(), positions.half(), values.half(), valid)
    assert halved.dtype == torch.float16
    torch.testing.assert_close(halved.double(), found, atol=0.03, rtol=0.01)


@pytest.mark.usefixtures("unhooked")
def test_sentences() -> None:
    logits, positions, values, valid = drawn((4, 5), 0, 3, whole=False)
    with pytest.raises(ValueError, match='mode must be "add" or "set", but it is \'replace\''):
        write_points(logits, positions, values, valid, mode="replace")
    with pytest.raises(ValueError, match=r"positions \(b, n, 2\), values .* their shapes are \(2, 3, 3\), \(2, 3\)"):
        write_points(logits, torch.zeros(2, 3, 3), values, valid)
    with pytest.raises(ValueError, match="must fit logits"):
        write_points(logits[:1], positions, values, valid)
    for bad in (math.nan, math.inf):
        for at, value in (([bad, 1.0], 2.0), ([0.0, 1.0], bad)):
            with pytest.raises(ValueError, match=r"valid points must be finite, but 1 are not, the first at .* with"):
                write_points(logits[:1], torch.tensor([[at]]), torch.tensor([[value]]), torch.ones(1, 1).bool())
    logits[0, 0, 0, 0] = -math.inf
    with pytest.raises(ValueError, match="logits must be finite, but its values span"):
        write_points(logits, positions, values, valid)
