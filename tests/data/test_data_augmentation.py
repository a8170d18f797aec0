from __future__ import annotations

from typing import Any

import pytest
import torch
from still_augmentation import STILL, seeded

from ultrarefiner.data.augmentation import Augmentation, add_speckle, blur_randomly
from ultrarefiner.data.batches import FittedCases, collate
from ultrarefiner.data.fit import PADDING_GREY, FitToSquare
from ultrarefiner.data.phantoms import Phantoms


def _blobs(count: int = 4, size: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    shapes = [((x - 20 - 3 * i) / 9) ** 2 + ((y - 30) / (5 + 2 * i)) ** 2 < 1 for i in range(count)]
    return torch.stack(shapes)[:, None].float()


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    fitted = FittedCases(Phantoms(4, size=(48, 64)), 64)
    stacked = collate([fitted[index] for index in range(4)])
    return stacked.images, stacked.masks


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_move_together(seed: int) -> None:
    masks = _blobs()
    geometry = Augmentation(gamma=(1.0, 1.0), gain=(1.0, 1.0), speckle=0.0, blur=0.0)
    images, moved = geometry(masks, masks, seeded(seed))
    assert not torch.equal(moved, masks)
    assert torch.equal((images >= 0.5).float(), moved)
    assert moved.unique().tolist() == [0, 1]
    areas = moved.sum((1, 2, 3)) / masks.sum((1, 2, 3))
    assert (areas > 0.6).all()
    assert (areas < 1.5).all()


def test_several_masks_of_an_image_move_alike() -> None:
    masks = _blobs()
    images = torch.rand(4, 3, 64, 64, generator=seeded())
    moved_images, moved = Augmentation()(images, masks.expand(-1, 2, -1, -1), seeded())
    assert moved_images.shape == images.shape
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, :1], Augmentation()(images, masks, seeded())[1])


