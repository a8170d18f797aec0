from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.utils import correct_crop_centers

from ultrarefiner.data import (
    VolumeAugmentation,
    VolumeView,
    pad_volume,
    patch_start,
    resize_mask,
    resize_volume,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block() -> torch.Tensor:
    mask = torch.zeros(1, 10, 16, 20)
    mask[0, 4:6, 5:9, 12:16] = 1.0
    return mask


# patch_start


@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 8)),
    positive=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(deadline=None, max_examples=25)
def test_a_patch_is_where_monai_puts_it_around_its_centre(
    seed: int, size: tuple[int, int, int], positive: float
) -> None:
    """One voxel of the kind that is wanted: the patch is known."""
    voxel = tuple(int(one) for one in np.random.default_rng(seed).integers((0, 0, 0), (6, 7, 8)))
    mask = torch.zeros(1, 6, 7, 8)
    mask[(0, *voxel)] = 1.0
    found = patch_start(mask if positive else 1 - mask, size, seeded(seed), positive=1.0 if positive else 0.0)
    centre = correct_crop_centers(list(voxel), size, (6, 7, 8))
    assert found == tuple(int(middle) - side // 2 for middle, side in zip(centre, size, strict=True))


def test_three_of_four_patches_lie_around_the_object() -> None:
    mask = block()
    generator = seeded(0)
    starts = np.array([patch_start(mask, (1, 1, 1), generator) for _ in range(2000)])
    hit = np.array([mask[(0, *start)] > 0 for start in starts])
    assert abs(hit.mean() - 0.75) < 0.03
    # Each voxel of a kind is as likely as any other.
    inside, counts = np.unique(starts[hit], axis=0, return_counts=True)
    assert len(inside) == 32
    assert counts.std() < 1.6 * np.sqrt(counts.mean())
    assert np.allclose(starts[~hit].mean(0), [4.5, 7.5, 9.5], atol=0.9)
    first = np.array([patch_start(mask, (1, 1, 1), seeded(0), positive=1.0) for _ in range(3)])
    assert (first == first[0]).all(), "the generator decides"


def test_volumes_of_one_kind_give_patches_of_that_kind() -> None:
    for volume in (torch.zeros(1, 4, 5, 6), torch.ones(1, 4, 5, 6)):
        starts = {patch_start(volume, (2, 2, 2), seeded(seed), positive=0.5) for seed in range(100)}
        assert len(starts) > 20
    almost = torch.ones(1, 20, 20, 20)
    almost[0, 3, 4, 5] = 0.0
    assert patch_start(almost, (1, 1, 1), seeded(0), positive=0.0) == (3, 4, 5)
    assert patch_start(torch.ones(1, 3, 3, 3), (3, 3, 3), seeded(0)) == (0, 0, 0)


def test_patches_that_do_not_fit_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"size must fit into the volume \(10, 16, 20\).*pad the volume first"):
        patch_start(block(), (11, 4, 4), seeded(0))
    with pytest.raises(ValueError, match=r"positive must be in \[0, 1\], got \(2, 2, 2\) and 1.5"):
        patch_start(block(), (2, 2, 2), seeded(0), positive=1.5)


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7)),
    share=st.sampled_from([0.02, 0.5, 0.98, 1.0]),
    positive=st.sampled_from([0.0, 0.75, 1.0]),
)
@settings(deadline=None, max_examples=40)
def test_the_voxel_is_that_of_a_list_of_all(
    seed: int, shape: tuple[int, int, int], share: float, positive: float
) -> None:
    """The same draws as by listing every voxel of the kind, with no such list, and for masks in any order of memory."""
    there = torch.rand(shape, generator=seeded(seed)) < share
    draws = seeded(seed + 1)
    wanted = float(torch.rand((), generator=draws)) < positive
    wanted = bool(there.any()) if wanted else bool(there.all())
    place = None
    for _ in range(0 if wanted else 64):
        tried = int(torch.randint(there.numel(), (), generator=draws))
        if not there.reshape(-1)[tried]:
            place = tried
            break
    if place is None:
        places = (there == wanted).reshape(-1).nonzero()[:, 0]
        place = int(places[int(torch.randint(len(places), (), generator=draws))])
    expected = tuple(int(one) for one in np.unravel_index(place, shape))
    mask = there.float()[None]
    turned = there.permute(2, 1, 0).contiguous().permute(2, 1, 0).float()[None]
    for one in (mask, turned):
        assert patch_start(one, (1, 1, 1), seeded(seed + 1), positive=positive) == expected


def test_masks_as_nifti_files_store_them_are_taken() -> None:
    mask = block().permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert not mask.is_contiguous()
    for seed in range(20):
        assert patch_start(mask, (2, 3, 4), seeded(seed)) == patch_start(block(), (2, 3, 4), seeded(seed))


