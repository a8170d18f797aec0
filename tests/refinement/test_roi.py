"""ROICropper: the region, the crop and the paste."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion, soft_masks
from torch import Tensor

from ultrarefiner.refinement import ROICropper


def test_the_region_of_a_disc_is_the_published_one() -> None:
    """Radius r: half side (2.5 + 5 * 0.2) * r / 2 = 1.75 r."""
    mask = lesion(400, 400, (200, 180), (40, 40))[None, None]
    assert ROICropper(expand=0.2).locate(mask)[0, 0].tolist() == pytest.approx([110, 130, 250, 270], abs=0.5)


@given(
    mask=soft_masks(side=40),
    expand=st.floats(0, 1),
    aspect=st.sampled_from(["square", "image"]),
    minimum=st.floats(0.05, 0.5),
    image=st.tuples(st.integers(20, 600), st.integers(20, 600)),
)
@settings(deadline=None, max_examples=40)
def test_regions_have_their_shape_and_stay_inside(
    mask: Tensor, expand: float, aspect: str, minimum: float, image: tuple[int, int]
) -> None:
    height, width = image
    boxes = ROICropper(expand=expand, aspect=aspect, minimum=minimum).locate(mask, image)
    side_x, side_y = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    ratio = 1.0 if aspect == "square" else height / width
    torch.testing.assert_close(side_y, side_x * ratio)
    assert (side_x >= min(minimum * max(image), width if aspect == "image" else max(image)) - 1e-6).all()
    assert (side_x <= max(image) + 1e-6).all()
    for axis, (side, limit) in enumerate(((side_x, width), (side_y, height))):
        inside = (boxes[..., axis] >= -1e-6) & (boxes[..., axis + 2] <= limit + 1e-6)
        assert (inside | (side > limit - 1e-6)).all()


@pytest.mark.parametrize("aspect", ["square", "image"])
def test_padding_is_no_place_for_a_region(aspect: str) -> None:
    """Two images padded to a common square have the regions that they have alone."""
    cropper = ROICropper(aspect=aspect)
    alone = lesion(60, 100, (52, 90), (7, 9))[None, None]
    padded = torch.nn.functional.pad(alone, (0, 0, 0, 40)).expand(2, -1, -1, -1)
    sizes = torch.tensor([[60, 100], [100, 100]])
    regions = cropper.locate(padded, content_sizes=sizes)
    torch.testing.assert_close(regions[:1], cropper.locate(alone))
    torch.testing.assert_close(regions[1:], cropper.locate(padded[1:]))
    assert not torch.equal(regions[0], regions[1])
    empty = cropper.locate(torch.zeros_like(padded), content_sizes=sizes)
    assert empty[:, 0].tolist() == [[0, 0, 100, 60], [0, 0, 100, 100]]


def test_a_mask_of_another_resolution_has_the_same_region() -> None:
    mask = lesion(64, 128, (30, 50), (10, 14))[None, None]
    large = mask.repeat_interleave(4, -1).repeat_interleave(4, -2)
    cropper = ROICropper()
    torch.testing.assert_close(cropper.locate(mask, (256, 512)), cropper.locate(large), atol=0.6, rtol=0)


@pytest.mark.parametrize("name", list(degenerate_masks()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_degenerate_masks(name: str, dtype: torch.dtype) -> None:
    mask = degenerate_masks()[name].to(dtype).requires_grad_()
    boxes = ROICropper().locate(mask)
    boxes.sum().backward()
    assert torch.isfinite(boxes).all()
    assert torch.isfinite(mask.grad).all()
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= 2
    if "empty" in name:
        assert boxes.tolist() == [[[0, 0, 32, 24]]]
        assert mask.grad.abs().max() == 0


@pytest.mark.parametrize("aspect", ["square", "image"])
@given(mask=soft_masks(images=1, masks=2, side=10), floor=st.sampled_from([0.0, 0.01]))
@settings(deadline=None, max_examples=6)
def test_gradcheck_of_locate_crop_and_paste(aspect: str, mask: Tensor, floor: float) -> None:
    cropper = ROICropper(size=6, aspect=aspect, expand=0.01, sigmas=1.3, floor=floor)
    image = torch.rand(1, 2, *mask.shape[-2:], dtype=torch.float64)

    def everything(p: Tensor) -> tuple[Tensor, ...]:
        boxes = cropper.locate(p)
        crops = cropper.crop(image[:, :1], boxes)
        back = cropper.paste(cropper.crop_masks(p, boxes), boxes, size=mask.shape[-2:], background=p)
        return boxes, crops, back

    assert torch.autograd.gradcheck(everything, mask.requires_grad_(), eps=1e-7, atol=1e-3, rtol=1e-2)


def test_gradients_reach_the_mask_through_the_place_of_the_crop() -> None:
    mask = (0.9 * lesion(40, 40, (20, 18), (6, 9)))[None, None].requires_grad_()
    cropper = ROICropper(size=16)
    ramp = torch.arange(40.0).div(40).expand(1, 1, 40, 40)
    cropper.crop(ramp, cropper.locate(mask)).mean().backward()
    assert mask.grad[0, 0, 20, 24] > 0 > mask.grad[0, 0, 20, 12]


def test_paste_takes_images_masks_and_any_background() -> None:
    cropper = ROICropper(size=12)
    boxes = torch.tensor([[[2.0, 2.0, 6.0, 6.0], [0.0, 0.0, 4.0, 4.0]]])
    image = torch.rand(1, 3, 8, 9)
    full = cropper.paste(cropper.crop(image, boxes), boxes, size=(8, 9), background=-1.0)
    assert full.shape == (1, 2, 3, 8, 9)
    torch.testing.assert_close(full[0, 0, :, 2:6, 2:6], image[0, :, 2:6, 2:6])
    masks = torch.rand(1, 2, 8, 9)
    background = torch.full((1, 2, 8, 9), 5.0)
    pasted = cropper.paste(cropper.crop_masks(masks, boxes), boxes, size=(8, 9), background=background)
    torch.testing.assert_close(pasted[0, 1, :4, :4], masks[0, 1, :4, :4])
    assert (pasted[0, 1, 4:] == 5).all()


@pytest.mark.parametrize(
    "change",
    [
        {"expand": 0.5},
        {"sigmas": 2.0},
        {"aspect": "image"},
        {"minimum": 0.9},
        {"floor": 0.05},
        {"minimum_probability": 1.0},
    ],
    ids=str,
)
def test_every_knob_changes_the_region(change: dict[str, object]) -> None:
    mask = (0.9 * lesion(30, 60, (13, 18), (6, 9))).clamp(min=0.003)[None, None]
    before, after = ROICropper(), ROICropper(**change)
    assert not torch.allclose(before.locate(mask), after.locate(mask))
    assert before.settings() != after.settings()


@pytest.mark.usefixtures("unhooked")
def test_wrong_arguments_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="aspect must be 'square' or 'image', but it is 'round'"):
        ROICropper(aspect="round")
    with pytest.raises(ValueError, match=r"expand >= 0.*expand=-1"):
        ROICropper(expand=-1)
    with pytest.raises(ValueError, match=r"probability must be \(b, k, h, w\)"):
        ROICropper().locate(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="must not hold NaN"):
        ROICropper().locate(torch.full((1, 1, 4, 4), torch.nan))


def test_each_result_has_its_own_images_background() -> None:
    cropper = ROICropper(size=8)
    images = torch.stack([torch.zeros(1, 10, 10), torch.ones(1, 10, 10)])
    boxes = torch.tensor([[2.0, 2.0, 6.0, 6.0]]).expand(2, 2, 4)
    full = cropper.paste(torch.full((2, 2, 1, 8, 8), 5.0), boxes, size=(10, 10), background=images)
    assert full[:, :, 0, 0, 0].tolist() == [[0, 0], [1, 1]]


def test_masks_do_not_fade_at_the_border() -> None:
    full = torch.ones(1, 1, 20, 20)
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 20.0]]])
    assert ROICropper().crop_masks(full, boxes, size=100).min() > 0.9999
    outside = ROICropper().crop_masks(full, boxes - 10, size=100)
    assert outside[0, 0, :50, :50].max() == 0
    assert outside[0, 0, 50:, 50:].min() > 0.9999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_pictures_are_cropped_in_the_right_place(dtype: torch.dtype) -> None:
    ramp = (torch.arange(1000.0) + 0.5).div(1000).expand(1, 1, 700, 1000)
    boxes = torch.tensor([[[803.3, 411.7, 967.9, 576.3]]])
    cropper = ROICropper(size=64)
    narrow = cropper.crop(ramp.to(dtype), boxes)
    assert narrow.dtype == dtype
    torch.testing.assert_close(narrow.float(), cropper.crop(ramp, boxes), atol=1e-2, rtol=0)


@pytest.mark.usefixtures("unhooked")
def test_crops_and_boxes_of_other_images_get_a_sentence() -> None:
    cropper, boxes = ROICropper(size=8), torch.zeros(2, 1, 4)
    with pytest.raises(ValueError, match=r"images must be \(b, c, h, w\) and boxes \(b, k, 4\) of the same images"):
        cropper.crop(torch.rand(3, 1, 9, 9), boxes)
    with pytest.raises(ValueError, match=r"masks must be \(b, k, ..., h, w\)"):
        cropper.crop_masks(torch.rand(2, 3, 9, 9), boxes)
    with pytest.raises(ValueError, match=r"crops must be"):
        cropper.paste(torch.rand(2, 3, 8, 8), boxes, size=(9, 9), background=0.0)
    with pytest.raises(ValueError, match=r"background must have the result's shape \(2, 1, 9, 9\)"):
        cropper.paste(torch.rand(2, 1, 8, 8), boxes, size=(9, 9), background=torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"sigmas > 0.*sigmas=0"):
        ROICropper(sigmas=0)
