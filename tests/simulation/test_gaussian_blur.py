"""Gaussian blur with a sigma of its own for each mask, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import correlate1d, gaussian_filter

from ultrarefiner.simulation import gaussian_blur


@given(seed=st.integers(0, 10_000), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(deadline=None, max_examples=15)
def test_it_is_scipy_s_mask_by_mask(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 2, height, width, generator=generator, dtype=torch.float64)
    # Below two pixels scipy's sampled kernel is itself not quite a Gaussian.
    sigma = 2.0 + 8 * torch.rand(2, 2, generator=generator)
    blurred = gaussian_blur(mask, sigma)
    for image in range(2):
        for one in range(2):
            width_of_blur = sigma[image, one].item()
            expected = gaussian_filter(mask[image, one].numpy(), width_of_blur, mode="reflect", truncate=8.0)
            torch.testing.assert_close(blurred[image, one], torch.from_numpy(expected), atol=1e-6, rtol=0)


def band_limited_kernel(sigma: float, radius: int) -> np.ndarray:
    """What of a Gaussian pixels can hold: the integral of its transform up to their highest frequency, 1 / 2."""

    def weight(distance: int) -> float:
        value, _ = quad(lambda f: np.exp(-2 * (np.pi * sigma * f) ** 2) * np.cos(2 * np.pi * f * distance), -0.5, 0.5)
        return float(value)

    return np.array([weight(distance) for distance in range(-radius, radius + 1)])


@pytest.mark.parametrize("sigma", [0.5, 0.6, 0.75, 1.0])
def test_a_narrow_blur_is_the_band_limited_gaussian(sigma: float) -> None:
    mask = (torch.rand(1, 1, 40, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64) > 0.6).double()
    kernel = band_limited_kernel(sigma, 40)
    expected = correlate1d(correlate1d(mask[0, 0].numpy(), kernel, axis=0, mode="reflect"), kernel, mode="reflect")
    blurred = gaussian_blur(mask, torch.full((1, 1), sigma, dtype=torch.float64))[0, 0].numpy()
    assert np.abs(blurred - expected.clip(0, 1)).max() < 2e-3
    # From one pixel on that is what sampling gives, too; at half a pixel the two differ by a tenth.
    sampled = gaussian_filter(mask[0, 0].numpy(), sigma, mode="reflect", truncate=8.0)
    assert np.abs(blurred - sampled).max() < {0.5: 0.2, 0.6: 0.12, 0.75: 0.05, 1.0: 0.01}[sigma]


@pytest.mark.parametrize("sigma", [0.0, 0.5, 3.0, 100.0])
def test_empty_and_full_masks_stay(sigma: float) -> None:
    width = torch.full((1, 1), sigma)
    assert gaussian_blur(torch.zeros(1, 1, 7, 9), width).abs().max() < 1e-6
    assert (gaussian_blur(torch.ones(1, 1, 7, 9), width) - 1).abs().max() < 1e-6


def test_no_blur_changes_nothing_and_the_mean_is_kept() -> None:
    mask = (torch.rand(1, 1, 16, 12, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    torch.testing.assert_close(gaussian_blur(mask, torch.zeros(1, 1)), mask, atol=1e-6, rtol=0)
    wide = gaussian_blur(mask, torch.full((1, 1), 4.0))
    assert wide.mean().item() == pytest.approx(mask.mean().item(), abs=1e-6)
    assert gaussian_blur(mask.half(), torch.ones(1, 1)).dtype == torch.float32
