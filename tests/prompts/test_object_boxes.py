"""Boxes of objects against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.prompts import box_from_middle_slice, tight_object_box


@st.composite
def sparse_masks(draw: st.DrawFn, *, volumes_only: bool = False) -> Tensor:
    size = draw(st.sampled_from([(4, 6, 5), (1, 7, 6), (6, 1, 3)] + ([] if volumes_only else [(7, 8), (1, 1)])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(3, 1, *size, generator=generator) < draw(st.sampled_from([0.0, 0.03, 0.1, 0.6, 1.0]))


@settings(deadline=None, max_examples=40)
@given(mask=sparse_masks())
def test_a_tight_box_touches_the_object_on_every_side(mask) -> None:
    found = tight_object_box(mask)
    for index in range(3):
        places = np.argwhere(mask[index, 0].numpy())
        assert found.valid[index].item() == bool(len(places))
        if len(places):
            assert found.boxes[index].tolist() == [*places.min(0), *places.max(0)]
        else:
            assert set(found.boxes[index].tolist()) == {-1}
    assert torch.equal(tight_object_box(mask.double()).boxes, found.boxes)


@settings(deadline=None, max_examples=40)
@given(mask=sparse_masks(volumes_only=True))
def test_the_middle_slice_is_that_of_the_median_voxel(mask) -> None:
    found = box_from_middle_slice(mask)
    for index in range(3):
        places = np.argwhere(mask[index, 0].numpy())
        assert found.valid[index].item() == bool(len(places))
        if len(places):
            middle = places[places[:, 0] == places[len(places) // 2, 0]]
            low, high = middle[:, 1:].min(0), middle[:, 1:].max(0)
            expected = [places[0, 0], *low, places[-1, 0], *high]
            assert found.boxes[index].tolist() == expected


@settings(deadline=None, max_examples=40)
@given(mask=sparse_masks(volumes_only=True), jitter=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_jitter_stays_inside_and_within_its_steps(mask, jitter, seed) -> None:
    size = torch.tensor(mask.shape[2:])
    for box in (tight_object_box, box_from_middle_slice):
        plain = box(mask)
        moved = box(mask, jitter=jitter, generator=torch.Generator().manual_seed(seed))
        again = box(mask, jitter=[jitter] * 3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(moved.boxes, again.boxes)
        assert torch.equal(moved.valid, plain.valid)
        valid = plain.valid
        low, high = moved.boxes[valid][:, :3], moved.boxes[valid][:, 3:]
        assert (low >= 0).all()
        assert (high < size).all()
        assert (low <= high).all()
        assert ((moved.boxes - plain.boxes)[valid].abs() <= jitter).all()
        assert (moved.boxes[~valid] == -1).all()


def test_jitter_moves_each_face_evenly_and_only_the_axes_it_is_asked_to() -> None:
    mask = torch.zeros(2000, 1, 3, 20, 20, dtype=torch.bool)
    mask[:, :, 1, 8:12, 7:14] = True
    state = torch.random.get_rng_state()
    moves = (
        tight_object_box(mask, jitter=(0, 2, 3), generator=torch.Generator().manual_seed(0)).boxes
        - tight_object_box(mask).boxes
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not moves[:, [0, 3]].any()
    for face, step in ((1, 2), (4, 2), (2, 3), (5, 3)):
        shares = torch.bincount(moves[:, face] + step, minlength=2 * step + 1) / 2000
        assert len(shares) == 2 * step + 1
        assert (shares - 1 / (2 * step + 1)).abs().max() < 0.05


@pytest.mark.usefixtures("unhooked")
def test_sentences(generator) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    for jitter in (-1, (1, -1), (1, 1, 1)):
        with pytest.raises(ValueError, match=r"jitter must be at least 0 voxels, one number or 2, but it is"):
            tight_object_box(mask, jitter=jitter, generator=generator)
    with pytest.raises(ValueError, match="generator must be given where jitter is not 0, but jitter is 2"):
        tight_object_box(mask, jitter=2)
    with pytest.raises(ValueError, match=r"mask must be a volume .* shape is \(1, 1, 4, 4\); the box of an image is"):
        box_from_middle_slice(mask)
    with pytest.raises(ValueError, match=r"mask must be \(b, 1, d, h, w\)"):
        tight_object_box(mask[0])
