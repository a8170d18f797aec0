"""Prompts on the image: the inverse of how they came into SAM's frame."""

from __future__ import annotations

import pytest
import torch
from strategies import lesion

from ultrarefiner.ops import moments
from ultrarefiner.refinement import ROICropper
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner, prompts_on_image


@pytest.mark.parametrize("policy", ["sam", "medsam"])
@pytest.mark.parametrize("cropper", [None, ROICropper(), ROICropper(aspect="image")], ids=["whole", "square", "image"])
def test_the_positive_point_lies_on_the_lesion(policy: str, cropper: ROICropper | None) -> None:
    mask = lesion(90, 160, (30, 110), (12, 18))[None, None]
    refiner = SAMRefiner(build_sam("tiny", input_policy=policy), cropper=cropper)
    placed = prompts_on_image(refiner, refiner(torch.rand(1, 1, 90, 160), mask), (90, 160))
    truth = moments(mask).centroid[0, 0] - 0.5
    torch.testing.assert_close(placed.points[0, 0, 0], truth, atol=0.4, rtol=0)
    expected = torch.tensor([110 - 22.5, 30 - 15, 110 + 22.5, 30 + 15]) - 0.5
    torch.testing.assert_close(placed.boxes[0, 0], expected, atol=0.8, rtol=0)


def test_what_sam_is_not_told_is_not_placed() -> None:
    from ultrarefiner.prompts import DifferentiablePromptExtractor

    extractor = DifferentiablePromptExtractor(positive=None, negative=None, sigmas=None)
    refiner = SAMRefiner(build_sam("tiny", image_size=64), prompts=extractor)
    placed = prompts_on_image(refiner, refiner(torch.rand(1, 1, 30, 30), torch.rand(1, 1, 30, 30)), (30, 30))
    assert placed.points is None
    assert placed.boxes is None
