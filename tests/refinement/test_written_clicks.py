"""A correction without weights writes clicks next to themselves, and nothing else; what is near a click."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.refinement import GRUCorrection, WrittenClicks, near_clicks
from ultrarefiner.types import Clicks

seeds = st.integers(0, 2**31 - 1)


def drawn(seed: int, size: tuple[int, ...], batch: int = 2, made: int = 3) -> tuple[torch.Tensor, Clicks]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 1, *size, generator=generator)
    positions = torch.stack([torch.randint(side, (batch, made), generator=generator) for side in size], -1)
    positive, valid = (torch.rand(batch, made, generator=generator) < share for share in (0.5, 0.7))
    return logits, Clicks(positions, positive, valid)


def ball(clicks: Clicks, size: tuple[int, ...], radius: float) -> torch.Tensor:
    """By a plain loop over voxels."""
    found = torch.zeros(len(clicks.valid), 1, *size, dtype=torch.bool)
    for index in torch.cartesian_prod(*(torch.arange(side) for side in size)):
        squared = (clicks.positions - index).square().sum(-1)
        found[(slice(None), 0, *index.tolist())] = ((squared <= radius**2) & clicks.valid).any(1)
    return found


@settings(deadline=None, max_examples=10)
@given(seed=seeds, volume=st.booleans(), radius=st.floats(0.0, 4.0))
def test_near_is_the_union_of_balls(seed: int, volume: bool, radius: float) -> None:
    size = (3, 6, 5) if volume else (6, 7)
    _, clicks = drawn(seed, size)
    assert torch.equal(near_clicks(clicks, size, radius=radius), ball(clicks, size, radius))


@settings(deadline=None, max_examples=10)
@given(seed=seeds, volume=st.booleans())
def test_what_contradicts_a_click_gets_its_sign_and_nothing_else_changes(seed: int, volume: bool) -> None:
    size = (3, 6, 5) if volume else (6, 7)
    logits, clicks = drawn(seed, size)
    one = Clicks(clicks.positions[:, :1], clicks.positive[:, :1], clicks.valid[:, :1])
    answer = WrittenClicks(count=1000, radius=2.0, value=4.0)(logits, one)
    wrong = ((logits > 0) != one.positive.view(-1, *[1] * (logits.ndim - 1))) & ball(one, size, 2.0)
    assert torch.equal(answer.written, wrong)
    said = torch.where(one.positive, 4.0, -4.0).view(-1, *[1] * (logits.ndim - 1)).expand_as(logits)
    torch.testing.assert_close(answer.logits, torch.where(wrong, said, logits))
    assert answer.state is None


def test_the_nearest_come_first_and_each_click_has_its_count() -> None:
    logits = torch.full((1, 1, 1, 20), -1.0)
    one = WrittenClicks(count=3, radius=9.0)(logits, Clicks.at([(0, 5)], positive=[True]))
    assert one.written[0, 0, 0].nonzero()[:, 0].tolist() == [4, 5, 6]
    two = WrittenClicks(count=3, radius=9.0)(logits, Clicks.at([(0, 5), (0, 15)], positive=[True, True]))
    assert two.written.sum() == 6
    again = WrittenClicks(count=3, radius=9.0)(one.logits, Clicks.at([(0, 5)], positive=[True]))
    assert again.written[0, 0, 0].nonzero()[:, 0].tolist() == [2, 3, 7]


def test_without_a_click_nothing_changes_and_a_gradient_passes() -> None:
    logits, clicks = drawn(0, (4, 5, 6))
    rule = WrittenClicks()
    for none in (Clicks.none(2, 3), Clicks(clicks.positions, clicks.positive, torch.zeros_like(clicks.valid))):
        assert torch.equal(rule(logits, none).logits, logits)
    logits.requires_grad_()
    answer = rule(logits, clicks)
    answer.logits.sum().backward()
    assert torch.equal(logits.grad, (~answer.written).float())


def test_it_takes_the_place_of_a_correction() -> None:
    logits, clicks = drawn(3, (4, 5, 6))
    state = GRUCorrection(points=4, hidden=8)(logits, clicks).state
    assert torch.equal(WrittenClicks()(logits, clicks, state).logits, WrittenClicks()(logits, clicks).logits)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"radius": -1.0}, {"value": 0.0}, {"value": float("inf")}])
def test_numbers_out_of_range_are_said(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="WrittenClicks takes count >= 1"):
        WrittenClicks(**wrong)
