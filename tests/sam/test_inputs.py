"""The two input policies against segment-anything's own preprocessing and MedSAM's recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import sam_model_registry  # noqa: F401 - the package under comparison
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch.nn import functional

from ultrarefiner.ops import edge_to_index
from ultrarefiner.sam import MedSAMInput, SAMInput


class Side:
    """What segment-anything's ``Sam`` asks of an image encoder when it only pads and resizes."""

    def __init__(self, size: int) -> None:
        self.img_size = size


def segment_anything(size: int) -> Sam:
    sam = Sam.__new__(Sam)
    torch.nn.Module.__init__(sam)
    sam.image_encoder = Side(size)  # type: ignore[assignment]
    sam.register_buffer("pixel_mean", torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1))
    sam.register_buffer("pixel_std", torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1))
    return sam


@given(height=st.integers(20, 90), width=st.integers(20, 90), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_sam_input_is_segment_anythings(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = ResizeLongestSide(128).apply_image(image)  # PIL rounds to 8 bits: half a grey level of 255
    theirs = segment_anything(128).preprocess(torch.from_numpy(resized).permute(2, 0, 1).float())
    ours = SAMInput(128)(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0]
    torch.testing.assert_close(ours, theirs, atol=1.01 / 57, rtol=0)


def test_sam_pads_with_zero_after_normalising() -> None:
    prepared = SAMInput(64)(torch.zeros(1, 1, 30, 50))
    assert (prepared[..., 38:, :] == 0).all()
    assert prepared[0, 0, 0, 0].item() == pytest.approx(-123.675 / 58.395)


@given(height=st.integers(20, 300), width=st.integers(20, 300))
@settings(deadline=None, max_examples=15)
def test_sam_masks_come_back_as_segment_anything_does_it(height: int, width: int) -> None:
    masks = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    policy = SAMInput(128)
    frame = policy.frame((height, width))
    theirs = segment_anything(128).postprocess_masks(masks, frame.content, (height, width))
    torch.testing.assert_close(policy.restore(masks, frame), theirs, atol=1e-5, rtol=1e-5)


@given(height=st.integers(20, 300), width=st.integers(20, 300))
@settings(deadline=None, max_examples=15)
def test_medsam_squashes_and_takes_each_images_own_range(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, dtype=torch.float64) * 0.5 + 0.2
    resized = functional.interpolate(images, (128, 128), mode="bicubic", antialias=True)
    low, high = resized.flatten(1).min(1).values, resized.flatten(1).max(1).values
    expected = (resized - low.view(2, 1, 1, 1)) / (high - low).view(2, 1, 1, 1)
    policy = MedSAMInput(128)
    torch.testing.assert_close(policy(images), expected)
    masks = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(
        policy.restore(masks, policy.frame((height, width))),
        functional.interpolate(masks, (height, width), mode="bilinear"),
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_constant_image_is_finite() -> None:
    assert MedSAMInput(32)(torch.full((1, 1, 9, 9), 0.5)).max() < 0.01


@pytest.mark.parametrize("policy", [SAMInput(1024), MedSAMInput(1024)], ids=["sam", "medsam"])
def test_a_prompt_lands_on_what_it_points_at(policy: SAMInput | MedSAMInput) -> None:
    """A bright spot of a 300 x 500 image is where the frame says, to a tenth of a pixel."""
    image = torch.zeros(1, 1, 300, 500)
    image[..., 120:124, 333:337] = 1
    spot = torch.tensor([335.0, 122.0])
    prepared = policy(image)[0, 0]
    weight = (prepared - prepared[0, 0]).clamp(min=0.1) - 0.1
    height, width = policy.frame((300, 500)).content
    weight = weight[:height, :width]
    x = (weight.sum(0) * torch.arange(width)).sum() / weight.sum()
    y = (weight.sum(1) * torch.arange(height)).sum() / weight.sum()
    told = edge_to_index(policy.frame((300, 500)).to_frame(spot))
    torch.testing.assert_close(told, torch.stack([x, y]), atol=0.1, rtol=0)


def test_frames_of_a_300_by_500_image() -> None:
    spot = torch.tensor([335.0, 122.0])
    sam, medsam = SAMInput(1024).frame((300, 500)), MedSAMInput(1024).frame((300, 500))
    theirs = ResizeLongestSide(1024).apply_coords(spot.numpy(), (300, 500))
    np.testing.assert_allclose(sam.to_frame(spot).numpy(), theirs, rtol=1e-6)
    np.testing.assert_allclose(medsam.to_frame(spot).numpy(), spot.numpy() * (1024 / 500, 1024 / 300), rtol=1e-6)
