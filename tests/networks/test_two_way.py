"""The two-way transformer and its layers against Segment Anything's own, from which SegVol took them."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import TwoWayTransformer as Theirs
from segment_anything.modeling.mask_decoder import MLP

from ultrarefiner.networks.segvol.two_way import HeadedAttention, Perceptron, TwoWayTransformer


def pair(dtype=torch.float64):
    torch.manual_seed(0)
    theirs = Theirs(depth=2, embedding_dim=16, num_heads=2, mlp_dim=24).to(dtype)
    ours = TwoWayTransformer(16, heads=2, hidden=24).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():  # normalisations too must not be what they are at first
            parameter.add_(0.2 * torch.randn_like(parameter))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(*, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 16), (2, 15, 16), (1, 15, 16))
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_segment_anythings_number_for_number(dtype) -> None:
    ours, theirs = pair(dtype)
    tokens, cells, places = inputs(dtype=dtype)
    grid, shown = (part.transpose(1, 2).unflatten(2, (3, 5)) for part in (cells, places))
    expected, found = theirs(grid, shown, tokens), ours(tokens, cells, places)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(found, ours(tokens, cells, 2 * places), strict=True):
        assert not torch.allclose(one, other, atol=1e-3)


def test_the_same_seed_makes_the_same_weights() -> None:
    made = []
    for build in (
        lambda: Theirs(depth=2, embedding_dim=16, num_heads=2, mlp_dim=24),
        lambda: TwoWayTransformer(16, heads=2, hidden=24),
    ):
        torch.manual_seed(3)
        made.append(build().state_dict())
    theirs, ours = made
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_gradients_are_theirs_and_exact() -> None:
    ours, theirs = pair()
    parts = [part.requires_grad_() for part in inputs()]
    tokens, cells, places = parts
    grid, shown = (part.transpose(1, 2).unflatten(2, (3, 5)) for part in (cells, places))
    gradients = [
        torch.autograd.grad(sum((part**2).sum() for part in answer), parts)
        for answer in (ours(tokens, cells, places), theirs(grid, shown, tokens))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(ours, parts, fast_mode=True)


def test_a_batch_is_its_elements() -> None:
    ours, _ = pair()
    tokens, cells, places = inputs()
    together = ours(tokens, cells, places)
    for index in range(2):
        alone = ours(tokens[index : index + 1], cells[index : index + 1], places)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[index])


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention = HeadedAttention(6, inner=4, heads=2).double()
    asking, asked, told = (torch.randn(1, n, 6, dtype=torch.float64) for n in (3, 5, 5))
    query, key, value = attention.q_proj(asking)[0], attention.k_proj(asked)[0], attention.v_proj(told)[0]
    heads = [
        torch.softmax(query[:, part] @ key[:, part].T / 2**0.5, 1) @ value[:, part]
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(attention(asking, asked, told)[0], attention.out_proj(torch.cat(heads, 1)))


def test_the_perceptron_is_theirs() -> None:
    torch.manual_seed(0)
    theirs, ours = MLP(5, 7, 3, 3), Perceptron((5, 7, 7, 3))
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(4, 5)
    assert torch.equal(ours(features), theirs(features))
    assert (ours(features) < 0).any()
