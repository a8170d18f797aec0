"""Crop and paste: an exact inverse pair, in edges, differentiable in pictures and boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.ops import crop_to_boxes, paste_from_boxes


def test_a_ramp_keeps_its_mean() -> None:
    ramp = (torch.arange(100, dtype=torch.float64) + 0.5).expand(1, 1, 100, 100)
    crop = crop_to_boxes(ramp, torch.tensor([[40.0, 40.0, 80.0, 80.0]], dtype=torch.float64), (64, 64))
    assert crop.mean().item() == pytest.approx(60, abs=1e-9)


def test_the_whole_picture_is_itself() -> None:
    picture = torch.rand(2, 3, 9, 7)
    box = torch.tensor([[0.0, 0.0, 7.0, 9.0]]).expand(2, -1)
    torch.testing.assert_close(crop_to_boxes(picture, box, (9, 7)), picture)


@given(x0=st.integers(0, 8), y0=st.integers(0, 6), side=st.integers(2, 8), factor=st.sampled_from([1, 3, 5]))
@settings(deadline=None, max_examples=30)
def test_paste_undoes_crop(x0: int, y0: int, side: int, factor: int) -> None:
    picture = torch.rand(1, 2, 16, 18, dtype=torch.float64)
    box = torch.tensor([[x0, y0, x0 + side, y0 + side]], dtype=torch.float64)
    crop = crop_to_boxes(picture, box, (side * factor, side * factor))
    full = paste_from_boxes(crop, box, (16, 18), background=-7.0)
    inside = torch.zeros(16, 18, dtype=torch.bool)
    inside[y0 : y0 + side, x0 : x0 + side] = True
    torch.testing.assert_close(full[..., inside], picture[..., inside], atol=1e-4, rtol=0)
    assert (full[..., ~inside] == -7).all()


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_paste_undoes_crop_of_a_ramp_at_any_place(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = 2 + 8 * torch.rand(1, 2, generator=generator, dtype=torch.float64)
    box = torch.cat([low, low + 6 + 10 * torch.rand(1, 2, generator=generator, dtype=torch.float64)], -1)
    ramp = torch.arange(32, dtype=torch.float64)[:, None] * 2 + torch.arange(32, dtype=torch.float64)
    crop = crop_to_boxes(ramp[None, None], box, (64, 64))
    full = paste_from_boxes(crop, box, (32, 32), background=torch.full((1, 1, 32, 32), torch.nan).double())[0, 0]
    # The outermost half crop pixel has no neighbour to interpolate with.
    margin = (box[0, 2:] - box[0, :2]) / 128
    centres = torch.arange(32, dtype=torch.float64) + 0.5
    x = (centres > box[0, 0] + margin[0]) & (centres < box[0, 2] - margin[0])
    y = (centres > box[0, 1] + margin[1]) & (centres < box[0, 3] - margin[1])
    inside = y[:, None] & x[None, :]
    assert inside.any()
    torch.testing.assert_close(full[inside], ramp[inside], atol=1e-4, rtol=0)


def test_outside_is_padding() -> None:
    picture = torch.ones(1, 1, 4, 4)
    box = torch.tensor([[-4.0, 0.0, 4.0, 4.0]])
    assert crop_to_boxes(picture, box, (4, 8))[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert crop_to_boxes(picture, box, (4, 8), padding="border").min() == 1


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=8)
def test_gradcheck(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(2, 1, 7, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    low = 1.13 + torch.rand(2, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([low, low + 3.3 + torch.rand(2, 2, generator=generator, dtype=torch.float64)], -1)
    crops = torch.rand(2, 1, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, b: crop_to_boxes(p, b, (5, 6)), (picture, boxes), atol=1e-4)
    assert torch.autograd.gradcheck(
        lambda c, b, g: paste_from_boxes(c, b, (7, 8), background=g), (crops, boxes, picture), atol=1e-4
    )
