"""The boundary loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ultrarefiner.losses import BoundaryLoss, boundary_loss


def some(seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(shape, generator=generator) < 0.4).double()


@given(seed=st.integers(0, 10_000), volume=st.booleans(), limited=st.booleans())
@settings(deadline=None, max_examples=15)
def test_it_is_the_mean_of_scipys_distances_on_the_wrong_side(seed: int, volume: bool, limited: bool) -> None:
    shape = (2, 2, 5, 6, 4) if volume else (2, 2, 6, 7)
    spacing = (2.0, 1.0, 0.5) if volume else (1.0, 3.0)
    logits, target = some(seed, shape)
    limit = 1.2 if limited else 100.0
    found = boundary_loss(logits, target, spacing=spacing, limit=limit, reduction="none")
    for b in range(2):
        for k in range(2):
            inside = target[b, k].numpy() > 0.5
            away = ndimage.distance_transform_edt(inside, spacing) + ndimage.distance_transform_edt(~inside, spacing)
            away = torch.from_numpy(away - min(spacing) / 2).clamp(max=limit)
            wrong = (logits[b, k].sigmoid() - target[b, k]).abs()
            torch.testing.assert_close(found[b, k], (away * wrong).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(boundary_loss(logits, target, spacing=spacing, limit=limit), found.mean())


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (2, 1, 3, 3, 4)])
def test_gradcheck(shape: tuple[int, ...]) -> None:
    logits, target = some(3, shape)
    assert torch.autograd.gradcheck(lambda z: boundary_loss(z, target, limit=2.0), logits.requires_grad_())


def test_the_gradient_is_kervadecs() -> None:
    """Of the product of probability and signed distance alone."""
    from ultrarefiner.ops import signed_distance

    logits, target = some(1, (1, 1, 6, 6))
    logits.requires_grad_()
    ours = torch.autograd.grad(boundary_loss(logits, target), logits)[0]
    theirs = torch.autograd.grad((signed_distance(target).double() * logits.sigmoid()).mean(), logits)[0]
    torch.testing.assert_close(ours, theirs)


def test_the_truth_costs_nothing_and_a_batch_is_its_elements() -> None:
    logits, target = some(2, (3, 1, 4, 6, 6))
    assert boundary_loss(200 * (target - 0.5), target).item() == pytest.approx(0, abs=1e-12)
    each = torch.cat([boundary_loss(z[None], t[None], reduction="none") for z, t in zip(logits, target, strict=True)])
    torch.testing.assert_close(boundary_loss(logits, target, reduction="none"), each)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_surface_it_is_zero_with_a_zero_gradient(value: float) -> None:
    logits = torch.randn(1, 1, 3, 4, 4, requires_grad=True)
    loss = BoundaryLoss()(logits, torch.full((1, 1, 3, 4, 4), value))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.count_nonzero() == 0


def test_half_precision_is_summed_in_single_and_each_option_counts() -> None:
    logits, target = some(4, (1, 1, 4, 8, 8))
    assert boundary_loss(logits.half(), target.half()).dtype == torch.float32
    plain = BoundaryLoss()(logits, target)
    assert BoundaryLoss(limit=0.6)(logits, target) < plain
    assert BoundaryLoss(spacing=(3.0, 1.0, 1.0))(logits, target) > plain
    assert BoundaryLoss(reduction="none")(logits, target).shape == (1, 1)


def test_one_truth_of_all_masks_is_each_of_theirs() -> None:
    logits, target = torch.randn(2, 3, 6, 7, 5), (torch.rand(2, 1, 6, 7, 5) > 0.6).float()
    shared = boundary_loss(logits, target, limit=3.0, reduction="none")
    torch.testing.assert_close(shared, boundary_loss(logits, target.expand_as(logits), limit=3.0, reduction="none"))


def test_what_does_not_fit_is_said(unhooked: None) -> None:
    with pytest.raises(ValueError, match="limit must be a positive distance"):
        BoundaryLoss(limit=0.0)
    with pytest.raises(ValueError, match="reduction must be"):
        BoundaryLoss(reduction="sum")
    for spacing in ((0.0, 1.0, 1.0), (1.0,), (1.0, float("nan")), (1.0, -1.0)):
        with pytest.raises(ValueError, match=r"spacing must hold one positive, finite number .* but it is \("):
            BoundaryLoss(spacing=spacing)
    with pytest.raises(ValueError, match="spacing must hold"):  # of two axes, for three
        BoundaryLoss(spacing=(1.0, 1.0))(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2))
    with pytest.raises(ValueError, match="reduction must be"):
        boundary_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), reduction="sum")


def test_other_shapes_are_refused(unhooked: None) -> None:
    with pytest.raises(ValueError, match="target must have the shape of logits"):
        boundary_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3))
