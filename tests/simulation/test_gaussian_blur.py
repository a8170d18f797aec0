"""Gaussian blur with a sigma of its own for each mask, against scipy's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

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
