"""Boxes, clicks and texts as they are told: what is taken, and what is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.systems.told_prompts import (
    clicks_of,
    told_box,
    told_clicks,
    told_label,
    told_text,
    told_voxel,
    whole_numbers,
)
from ultrarefiner.types import Clicks


@settings(deadline=None, max_examples=15)
@given(numbers=st.lists(st.integers(-9, 99), min_size=1, max_size=6))
def test_whole_numbers_are_pythons_own_wherever_they_were(numbers) -> None:
    given = (numbers, tuple(numbers), np.array(numbers), torch.tensor(numbers), [np.int16(one) for one in numbers])
    for one in given:
        found = whole_numbers(one)
        assert found == tuple(numbers)
        assert all(type(number) is int for number in found)


@pytest.mark.parametrize(
    "values",
    [
        None,
        3,
        "123",
        b"123",
        {1, 2},
        [1, 2.0],
        [1, True],
        [1, None],
        np.array([1.0, 2.0]),
        np.array([True, False]),
        torch.tensor([1.0]),
        torch.tensor([True]),
        [torch.tensor(1.0)],
        [torch.tensor([1, 2])],
    ],
)
def test_what_is_no_whole_number_gives_nothing(values) -> None:
    assert whole_numbers(values) == ()


def test_boxes_and_voxels_at_the_border() -> None:
    assert told_box(None, (5, 8)) is None
    assert told_box([0, 0, 4, 7], (5, 8)) == (0, 0, 4, 7)
    assert told_box(np.array([[2, 3], [2, 3]]), (5, 8)) == (2, 3, 2, 3)
    assert told_voxel((4, 7), (5, 8)) == (4, 7)
    for box in ((0, 0, 5, 7), (-1, 0, 4, 7), (3, 0, 2, 7), (0, 0, 4)):
        with pytest.raises(ValueError, match=r"box must be 4 whole numbers, .* of a size of \(5, 8\), but it is \("):
            told_box(box, (5, 8))
    with pytest.raises(ValueError, match=r"but it is \[0.0, 0.0, 1.0, 1.0\] of torch.float32; the last is at most"):
        told_box(torch.tensor([0.0, 0, 1, 1]), (5, 8))
    for voxel in ((5, 0), (0, 8), (0, -1), (0,)):
        with pytest.raises(ValueError, match="position must be 2 whole numbers"):
            told_voxel(voxel, (5, 8))


def test_labels() -> None:
    assert told_label(torch.tensor(True)) is told_label(np.bool_(True)) is told_label(True) is True
    assert told_label(np.array(False)) is told_label(False) is False
    with pytest.raises(ValueError, match="but it is -1; of a label write label == 1"):
        told_label(-1)
    with pytest.raises(ValueError, match=r"but it is 1 of torch\.int64"):
        told_label(torch.tensor(1))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("liver", r"text must be the embedding of one text, \(1, 8\), floating point, but it is 'liver'; make it of"),
        (torch.zeros(8), r"torch.float32 of the shape \(8,\)"),
        (torch.zeros(2, 8), r"of the shape \(2, 8\)"),
        (torch.zeros(1, 9), r"of the shape \(1, 9\)"),
        (torch.zeros(1, 8, dtype=torch.int64), "torch.int64"),
        (torch.full((1, 8), torch.nan), "text must hold numbers, but it holds NaN or infinity"),
        (torch.full((1, 8), torch.inf), "text must hold numbers"),
    ],
)
def test_texts(text, sentence) -> None:
    assert told_text(None) is None
    assert told_text(torch.ones(1, 8), 8).sum() == told_text(torch.ones(1, 8)).sum() == 8
    with pytest.raises(ValueError, match=sentence):
        told_text(text, 8)


def test_clicks_there_and_back() -> None:
    told = (((3, 4), True), ((0, 7), False))
    clicks = clicks_of(told, 2, device=torch.device("cpu"))
    assert told_clicks(clicks, (5, 8)) == told
    some = Clicks(clicks.positions, clicks.positive, torch.tensor([[False, True]]))
    assert told_clicks(some, (5, 8)) == told[1:]
    assert told_clicks(None, (5, 8)) == told_clicks(clicks_of((), 2, device=torch.device("cpu")), (5, 8)) == ()
    with pytest.raises(ValueError, match=r"clicks must have positions \(1, n, 3\)"):
        told_clicks(clicks, (5, 8, 9))
    with pytest.raises(ValueError, match=r"clicks must lie inside, .* one is at \(0, 7\)"):
        told_clicks(clicks, (5, 7))