def test_no_list_of_all_voxels_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    nonzero = torch.Tensor.nonzero

    def watched(self: torch.Tensor) -> torch.Tensor:
        found = nonzero(self)
        listed.append(len(found))
        return found

    monkeypatch.setattr(torch.Tensor, "nonzero", watched)
    mask = torch.ones(1, 20, 30, 40)
    mask[0, 7, 8, 9] = 0.0
    assert patch_start(mask, (1, 1, 1), seeded(0), positive=0.0) == (7, 8, 9)
    patch_start(mask, (1, 1, 1), seeded(0), positive=1.0)
    assert listed
    assert max(listed) <= 40, "a row at a time"


# Sizes


def test_what_lacks_nothing_is_not_copied() -> None:
    mask = block()
    assert pad_volume(mask, (10, 16, 20)) is mask
    assert pad_volume(mask, (1, 1, 1)) is mask
    assert pad_volume(mask, (11, 1, 1)) is not mask


def test_padding_is_around_and_resizing_keeps_labels() -> None:
    padded = pad_volume(block(), (13, 8, 21), fill=-2.0)
    assert padded.shape == (1, 13, 16, 21)
    assert torch.equal(padded[:, 1:11, :, :20], block())
    assert (padded[:, 0] == -2).all()
    assert resize_mask(block(), (5, 31, 7)).unique().tolist() == [0, 1]
    assert torch.equal(resize_mask(block(), (20, 32, 40))[:, ::2, ::2, ::2], block())
    ramp = torch.arange(8.0).reshape(1, 1, 1, 8).expand(1, 2, 2, 8)
    assert torch.allclose(resize_volume(ramp, (2, 2, 4))[0, 0, 0, 1:3], torch.tensor([2.5, 4.5]))


def test_small_labels_lose_less_than_by_the_published_way() -> None:
    """An area average that is cut to whole numbers loses a border all around."""
    mask = torch.zeros(1, 20, 60, 60)
    mask[0, 4:16, 11:48, 13:50] = 1.0
    size = (13, 41, 41)
    published = torch.nn.functional.interpolate(mask[None], size=size, mode="area")[0].int().float()
    errors = [(small.mean() / mask.mean() - 1).abs() for small in (resize_mask(mask, size), published)]
    assert errors[0] < 0.15 < errors[1]


# VolumeView


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=25)
def test_views_have_their_size_and_image_and_mask_stay_together(
    seed: int, shape: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    mask = (torch.rand(1, *shape, generator=seeded(seed)) > 0.7).float()
    image = mask + 1
    seen, object_ = VolumeView(size, whole=0.0)(image, mask, seeded(seed))
    assert seen.shape == object_.shape == (1, *size)
    assert torch.equal(seen[seen > 0], object_[seen > 0] + 1), "the same voxels"
    assert not object_[seen == 0].any(), "padding is background"
    if mask.any():
        around, wanted = VolumeView(size, whole=0.0, positive=1.0)(image, mask, seeded(seed))
        assert wanted.any()
        assert around.any()
    whole, small = VolumeView(size, whole=1.0)(image, mask, seeded(seed))
    assert whole.shape == small.shape == (1, *size)
    assert bool(small.any()) or not mask.any() or not torch.equal(whole, resize_volume(image, size))


@pytest.mark.parametrize("shape", [(20, 24, 28), (3, 24, 28), (20, 24, 2), (4, 8, 8)])
def test_a_patch_is_that_of_the_padded_volume_and_keeps_its_own_memory(shape: tuple[int, int, int]) -> None:
    mask = (torch.rand(1, *shape, generator=seeded(0)) > 0.9).float()
    image, size = torch.rand(1, *shape, generator=seeded(1)), (4, 8, 8)
    padded = [torch.nn.functional.pad(one, paddings(shape, size)) for one in (image, mask)]
    for seed in range(12):
        draws = seeded(seed)
        torch.rand((), generator=draws)
        z, y, x = patch_start(padded[1], size, draws)
        found = VolumeView(size, whole=0.0)(image, mask, seeded(seed))
        for one, whole, source in zip(found, padded, (image, mask), strict=True):
            assert torch.equal(one, whole[:, z : z + 4, y : y + 8, x : x + 8])
            assert one.untyped_storage().nbytes() == 4 * 8 * 8 * 4
            assert one.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()


def paddings(shape: tuple[int, int, int], size: tuple[int, int, int]) -> list[int]:
    missing = [max(wanted - side, 0) for side, wanted in zip(shape[::-1], size[::-1], strict=True)]
    return [part for one in missing for part in (one // 2, one - one // 2)]


def test_one_view_of_four_is_the_whole() -> None:
    image = torch.rand(1, 12, 12, 12)
    mask = torch.ones(1, 12, 12, 12)
    view = VolumeView((4, 4, 4))
    small = resize_volume(image, (4, 4, 4))
    generator = seeded(0)
    whole = [torch.equal(view(image, mask, generator)[0], small) for _ in range(600)]
    assert abs(np.mean(whole) - 0.25) < 0.05


def test_an_object_that_would_vanish_is_seen_in_a_patch() -> None:
    mask = torch.zeros(1, 40, 40, 40)
    mask[0, 11, 11, 11] = 1.0
    assert not resize_mask(mask, (4, 4, 4)).any()
    _, seen = VolumeView((4, 4, 4), whole=1.0, positive=1.0)(mask, mask, seeded(0))
    assert seen.sum() == 1


def test_wrong_views_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="a view needs three sides of at least 1 voxel and shares in"):
        VolumeView((0, 4, 4))
    with pytest.raises(ValueError, match=r"whole=2.0 and positive"):
        VolumeView((4, 4, 4), whole=2.0)


# VolumeAugmentation


def only(**options: float) -> VolumeAugmentation:
    return VolumeAugmentation(**{"flip": 0.0, "intensity": 0.0, "move": 0.0, **options})


def test_flips_are_flips_of_both_and_as_often_as_said() -> None:
    image = torch.rand(1, 3, 4, 5)
    mask = (image > 0.5).float()
    seen = []
    augment = only(flip=0.2)
    for seed in range(300):
        found, moved = augment(image, mask, seeded(seed))
        flips = [
            axes
            for axes in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3])
            if torch.equal(found, image.flip(axes))
        ]
        assert len(flips) == 1
        assert torch.equal(moved, mask.flip(flips[0]))
        seen.append([axis in flips[0] for axis in (1, 2, 3)])
    assert np.abs(np.mean(seen, 0) - 0.2).max() < 0.07
    assert abs(np.prod(np.array(seen)[:, :2], axis=1).mean() - 0.04) < 0.04, "each axis for itself"


