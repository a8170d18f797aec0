"""The lightweight decoder h: the published count, the published parts, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from ultrarefiner.networks import LightDecoder
from ultrarefiner.networks.light_decoder import ChannelNorm


def test_the_count_is_the_published_one() -> None:
    assert sum(parameter.numel() for parameter in LightDecoder().parameters()) == 151_809


def test_it_is_the_chain_of_sams_own_parts() -> None:
    torch.manual_seed(0)
    ours = LightDecoder(12, hidden=(8, 4), masks=2)
    for norm in (ours.norm1.norm, ours.norm2.norm):
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    chain = nn.Sequential(
        nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1),
        LayerNorm2d(8),
        nn.GELU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        LayerNorm2d(4),
        nn.GELU(),
        nn.Conv2d(4, 2, 1),
    )
    chain.load_state_dict(dict(zip(chain.state_dict(), ours.state_dict().values(), strict=True)))
    embedding = torch.randn(3, 12, 5, 6)
    answer = ours(embedding)
    assert answer.shape == (3, 2, 20, 24)
    torch.testing.assert_close(answer, chain(embedding))
    torch.testing.assert_close(answer[1:2], ours(embedding[1:2]))


def test_gradients() -> None:
    torch.manual_seed(0)
    norm = ChannelNorm(3).double()
    assert torch.autograd.gradcheck(norm, torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True))
    decoder = LightDecoder(3, hidden=(3, 2)).double()
    assert torch.autograd.gradcheck(decoder, torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True))


def test_equal_channels_stay_finite() -> None:
    decoder = LightDecoder(4)
    embedding = torch.zeros(1, 4, 2, 2, requires_grad=True)
    decoder(embedding).sum().backward()
    assert embedding.grad.isfinite().all()


def test_settings() -> None:
    assert LightDecoder(64, masks=3).settings() == {"channels": 64, "masks": 3, "hidden": [64, 16]}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channels": 0}, "channels must be 1 or more, but it is 0"),
        ({"masks": -1}, "masks must be 1 or more, but it is -1"),
        ({"hidden": (64, 0)}, "hidden must be 1 or more, but it is 0"),
    ],
)
def test_refusals(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        LightDecoder(**arguments)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("shape", [(4, 2, 2), (1, 3, 2, 2)])
def test_refused_embeddings(shape) -> None:
    with pytest.raises(ValueError, match=r"embedding must be \(b, 4, h, w\), but its shape is"):
        LightDecoder(4)(torch.zeros(shape))
