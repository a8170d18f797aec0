"""The confidence of a mask, against sums in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.prediction import soft_dice_confidence


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12), st.sampled_from([0.3, 0.5, 0.8]))
@settings(deadline=None, max_examples=30)
def test_it_is_the_soft_dice_of_the_drawn_mask(values: list[float], threshold: float) -> None:
    probability = torch.tensor(values)
    drawn = [value for value in probability.tolist() if value >= threshold]
    expected = 2 * sum(drawn) / (len(drawn) + sum(probability.tolist())) if drawn else 1 - max(probability.tolist())
    found = soft_dice_confidence(probability[None], threshold)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert 0 <= found.item() <= 1


def test_every_mask_has_its_own() -> None:
    masks = torch.rand(3, 2, 8, 9)
    together = soft_dice_confidence(masks)
    assert together.shape == (3, 2)
    assert together[2, 1] == soft_dice_confidence(masks[2, 1])


def test_a_sure_mask_has_more_than_an_unsure_one() -> None:
    sure, unsure = torch.full((4, 4), 0.02), torch.full((4, 4), 0.4)
    sure[1:3, 1:3], unsure[1:3, 1:3] = 0.98, 0.6
    assert soft_dice_confidence(sure) > 0.9 > 0.6 > soft_dice_confidence(unsure)


def test_of_nothing_it_is_how_sure_one_is_of_nothing() -> None:
    assert soft_dice_confidence(torch.zeros(4, 4)).item() == 1
    assert soft_dice_confidence(torch.full((4, 4), 0.45)).item() == pytest.approx(0.55)