def test_the_generator_alone_decides(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augmentation()
    torch.manual_seed(1)
    first = augment(*batch, seeded(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = augment(*batch, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    other = augment(*batch, seeded(4))
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    generator = seeded(3)
    augment(*batch, generator)
    assert not torch.equal(augment(*batch, generator)[0], first[0])


def test_images_stay_in_range_and_the_input_is_untouched(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = batch[0].clone(), batch[1].clone()
    strong = Augmentation(gain=(0.5, 3.0), speckle=1.0, blur=3.0)
    for seed in range(5):
        moved, moved_masks = strong(images, masks, seeded(seed))
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert moved.isfinite().all()
        assert set(moved_masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(images, batch[0])
    assert torch.equal(masks, batch[1])


def test_nothing_asked_for_is_nothing_done(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = Augmentation(**STILL)(*batch, seeded())
    assert torch.allclose(images, batch[0], atol=1e-5)
    assert torch.equal(masks, batch[1])


@pytest.mark.parametrize(
    ("knob", "value", "moves_masks"),
    [
        ("flip", 1.0, True),
        ("rotation", 40.0, True),
        ("scale", (0.5, 0.6), True),
        ("translation", 0.3, True),
        ("gamma", (0.3, 0.5), False),
        ("gain", (0.3, 0.5), False),
        ("speckle", 0.5, False),
        ("blur", 4.0, False),
    ],
)
def test_each_knob_changes_the_picture(
    batch: tuple[torch.Tensor, torch.Tensor], knob: str, value: Any, moves_masks: bool
) -> None:
    images, masks = Augmentation(**{**STILL, knob: value})(*batch, seeded())
    assert (images - batch[0]).abs().mean() > 1e-3
    assert torch.equal(masks, batch[1]) is not moves_masks


def test_the_flip_is_left_to_right(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = Augmentation(**{**STILL, "flip": 1.0})(*batch, seeded())
    assert torch.allclose(images, batch[0].flip(-1), atol=1e-5)
    assert torch.equal(masks, batch[1].flip(-1))


def test_each_image_is_drawn_for_itself() -> None:
    same = _blobs(1).expand(6, -1, -1, -1)
    moved, _ = Augmentation()(same, same, seeded())
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 6


def test_padding_stays_grey_and_empty_masks_empty(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    tone = Augmentation(**{**STILL, "gamma": (0.5, 2.0), "gain": (0.5, 1.5), "speckle": 0.5, "blur": 2.0})
    images, _ = tone(*batch, seeded())
    assert (images[:, :, 48:] == PADDING_GREY).all()
    assert (images[:, :, :48] - batch[0][:, :, :48]).abs().mean() > 0.02
    _, masks = Augmentation()(batch[0], torch.zeros_like(batch[1]), seeded())
    assert masks.sum() == 0


def test_padding_moves_with_the_picture_and_what_comes_into_view_is_padding() -> None:
    square = FitToSquare(64).image(torch.full((1, 1, 32, 64), 0.9))
    flipped, _ = Augmentation(**{**STILL, "flip": 1.0, "gain": (0.5, 0.5)})(
        FitToSquare(64).image(torch.full((1, 1, 64, 32), 0.9)), torch.zeros(1, 1, 64, 64), seeded()
    )
    assert (flipped[..., :32] == PADDING_GREY).all()
    torch.testing.assert_close(flipped[..., 32:], torch.full((1, 1, 64, 32), 0.45), atol=1e-4, rtol=0)
    smaller, _ = Augmentation(**{**STILL, "scale": (0.5, 0.5)})(square, torch.zeros(1, 1, 64, 64), seeded())
    content = smaller != PADDING_GREY
    rows, columns = content[0, 0].nonzero(as_tuple=True)
    # From (0 to 32, 0 to 64) towards the frame's centre, (32, 32); no darker seam between content and padding.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((16, 31, 16, 47), abs=1)
    assert smaller[content].min() > PADDING_GREY + 0.15


def test_speckle_is_multiplicative() -> None:
    steps = torch.tensor([0.1, 0.4]).repeat_interleave(2000).reshape(1, 1, 2, 2000)
    dark, bright = (add_speckle(steps, 0.2, seeded()) - steps)[0, 0].std(1)
    assert abs(bright / dark - 4) < 0.4


def test_blur_lowers_the_contrast_and_keeps_the_mean() -> None:
    noise = torch.rand(2, 1, 64, 64, generator=seeded())
    blurred = blur_randomly(noise, 3.0, seeded())
    assert (blurred.std((1, 2, 3)) < noise.std((1, 2, 3))).all()
    assert torch.allclose(blurred.mean((1, 2, 3)), noise.mean((1, 2, 3)), atol=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_soft_masks_move_as_true_ones_do_and_stay_soft(seed: int, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = batch
    soft = 0.1 + 0.7 * torch.rand(4, 1, 64, 64, generator=seeded(9))
    hard_images, hard = Augmentation()(images, masks, seeded(seed))
    seen, moved = Augmentation().view(images, torch.cat([masks, soft, 0.6 * masks], 1), seeded(seed))
    assert torch.equal(seen, hard_images)
    assert torch.equal((moved[:, :1] >= 0.5).float(), hard)
    assert moved.shape == (4, 3, 64, 64)
    assert ((moved >= 0) & (moved <= 1)).all()
    # Nothing is rounded to 0 or 1, and interpolation is linear.
    assert len(moved[:, 1].unique()) > 1000
    torch.testing.assert_close(moved[:, 2], 0.6 * moved[:, 0])
    assert torch.equal(Augmentation().view(images, soft, seeded(seed))[1], moved[:, 1:2])


def test_what_the_frame_did_not_show_has_no_soft_mask() -> None:
    full = torch.full((2, 1, 32, 32), 0.8)
    smaller = Augmentation(**{**STILL, "scale": (0.5, 0.5)})
    _, moved = smaller.view(torch.full((2, 1, 32, 32), 0.4), full, seeded())
    assert (moved[..., :6, :] == 0).all()
    torch.testing.assert_close(moved[..., 10:22, 10:22], torch.full((2, 1, 12, 12), 0.8))
    _, still = Augmentation(**STILL).view(torch.rand(2, 1, 32, 32), full, seeded())
    torch.testing.assert_close(still, full)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("flip", 1.5),
        ("rotation", -1.0),
        ("translation", 1.2),
        ("speckle", -0.1),
        ("blur", 11.0),
        ("scale", (1.2, 0.8)),
        ("gamma", (0.0, 1.0)),
        ("gain", (1.0, float("nan"))),
    ],
)
def test_wrong_numbers_get_a_sentence(knob: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{knob} must be in .* got .*; choose a number inside"):
        Augmentation(**{knob: value})


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_runs_on_the_device_of_the_batch(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = batch[0].cuda(), batch[1].cuda()
    first, moved = Augmentation()(images, masks, seeded())
    again, _ = Augmentation()(images, masks, seeded())
    assert first.device == images.device
    assert torch.equal(first, again)
    assert (moved.cpu() != Augmentation()(*batch, seeded())[1]).float().mean() < 0.01
