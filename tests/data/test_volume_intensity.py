from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import CropForeground

from ultrarefiner.data import VolumeCrop, foreground_crop, normalise_foreground


def segvol(image: np.ndarray) -> np.ndarray:
    """All steps as SegVol describes them, the z-score too, in float64."""
    values = image.astype(np.float64)
    foreground = values[values > values.mean()]
    low, high = np.percentile(foreground, [0.05, 99.95])
    mean, deviation = foreground.mean(), foreground.std()
    scored = (np.clip(values, low, high) - mean) / max(deviation, 1e-8)
    return (scored - scored.min()) / (scored.max() - scored.min())


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 9), st.integers(6, 12), st.integers(6, 12)),
    scale=st.sampled_from([1.0, 20.0, 1000.0]),
    offset=st.sampled_from([-30.0, 0.0, 5.0]),
)
@settings(deadline=None, max_examples=25)
def test_it_is_segvols(seed: int, shape: tuple[int, int, int], scale: float, offset: float) -> None:
    values = (np.random.default_rng(seed).normal(size=shape) ** 3 * scale + offset).astype(np.float32)
    found = normalise_foreground(torch.from_numpy(values)[None])[0].numpy()
    assert np.allclose(found, segvol(values), atol=1e-4)
    assert found.min() == 0
    assert found.max() == 1


def test_gain_and_offset_change_nothing_and_outliers_little() -> None:
    values = torch.randn(1, 20, 50, 50, generator=torch.Generator().manual_seed(0))
    found = normalise_foreground(values)
    assert torch.allclose(normalise_foreground(7 * values + 3), found, atol=1e-5)
    assert torch.allclose(normalise_foreground(values.double()), found, atol=1e-6)
    spoilt = values.clone()
    spoilt[0, 0, 0, 0] = 500.0
    assert (normalise_foreground(spoilt) - found).abs().flatten()[1:].max() < 0.05
    assert torch.equal(values, torch.randn(1, 20, 50, 50, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1000.3])
def test_a_constant_volume_is_zero(value: float) -> None:
    assert normalise_foreground(torch.full((1, 7, 30, 31), value)).abs().max() == 0
    assert normalise_foreground(torch.full((1, 1, 1, 1), value)).abs().max() == 0


def test_two_values_become_zero_and_one() -> None:
    mask = torch.zeros(1, 4, 4, 4)
    mask[0, 1, 1, 1:3] = 5.0
    assert torch.equal(normalise_foreground(mask - 2), mask / 5)


def test_nan_gets_a_sentence() -> None:
    for bad in (float("nan"), float("inf")):
        image = torch.zeros(1, 2, 2, 2)
        image[0, 0, 0, 0] = bad
        with pytest.raises(ValueError, match=r"all of them finite; of 8 there are 1 NaN or infinite. Replace"):
            normalise_foreground(image)
    with pytest.raises(ValueError, match="image must have voxels"):
        normalise_foreground(torch.zeros(1, 0, 2, 2))


def test_more_voxels_than_torch_quantile_takes() -> None:
    ramp = torch.arange(36_000_000, dtype=torch.float32).reshape(1, 36, 1000, 1000)  # 18 million of foreground
    found = normalise_foreground(ramp)
    assert found.flatten()[17_000_000] == 0
    # 99.95 % of the way from 18 to 36 million.
    assert found.flatten()[27_000_000].item() == pytest.approx((27e6 - 18.009e6) / (35.991e6 - 18.009e6), abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 1000, 2001, 4003])
def test_all_percentiles_are_found_in_one_pass(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU no rank is searched for alone; the numbers are those of NumPy."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)) + 100
    image = torch.cat([values, torch.zeros(2 * count)]).reshape(1, 1, 3, count)
    low, high = np.percentile(values.double().numpy(), [0.05, 99.95])
    searched = []
    monkeypatch.setattr(torch.Tensor, "kthvalue", lambda *_: searched.append(1))
    found = normalise_foreground(image)
    assert not searched
    seen = (image.clamp(low, high) - low) / (high - low) if high > low else (image >= low).float()
    assert torch.allclose(found, seen.clamp(min=0), atol=1e-5)
    assert torch.equal(image[0, 0].flatten()[:count], values), "the image is not reordered"


# Crops


@given(seed=st.integers(0, 10_000), margin=st.integers(0, 3))
@settings(deadline=None, max_examples=20)
def test_the_crop_is_monais_and_goes_back(seed: int, margin: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = (torch.rand(1, 6, 7, 8, generator=generator) - 0.99).clamp(min=0)
    image[0, seed % 6, seed % 7, seed % 8] = 1.0
    box = foreground_crop(image, margin=margin)
    start, stop = CropForeground(margin=margin, allow_smaller=True).compute_bounding_box(image)
    assert box.start == tuple(max(int(one), 0) for one in start)
    assert box.stop == tuple(min(int(one), side) for one, side in zip(stop, (6, 7, 8), strict=True))
    assert torch.equal(box.put_back(box.crop(image)), image), "all that is not background is in the box"
    several = torch.rand(2, 3, 6, 7, 8, generator=generator)
    back = box.put_back(box.crop(several), fill=-1.0)
    inside = box.put_back(torch.ones(box.size)) > 0
    assert torch.equal(back[..., inside], several[..., inside])
    assert (back[..., ~inside] == -1).all()
    labels = several.long() + 3
    assert box.put_back(box.crop(labels)).dtype == torch.int64
    assert box.leave(box.enter((3, 3, 3))) == (3, 3, 3)
    z, y, x = box.enter(box.start)
    assert box.crop(several)[0, 0, z, y, x] == several[(0, 0, *box.start)]


def test_without_foreground_the_whole_volume_is_kept() -> None:
    box = foreground_crop(torch.zeros(1, 3, 4, 5))
    assert (box.start, box.stop, box.size) == ((0, 0, 0), (3, 4, 5), (3, 4, 5))
    assert foreground_crop(torch.ones(1, 3, 4, 5), threshold=1.0) == box
    assert foreground_crop(torch.ones(1, 1, 4, 5)).size == (1, 4, 5)


def test_boxes_that_are_none_get_a_sentence() -> None:
    for start, stop in (((0, 0, 0), (2, 2, 5)), ((1, 1, 1), (1, 2, 2)), ((-1, 0, 0), (2, 2, 2))):
        with pytest.raises(ValueError, match="must bound at least one voxel of the volume along each axis, got"):
            VolumeCrop(start, stop, (4, 4, 4))
    box = VolumeCrop((0, 0, 0), (2, 2, 2), (4, 4, 4))
    with pytest.raises(ValueError, match=r"volume must end in the sides \(4, 4, 4\), got \(1, 4, 4, 5\)"):
        box.crop(torch.zeros(1, 4, 4, 5))
    with pytest.raises(ValueError, match=r"part must end in the sides \(2, 2, 2\), got \(1, 4, 4, 4\)"):
        box.put_back(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="margin must not be negative"):
        foreground_crop(torch.ones(1, 2, 2, 2), margin=-1)
