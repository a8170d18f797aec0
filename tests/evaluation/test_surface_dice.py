"""Surface Dice of the block that two masks fill, against the whole frame."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.evaluation import normalised_surface_dice, surface_dice

SIZES = [(5, 6, 7), (1, 8, 9), (9, 3, 1), (12, 13)]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from(SIZES),
    share=st.sampled_from([0.02, 0.3, 0.9]),
    tolerance=st.sampled_from([0.0, 1.0, 2.5]),
)
def test_the_frame_around_the_masks_changes_nothing(seed, size, share, tolerance) -> None:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, 1, *size, generator=generator) < share
    spacing = (1.0, 0.7, 3.0)[: len(size)]
    framed = torch.nn.functional.pad(pair, (2, 7) * len(size))

    def nsd(masks: torch.Tensor) -> float:
        return normalised_surface_dice(masks[0], masks[1], spacing=spacing, tolerance=tolerance)

    expected = nsd(pair)
    assert nsd(framed) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface_dice, "_block", lambda mask: (slice(None),) * mask.ndim)
        assert nsd(framed) == expected


def test_monai_sees_the_block_alone(monkeypatch) -> None:
    import monai.metrics

    sizes, measure = [], monai.metrics.compute_surface_dice

    def measured(*given, **options):
        sizes.append(tuple(given[0].shape))
        return measure(*given, **options)

    monkeypatch.setattr(monai.metrics, "compute_surface_dice", measured)
    first = torch.zeros(1, 30, 40, 50, dtype=torch.bool)
    second = first.clone()
    first[:, 3:6, 10:14, 20:28] = True
    second[:, 4:8, 9:12, 22:30] = True
    normalised_surface_dice(first, second, spacing=(1.0, 1.0, 1.0))
    assert sizes == [(1, 1, 5, 5, 10)]
