"""The pixel convention and SAM's frames, against segment-anything's own resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from ultrarefiner.ops import edge_to_index, index_to_edge, pad_frame, squash_frame

sides = st.integers(3, 700)


@given(height=sides, width=sides, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_padded_frame_is_where_segment_anything_puts_coordinates(height: int, width: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 1, (5, 2)) * (width, height)
    frame = pad_frame((height, width), 1024)
    theirs = ResizeLongestSide(1024).apply_coords(points, (height, width))
    ours = frame.to_frame(torch.from_numpy(points))
    assert frame.content == ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-9)


@given(height=sides, width=sides, pad=st.booleans())
@settings(deadline=None, max_examples=40)
def test_to_frame_and_from_frame_are_inverse(height: int, width: int, pad: bool) -> None:
    frame = (pad_frame if pad else squash_frame)((height, width), 1024)
    boxes = torch.rand(4, 3, 4, dtype=torch.float64) * 1000
    torch.testing.assert_close(frame.from_frame(frame.to_frame(boxes)), boxes)


def test_a_mask_of_another_resolution_shows_the_same_field_of_view() -> None:
    frame = pad_frame((300, 500), 1024)
    coarse = frame.of_raster((60, 100))
    torch.testing.assert_close(
        coarse.to_frame(torch.tensor([50.0, 30.0])), frame.to_frame(torch.tensor([250.0, 150.0]))
    )


def test_squash_maps_each_axis_on_its_own() -> None:
    corner = squash_frame((300, 500), 1024).to_frame(torch.tensor([500.0, 300.0]))
    torch.testing.assert_close(corner, torch.tensor([1024.0, 1024.0]))


def test_index_and_edge_are_half_a_pixel_apart() -> None:
    values = torch.linspace(-3, 5, 7)
    assert torch.equal(index_to_edge(values) - values, torch.full_like(values, 0.5))
    torch.testing.assert_close(edge_to_index(index_to_edge(values)), values)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (1, 9000)])
def test_extreme_aspects_keep_at_least_a_pixel(size: tuple[int, int]) -> None:
    frame = pad_frame(size, 1024)
    assert max(frame.content) == 1024
    assert min(frame.content) >= 1
