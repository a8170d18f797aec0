"""Prompts from SAM's embedding: the published numbers, every output's gradient, honest places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published import answers, checkpoint

from ultrarefiner.checkpoints import from_official
from ultrarefiner.prompts import PromptModule, TokenPromptModule


def embeddings() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(7).standard_normal((2, 256, 64, 64)).astype(np.float32))


@torch.no_grad()
def test_the_published_module_answers_number_for_number() -> None:
    module = PromptModule()
    module.load_state_dict(from_official("automedsam", checkpoint("automedsam")), strict=True)
    boxes, dense, places, labels = answers("automedsam")  # in the order of their names
    prompts = module(embeddings())
    for ours, theirs in (
        (prompts.dense_embedding[:, 0, ::8, ::2, ::2], dense),
        ((prompts.points[:, 0] + 0.5) / 1024, places),
        (prompts.positive_probability[:, 0], labels),
        ((prompts.boxes[:, 0] + 0.5) / 1024, boxes),
    ):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


def test_parameter_counts_are_the_published_ones() -> None:
    assert sum(parameter.numel() for parameter in PromptModule().parameters()) == 4_559_507
    assert sum(parameter.numel() for parameter in TokenPromptModule().parameters()) == 2_433_984


def small(**changes: int) -> PromptModule:
    return PromptModule(**{"channels": 6, "hidden": 4, "points": 3, "pooled": 2, "image_size": 64, **changes})


def test_places_lie_in_the_frame_and_corners_in_order() -> None:
    torch.manual_seed(0)
    prompts = small()(20 * torch.randn(50, 6, 8, 8))
    for places in (prompts.points, prompts.boxes):
        assert places.min() >= -0.5
        assert places.max() <= 63.5
    assert (prompts.boxes[..., 2:] >= prompts.boxes[..., :2]).all()
    assert prompts.valid.all()
    assert ((prompts.positive_probability >= 0) & (prompts.positive_probability <= 1)).all()


@pytest.mark.parametrize("module", [small(), TokenPromptModule(channels=6, hidden=4, tokens=3, pooled=2)])
def test_a_batch_is_each_of_its_images(module: torch.nn.Module) -> None:
    seen = torch.randn(3, 6, 8, 8)
    whole = module(seen)
    for index in range(3):
        one = module(seen[index : index + 1])
        for name in ("points", "boxes", "positive_probability", "tokens", "dense_embedding"):
            if getattr(whole, name) is not None:
                torch.testing.assert_close(getattr(one, name)[0], getattr(whole, name)[index])


def test_every_output_is_differentiable_in_the_embedding() -> None:
    torch.manual_seed(1)
    module = small(points=1).double()
    seen = torch.randn(1, 6, 3, 3, dtype=torch.float64, requires_grad=True)

    def outputs(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        prompts = module(tensor)
        return prompts.points, prompts.boxes, prompts.dense_embedding

    assert torch.autograd.gradcheck(outputs, (seen,))
    tokens = TokenPromptModule(channels=6, hidden=4, tokens=1, pooled=2).double()
    assert torch.autograd.gradcheck(lambda tensor: (tokens(tensor).tokens, tokens(tensor).dense_embedding), (seen,))


def test_places_are_not_rounded_by_mixed_precision() -> None:
    module = small()
    with torch.autocast("cpu", torch.bfloat16):
        prompts = module(torch.randn(1, 6, 8, 8))
    assert prompts.points.dtype == prompts.boxes.dtype == prompts.positive_probability.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"hidden": 0}, {"points": 0}, {"pooled": 0}, {"image_size": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1, but it is 0"):
        small(**wrong)


def test_an_odd_number_of_hidden_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden must be even, but it is 5"):
        TokenPromptModule(channels=6, hidden=5)
