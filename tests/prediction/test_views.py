"""Mirror images that leave padding where it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.prediction.views import mirrored, views_of


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 7)), min_size=1, max_size=3), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=30)
def test_each_content_is_flipped_and_the_padding_stays(sizes: list[tuple[int, int]], down: bool, across: bool) -> None:
    pictures = torch.rand(len(sizes), 2, 6, 7)
    expected = pictures.clone()
    for index, (height, width) in enumerate(sizes):
        axes = [axis for axis, swapped in ((-2, down), (-1, across)) if swapped]
        expected[index, :, :height, :width] = pictures[index, :, :height, :width].flip(axes)
    found = mirrored(pictures, (down, across), torch.tensor(sizes))
    assert torch.equal(found, expected)
    assert torch.equal(mirrored(found, (down, across), torch.tensor(sizes)), pictures)


def test_without_content_sizes_all_is_content() -> None:
    pictures = torch.rand(2, 1, 4, 5)
    assert torch.equal(mirrored(pictures, (True, True)), pictures.flip(-1, -2))


def test_choices_of_flips() -> None:
    assert views_of(True) == views_of("horizontal") == ((False, False), (False, True))
    assert len(views_of("both")) == 4
    assert views_of(False) == ((False, False),)


def test_another_choice_is_refused(unhooked: None) -> None:
    with pytest.raises(ValueError, match=r"flips must be True, False, .* but it is 'sideways'"):
        views_of("sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flips must be True"):
        views_of(1)  # type: ignore[arg-type]
