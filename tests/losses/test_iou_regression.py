"""What SAM's IoU head is taught."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.losses import IoURegressionLoss, candidate_iou, iou_regression_loss

quick = settings(deadline=None, max_examples=15)


@given(seed=st.integers(0, 10_000), b=st.integers(1, 2), k=st.integers(1, 2), m=st.integers(1, 4))
@quick
def test_the_loss_is_the_formula_and_differentiable(seed: int, b: int, k: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randn(b, k, m, 3, 4, generator=generator)
    target = (torch.rand(b, k, 3, 4, generator=generator) > 0.5).float()
    predicted = torch.rand(b, k, m, generator=generator, dtype=torch.float64, requires_grad=True)
    expected = []
    for i in range(b):
        for j in range(k):
            for n in range(m):
                mask = {p for p, z in enumerate(candidates[i, j, n].flatten().tolist()) if z > 0}
                truth = {p for p, t in enumerate(target[i, j].flatten().tolist()) if t}
                iou = len(mask & truth) / len(mask | truth) if mask | truth else 1.0
                assert candidate_iou(candidates, target)[i, j, n].item() == pytest.approx(iou)
                expected.append((predicted[i, j, n].item() - iou) ** 2)
    loss = iou_regression_loss(predicted, candidates, target)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert torch.autograd.gradcheck(lambda p: iou_regression_loss(p, candidates, target), predicted)
    valid = torch.rand(b, k, generator=generator) > 0.5
    assert torch.autograd.gradcheck(lambda p: iou_regression_loss(p, candidates, target, valid), predicted)


def test_two_empty_masks_agree() -> None:
    empty = torch.zeros(1, 1, 4, 4)
    assert candidate_iou(torch.full((1, 1, 3, 4, 4), -1.0), empty).tolist() == [[[1.0, 1.0, 1.0]]]
    assert candidate_iou(torch.full((1, 1, 1, 4, 4), 1.0), empty).item() == 0.0


def test_invalid_masks_are_left_out_even_when_they_hold_nan() -> None:
    candidates, target = torch.ones(1, 2, 3, 2, 2), torch.ones(1, 2, 2, 2)
    predicted = torch.full((1, 2, 3), 0.5)
    predicted[0, 1] = torch.nan
    predicted.requires_grad_()
    loss = iou_regression_loss(predicted, candidates, target, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad[0, 1].tolist() == [0.0, 0.0, 0.0]
    assert predicted.grad[0, 0].tolist() == pytest.approx([-1 / 3] * 3)


def test_no_valid_mask_costs_nothing() -> None:
    predicted = torch.rand(2, 1, 3, requires_grad=True)
    loss = IoURegressionLoss()(
        predicted, torch.ones(2, 1, 3, 2, 2), torch.ones(2, 1, 2, 2), torch.zeros(2, 1, dtype=torch.bool)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert predicted.grad is not None
    assert predicted.grad.count_nonzero() == 0


def test_the_masks_get_no_gradient_and_half_precision_is_widened() -> None:
    candidates = torch.ones(1, 1, 3, 2, 2, dtype=torch.float16, requires_grad=True)
    predicted = torch.zeros(1, 1, 3, dtype=torch.float16, requires_grad=True)
    loss = iou_regression_loss(predicted, candidates, torch.ones(1, 1, 2, 2))
    loss.backward()
    assert loss.dtype == torch.float32
    assert candidates.grad is None
    assert predicted.grad is not None


@pytest.mark.usefixtures("unhooked")
def test_shapes_that_do_not_fit_are_refused() -> None:
    candidates, target = torch.ones(1, 1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"target must be \(b, k, h, w\) on the pixels of candidate_logits"):
        iou_regression_loss(torch.ones(1, 1, 3), candidates, torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"target must be \(b, k, h, w\)"):
        iou_regression_loss(torch.ones(1, 1, 3), candidates[0], target)
    with pytest.raises(ValueError, match=r"predicted_iou must hold one value a candidate.*\(1, 1, 3\).*\(1, 1, 4\)"):
        iou_regression_loss(torch.ones(1, 1, 4), candidates, target)
    with pytest.raises(ValueError, match=r"valid must be \(b, k\) = \(1, 1\); got \(1,\)"):
        iou_regression_loss(torch.ones(1, 1, 3), candidates, target, torch.ones(1, dtype=torch.bool))
