"""From the square back to each image's own pixels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.data import FitToSquare
from ultrarefiner.data.restoring import RefinedBatch, restored_masks
from ultrarefiner.types import Prompts

SIDE = 40


def batch(
    points: Tensor | None = None, boxes: Tensor | None = None, regions: Tensor | None = None, count: int = 2
) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    coarse, refined = torch.rand(2, count, 3, SIDE, SIDE, generator=generator)
    labels = None if points is None else torch.arange(count)[:, None, None].expand(points.shape[:3])
    valid = torch.arange(3 * count).reshape(count, 3) % 2 == 0
    prompts = Prompts(points=points, labels=labels, boxes=boxes, mask_logits=None, valid=valid)
    return SimpleNamespace(coarse_probability=coarse, refined_probability=refined, prompts=prompts, regions=regions)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 1))
def test_coordinates_scale_with_the_content_about_pixel_edges(height: int, width: int, index: int) -> None:
    generator = torch.Generator().manual_seed(height + 100 * width)
    points = SIDE * torch.rand(2, 3, 4, 2, generator=generator)
    boxes, regions = SIDE * torch.rand(2, 2, 3, 4, generator=generator)
    found = restored_masks(batch(points, boxes, regions), index, fit=FitToSquare(SIDE), size=(height, width))
    longest = max(height, width)
    rows, columns = (max(1, int(side * SIDE / longest + 0.5)) for side in (height, width))
    scale = torch.tensor([width / columns, height / rows])
    # Indices count centres, half a pixel after the edge; the region is in edges.
    torch.testing.assert_close(found.points, (points[index] + 0.5) * scale - 0.5)
    torch.testing.assert_close(found.box, (boxes[index] + 0.5) * scale.repeat(2) - 0.5)
    torch.testing.assert_close(found.region, regions[index] * scale.repeat(2))


def test_masks_labels_and_validity_are_those_of_the_image() -> None:
    fit, many = FitToSquare(SIDE), batch(torch.rand(2, 3, 1, 2))
    for index, size in enumerate(((30, 60), (80, 20))):
        found = restored_masks(many, index, fit=fit, size=size)
        for field in ("coarse_probability", "refined_probability"):
            expected = fit.restore(getattr(many, field)[index], size)
            torch.testing.assert_close(getattr(found, field), expected, atol=1e-6, rtol=0)
            assert getattr(found, field).shape == (3, *size)
        assert found.labels is not None
        assert found.labels.tolist() == [[index]] * 3
        assert torch.equal(found.refinable, many.prompts.valid[index])


def test_what_was_not_told_is_none() -> None:
    found = restored_masks(batch(), 0, fit=FitToSquare(SIDE), size=(20, 40))
    assert (found.points, found.labels, found.box, found.region) == (None, None, None, None)
    assert isinstance(batch(), RefinedBatch)
    assert not isinstance(SimpleNamespace(prompts=None), RefinedBatch)


def test_half_precision_and_roundings_become_probabilities() -> None:
    points = torch.full((2, 3, 1, 2), 36.25, dtype=torch.bfloat16)
    many = batch(points)
    many.coarse_probability = many.coarse_probability.bfloat16()
    many.refined_probability[0] = 1 + 1e-6
    found = restored_masks(many, 0, fit=FitToSquare(SIDE), size=(33, 77))
    assert found.coarse_probability.dtype == torch.float32
    assert found.refined_probability.max() == 1
    assert found.points is not None
    assert found.points.dtype == torch.float32


def test_masks_of_another_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must have the size of the square, \(48, 48\), got \(40, 40\)"):
        restored_masks(batch(), 0, fit=FitToSquare(48), size=(20, 40))
