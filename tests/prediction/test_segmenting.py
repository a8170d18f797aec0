"""One image in, both masks on its own pixels out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ultrarefiner.prediction import Picture, as_image, segment
from ultrarefiner.refinement import AcceptanceRule, ROICropper
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner


def test_masks_lie_on_the_images_own_pixels(make_model: Any, draw: Any, tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (200, 300))
    found = segment(make_model(), path)
    truth = torch.zeros(1, 200, 300, dtype=torch.bool)
    truth[:, 50:100, 75:225] = True
    assert found.mask.shape == truth.shape
    overlap = 2 * (found.coarse_mask & truth).sum() / (found.coarse_mask.sum() + truth.sum())
    assert overlap > 0.95
    assert found.box is not None
    # The soft box of the refined mask's prompts: in the image's pixels, around the mask, not beyond the image.
    x0, y0, x1, y1 = found.box[0].tolist()
    assert -0.6 <= x0 < 75
    assert 224 < x1 <= 299.6
    assert -0.6 <= y0 < 50
    assert 99 < y1 <= 199.6
    assert found.accepted is None
    assert 0 <= found.confidence.item() <= 1


def test_a_path_an_array_a_tensor_and_a_picture_are_alike(make_model: Any, draw: Any, tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    numbers = np.asarray(Image.open(path))
    model = make_model()
    expected = segment(model, path).refined_probability
    grey = torch.from_numpy(numbers / np.float32(255))
    for image in (str(path), numbers, numbers[:, :, None].repeat(3, 2), Image.open(path), grey, grey[None]):
        assert torch.allclose(segment(model, image).refined_probability, expected, atol=1e-5)
    assert torch.allclose(segment(model, Picture("a", grey[None])).refined_probability, expected, atol=1e-5)


def test_options_change_the_result(make_model: Any, draw: Any, tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    model = make_model(SAMRefiner(build_sam("tiny", image_size=64), cropper=ROICropper()))
    plain = segment(model, path)
    for options in ({"flips": True}, {"rounds": 2}, {"frame": 96}, {"precision": "bf16"}):
        assert not torch.equal(segment(model, path, **options).refined_probability, plain.refined_probability)
    assert segment(model, path, threshold=0.9).mask.sum() < segment(model, path, threshold=0.1).mask.sum()
    assert segment(model, path, threshold=0.9).confidence != plain.confidence
    assert plain.region is not None
    assert plain.region.shape == (1, 4)


def test_results_can_be_gone_on_with(make_model: Any) -> None:
    found = segment(make_model(acceptance=AcceptanceRule()), torch.rand(1, 64, 64))
    weight = torch.ones(1, requires_grad=True)
    (found.refined_probability * weight).sum().backward()
    assert weight.grad is not None
    assert found.accepted is not None


def test_one_pixel_and_a_strip_work(make_model: Any) -> None:
    for size in ((1, 1), (1, 500), (500, 1)):
        assert segment(make_model(), torch.rand(1, *size)).mask.shape == (1, *size)


def test_colour_is_kept_where_it_is_wanted() -> None:
    red = np.zeros((2, 3, 3), np.uint8)
    red[..., 0] = 255
    assert as_image(red).unique().item() == pytest.approx(0.299)
    assert as_image(red, colour=True)[:, 0, 0].tolist() == [1, 0, 0]
    clear = np.dstack([red, np.full((2, 3), 51, np.uint8)])
    assert as_image(clear, colour=True)[0, 0, 0].item() == pytest.approx(0.2)
    assert as_image(np.full((2, 2), 65535, np.uint16)).unique().item() == 1
    assert as_image(np.array([[True, False]])).tolist() == [[[1, 0]]]
    assert as_image(torch.rand(1, 3, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_what_is_no_image_is_refused(make_model: Any) -> None:
    with pytest.raises(ValueError, match=r"image must be a tensor .* but its shape is \(1, 1, 8, 8\)"):
        as_image(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"its shape is \(8, 8, 3\); give one image at a time, its channels first"):
        as_image(torch.rand(8, 8, 3))
    with pytest.raises(ValueError, match=r"its shape is \(0, 8\)"):
        as_image(np.zeros((0, 8)))
    with pytest.raises(ValueError, match=r"image must be whole numbers .* but it is float64 from 0.0 to 255.0"):
        as_image(np.array([[0.0, 255.0]]))
    with pytest.raises(ValueError, match="from nan"):
        as_image(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="but it is int64 from 0 to 1"):
        as_image(np.array([[0, 1]]))


def test_frame_and_threshold_are_asked_for(make_model: Any) -> None:
    image = torch.rand(1, 32, 32)
    with pytest.raises(ValueError, match=r"the model does not say it \(model.frame is None\); give frame=256"):
        segment(make_model(frame=None), image)
    assert segment(make_model(frame=None), image, frame=64).mask.shape == (1, 32, 32)
    with pytest.raises(ValueError, match=r"frame must be the side .* but it is 0"):
        segment(make_model(), image, frame=0)
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, but it is 1\.0"):
        segment(make_model(), image, threshold=1.0)
