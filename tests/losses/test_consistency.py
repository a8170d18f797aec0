"""Consistency where nothing was edited."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.losses import ConsistencyLoss, consistency_loss


def some(seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, refined = (2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return refined, first, torch.rand(shape, generator=generator) < 0.3


@given(seed=st.integers(0, 10_000), divergence=st.sampled_from(["l2", "kl"]))
@settings(deadline=None, max_examples=15)
def test_it_is_the_plain_loop(seed: int, divergence: str) -> None:
    refined, first, edited = some(seed, (2, 1, 2, 3, 4))
    found = consistency_loss(refined, first, edited, divergence=divergence, reduction="none")
    for b in range(2):
        values = []
        for q, p, touched in zip(
            refined[b].sigmoid().flatten().tolist(), first[b].sigmoid().flatten().tolist(),
            edited[b].flatten().tolist(), strict=True,
        ):  # fmt: skip
            if touched:
                continue
            kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
            values.append((p - q) ** 2 if divergence == "l2" else kl)
        assert found[b, 0].item() == pytest.approx(sum(values) / len(values), rel=1e-9)


@pytest.mark.parametrize("divergence", ["l2", "kl"])
def test_gradcheck_and_the_first_mask_is_a_target(divergence: str) -> None:
    refined, first, edited = some(0, (1, 2, 3, 4))
    refined.requires_grad_()
    first.requires_grad_()
    loss = ConsistencyLoss(divergence=divergence)
    assert torch.autograd.gradcheck(lambda z: loss(z, first.detach(), edited), refined)
    loss(refined, first, edited).backward()
    assert first.grad is None
    assert refined.grad is not None
    assert torch.equal(refined.grad != 0, ~edited)


@pytest.mark.parametrize("divergence", ["l2", "kl"])
def test_what_was_edited_or_stayed_costs_nothing(divergence: str) -> None:
    refined, first, edited = some(1, (1, 1, 2, 3, 4))
    only_there = torch.where(edited, refined, first).requires_grad_()
    assert consistency_loss(only_there, first, edited, divergence=divergence).item() == pytest.approx(0, abs=1e-12)
    everywhere = consistency_loss(only_there, first, torch.ones_like(edited), divergence=divergence)
    everywhere.backward()
    assert everywhere.item() == 0
    assert only_there.grad is not None
    assert only_there.grad.count_nonzero() == 0


def test_a_batch_is_its_elements_and_certain_voxels_are_finite() -> None:
    refined, first, edited = some(2, (3, 1, 4, 4))
    refined[0], first[0] = 500.0, -500.0
    for divergence in ("l2", "kl"):
        loss = ConsistencyLoss(divergence=divergence, reduction="none")
        whole = loss(refined, first, edited)
        assert whole.isfinite().all()
        each = torch.cat([loss(*(part[i][None] for part in (refined, first, edited))) for i in range(3)])
        torch.testing.assert_close(whole, each)
    assert consistency_loss(refined.half(), first.half(), edited).dtype == torch.float32


def test_what_does_not_fit_is_said(unhooked: None) -> None:
    logits = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match='divergence must be "l2" or "kl"'):
        consistency_loss(logits, logits, logits > 0, divergence="l1")
    with pytest.raises(ValueError, match='divergence must be "l2" or "kl", but it is \'js\''):
        ConsistencyLoss(divergence="js")
    for build in (ConsistencyLoss, lambda **options: consistency_loss(logits, logits, logits > 0, **options)):
        with pytest.raises(ValueError, match="reduction must be 'mean' or 'none'; got 'sum'"):
            build(reduction="sum")


def test_other_shapes_are_refused(unhooked: None) -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        consistency_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 2).bool())