def test_intensities_are_scaled_and_shifted_as_said() -> None:
    image = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    found = [only(intensity=0.2)(image, image, seeded(seed)) for seed in range(400)]
    shifts = torch.stack([one[0, 0, 0, 0] for one, _ in found])
    scales = torch.stack([one[0, 0, 0, 1] - one[0, 0, 0, 0] - 1 for one, _ in found])
    assert all(torch.equal(mask, image) for _, mask in found)
    for drawn in (shifts, scales):
        there = drawn[drawn.abs() > 1e-6]
        assert abs(len(there) / 400 - 0.2) < 0.07
        assert there.abs().max() <= 0.2 + 1e-5
        assert there.abs().max() > 0.15
        assert abs(there.mean()) < 0.05


def test_motion_stays_in_the_slices_and_masks_hard() -> None:
    mask = torch.zeros(1, 4, 33, 33)
    mask[0, 1:3, 14:19, 4:29] = 1.0
    image = mask * 0.5
    turned, moved = only(move=1.0, rotation=60.0, zoom=0.0)(image, mask, seeded(4))
    assert moved.unique().tolist() == [0, 1]
    assert not moved[0, 0].any()
    assert torch.equal(moved[0, 1], moved[0, 2])
    assert not torch.equal(moved, mask)
    assert moved.sum() == pytest.approx(mask.sum().item(), rel=0.1)
    assert ((turned > 0.25) == (moved > 0)).float().mean() > 0.99
    larger = [only(move=1.0, rotation=0.0, zoom=0.3)(image, mask, seeded(seed))[1].sum() for seed in range(8)]
    assert min(larger) < mask.sum() < max(larger)


def test_the_generator_decides_all_and_nothing_else_is_touched() -> None:
    image = torch.rand(1, 4, 8, 8)
    mask = (image > 0.5).float()
    kept = image.clone()
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    augment = VolumeAugmentation(move=0.5)
    first = [augment(image, mask, seeded(seed)) for seed in range(8)]
    augment(image, mask, seeded(99))
    again = [pickle.loads(pickle.dumps(augment))(image, mask, seeded(seed)) for seed in range(8)]
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, again, strict=True))
    assert type(first[0][0]) is torch.Tensor
    assert torch.equal(image, kept)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)
    generator = seeded(0)
    assert not all(torch.equal(augment(image, mask, generator)[0], first[0][0]) for _ in range(4))


@pytest.mark.parametrize(
    ("name", "value"), [("flip", 1.5), ("rotation", 200.0), ("zoom", -0.1), ("scale", float("nan"))]
)
def test_options_outside_their_range_get_a_sentence(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, .*got .*; 0 switches it off"):
        VolumeAugmentation(**{name: value})


def test_shapes_that_differ_get_a_sentence(unhooked: None) -> None:
    with pytest.raises(ValueError, match=r"mask must lie on the voxels of image, \(1, 4, 4, 4\), but it has"):
        VolumeAugmentation()(torch.ones(1, 4, 4, 4), torch.ones(1, 4, 4, 5), seeded(0))
    with pytest.raises(ValueError, match=r"mask must lie on the voxels of image, \(1, 4, 4, 4\), but it has"):
        VolumeView((2, 2, 2))(torch.ones(1, 4, 4, 4), torch.ones(1, 4, 4, 5), seeded(0))
