"""Failures at the coarse network's resolution take the way up that the network's own masks take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.simulation import AtResolution, FailureSimulator, SimpleFailures
from ultrarefiner.simulation.resolution import mask_at_size, probability_at_size
from ultrarefiner.systems import AtSize


class Says(nn.Module):
    """A coarse network that says the same whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.fixture
def target() -> Tensor:
    one, other = lesion(60, 60, (25, 30), (12, 16)), lesion(60, 60, (40, 20), (9, 6))
    return torch.stack([one, other])[:, None]


@pytest.mark.parametrize("make", [FailureSimulator, lambda: SimpleFailures(chance=1.0)])
@pytest.mark.parametrize("size", [24, 31, 96])
def test_down_damage_and_up_again_by_plain_torch(
    make: Callable[[], Callable[[Tensor, torch.Generator], Tensor]], size: int, target: Tensor
) -> None:
    failures = make()
    made = AtResolution(failures, size)(target, torch.Generator().manual_seed(1))
    small = functional.interpolate(target, (size, size), mode="bilinear", antialias=True) >= 0.5
    damaged = failures(small.float(), torch.Generator().manual_seed(1))
    up = functional.interpolate(torch.logit(damaged, eps=1e-6), (60, 60), mode="bilinear")
    torch.testing.assert_close(made, up.sigmoid())
    assert not torch.allclose(made, target)


def test_the_way_up_is_that_of_a_coarse_network(target: Tensor) -> None:
    soft = FailureSimulator()(mask_at_size(target, (32, 32)).float(), torch.Generator().manual_seed(0))
    made = AtResolution(lambda masks, generator: soft, 32)(target, torch.Generator())
    network = AtSize(Says(torch.logit(soft, eps=1e-6)), 32)
    torch.testing.assert_close(made, network(torch.rand(2, 1, 60, 60)).sigmoid())


def test_at_the_frames_own_size_nothing_is_resized(target: Tensor) -> None:
    for failures in (FailureSimulator(), SimpleFailures()):
        made = AtResolution(failures, 60)(target, torch.Generator().manual_seed(2))
        assert torch.equal(made, failures(target, torch.Generator().manual_seed(2)))


def test_frames_need_not_be_square_and_a_batch_is_its_masks() -> None:
    target = torch.stack([lesion(40, 56, (20, 30), (8, 11)), lesion(40, 56, (15, 20), (4, 6))])[None]
    made = AtResolution(SimpleFailures(), 32)(target, torch.Generator().manual_seed(0))
    assert made.shape == target.shape
    soft = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = probability_at_size(soft, (33, 33))
    assert torch.equal(whole, torch.cat([probability_at_size(one[None], (33, 33)) for one in soft]))
    assert torch.equal(probability_at_size(soft, (16, 16)), soft)


def test_size_and_generator_change_the_masks_and_no_gradient_is_kept(target: Tensor) -> None:
    def made(size: int, seed: int) -> Tensor:
        return AtResolution(FailureSimulator(), size)(target, torch.Generator().manual_seed(seed))

    assert torch.equal(made(24, 0), made(24, 0))
    assert not torch.allclose(made(24, 0), made(48, 0), atol=0.05)
    assert not torch.allclose(made(24, 0), made(24, 1), atol=0.05)
    assert not made(24, 0).requires_grad
    double = AtResolution(SimpleFailures(), 24)(target.double(), torch.Generator())
    half = AtResolution(SimpleFailures(), 24)(target.half(), torch.Generator())
    assert (double.dtype, half.dtype) == (torch.float64, torch.float32)


@pytest.mark.parametrize("name", degenerate_masks())
@pytest.mark.parametrize("size", [7, 24, 50])
def test_masks_of_any_kind(name: str, size: int) -> None:
    target = degenerate_masks(24, 24)[name]
    made = AtResolution(FailureSimulator(), size)(target, torch.Generator().manual_seed(0))
    assert made.isfinite().all()
    assert ((made >= 0) & (made <= 1)).all()
    if not (target > 0.5).any():
        assert (made < 2e-6).all()


@settings(deadline=None, max_examples=20)
@given(columns=st.integers(0, 24), size=st.integers(3, 40))
def test_a_small_pixel_is_lesion_where_half_of_it_is(columns: int, size: int) -> None:
    """Of a half plane: as far as its border, give or take half a pixel."""
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., :columns] = 1.0
    small = mask_at_size(mask, (24, size))
    assert small.dtype == torch.bool
    assert small.shape == (1, 1, 24, size)
    widths = small.sum(-1).unique()
    assert len(widths) == 1
    assert abs(widths.item() - columns * size / 24) <= 0.5 + 1e-6 + (0.5 * size / 24 if size > 24 else 0)


def test_masks_are_cut_at_one_half_before_they_shrink() -> None:
    soft = torch.full((1, 1, 8, 8), 0.6)
    assert mask_at_size(soft, (4, 4)).all()
    assert mask_at_size(soft, (8, 8)).all()
    assert not mask_at_size(torch.full((1, 1, 8, 8), 0.5), (4, 4)).any()


def test_no_size() -> None:
    with pytest.raises(ValueError, match=r"size must be at least 1 pixel, but it is 0; give the coarse network's"):
        AtResolution(FailureSimulator(), 0)
