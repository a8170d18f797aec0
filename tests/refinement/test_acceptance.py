"""The acceptance rule, alone and inside UltraRefiner."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ultrarefiner import AcceptanceRule, SAMRefiner, UltraRefiner, build_sam


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), least_iou=st.integers(0, 20), least_dice=st.integers(0, 20))
def test_the_rule_is_a_plain_loop(seed: int, least_iou: int, least_dice: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    coarse, refined = (torch.rand(2, 3, 5, 6, generator=drawn) ** 2 for _ in range(2))
    coarse[0, 0] = refined[1, 1] = 0.0
    iou = torch.rand(2, 3, generator=drawn)
    found = AcceptanceRule(minimum_iou=least_iou / 20, minimum_agreement=least_dice / 20)(coarse, refined, iou)
    for image in range(2):
        for mask in range(3):
            first, second = coarse[image, mask] >= 0.5, refined[image, mask] >= 0.5
            total = int(first.sum() + second.sum())
            dice = 1.0 if total == 0 else 2 * int((first & second).sum()) / total
            expected = float(iou[image, mask]) >= least_iou / 20 and dice >= least_dice / 20 - 1e-7
            assert bool(found[image, mask]) == expected


def test_two_empty_masks_agree_and_one_does_not() -> None:
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    rule, sure = AcceptanceRule(minimum_agreement=0.01), torch.ones(1, 1)
    assert rule(empty, empty, sure).item()
    assert not rule(empty, full, sure).item()
    assert not rule(full, empty, sure).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_large_masks_are_compared_exactly_whatever_the_precision(dtype: torch.dtype) -> None:
    """In float16 300 x 300 pixels are infinitely many; in bfloat16 two of a hundred are none."""
    coarse = torch.ones(1, 1, 300, 300, dtype=dtype)
    refined = coarse.clone()
    refined[..., :6, :] = 0.0
    for least, accepted in ((0.9898, True), (0.9900, False)):  # 2 * 294 / 594 = 0.98990
        rule = AcceptanceRule(minimum_agreement=least)
        assert rule(coarse, refined, torch.ones(1, 1, dtype=dtype)).item() is accepted


@pytest.mark.parametrize("name", ["minimum_iou", "minimum_agreement"])
def test_numbers_outside_their_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], but it is 1.5"):
        AcceptanceRule(**{name: 1.5})


class Fixed(nn.Module):
    """The brightness of an image as its coarse mask."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 8 * (images[:, :1] - 0.5)


def model(**options: object) -> UltraRefiner:
    torch.manual_seed(0)
    return UltraRefiner(coarse=Fixed(), refiner=SAMRefiner(build_sam("tiny", image_size=64)), **options)


def test_what_is_not_accepted_is_the_coarse_mask_to_the_bit() -> None:
    images = torch.rand(2, 1, 48, 48)
    strict = model(acceptance=AcceptanceRule(minimum_iou=1.0)).eval()
    with torch.no_grad():
        found = strict(images)
    assert not found.accepted.any()
    assert torch.equal(found.refined_logits, found.coarse_logits)
    assert torch.equal(found.refined_probability, found.coarse_probability)


def test_what_is_accepted_is_as_without_the_rule() -> None:
    images = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        plain, ruled = model().eval()(images), model(acceptance=AcceptanceRule()).eval()(images)
    assert plain.accepted is None
    assert ruled.accepted.all()
    assert torch.equal(plain.refined_logits, ruled.refined_logits)


def test_training_goes_on_as_without_the_rule() -> None:
    found = model(acceptance=AcceptanceRule(minimum_iou=1.0)).train()(torch.rand(1, 1, 48, 48))
    assert found.accepted is None
    assert not torch.equal(found.refined_logits, found.coarse_logits)


def test_an_empty_coarse_mask_is_no_refusal() -> None:
    strict = model(acceptance=AcceptanceRule(minimum_iou=1.0)).eval()
    with torch.no_grad():
        found = strict(torch.zeros(1, 1, 48, 48))
    assert found.accepted.all()


def test_settings_remember_rule_and_frame() -> None:
    assert "acceptance" not in model().settings()
    assert "frame" not in model().settings()
    told = model(acceptance=AcceptanceRule(minimum_iou=0.25), frame=384).settings()
    assert told["acceptance"] == {"minimum_iou": 0.25, "minimum_agreement": 0.0}
    assert told["frame"] == 384
    with pytest.raises(ValueError, match="frame must be the side of a square"):
        model(frame=0)
