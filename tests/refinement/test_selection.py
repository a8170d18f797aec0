"""Selection against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from ultrarefiner.refinement import BestSelection, SoftSelection
from ultrarefiner.types import MaskCandidates


def candidates() -> MaskCandidates:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, 5, generator=generator, dtype=torch.float64)
    return MaskCandidates(logits, torch.rand(2, 3, 3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
def test_soft_selection_is_a_softmax(temperature: float) -> None:
    given = candidates()
    logits, iou = SoftSelection(temperature)(given)
    for b in range(2):
        for k in range(3):
            weights = [math.exp(value / temperature) for value in given.iou[b, k].tolist()]
            expected = sum(w * m for w, m in zip(weights, given.logits[b, k], strict=True)) / sum(weights)
            torch.testing.assert_close(logits[b, k], expected)
            believed = sum(w * i for w, i in zip(weights, given.iou[b, k].tolist(), strict=True)) / sum(weights)
            assert iou[b, k].item() == pytest.approx(believed)


def test_best_selection_is_the_limit_of_a_cold_one() -> None:
    given = candidates()
    for best, cold in zip(BestSelection()(given), SoftSelection(1e-4)(given), strict=True):
        torch.testing.assert_close(best, cold)


def test_gradcheck() -> None:
    given = candidates()
    tensors = (given.logits.requires_grad_(), given.iou.requires_grad_())
    for selection in (SoftSelection(), BestSelection()):
        assert torch.autograd.gradcheck(lambda x, y, s=selection: s(MaskCandidates(x, y)), tensors)


@pytest.mark.usefixtures("unhooked")
def test_a_temperature_of_zero_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, but it is 0; for the best candidate use"):
        SoftSelection(0)
