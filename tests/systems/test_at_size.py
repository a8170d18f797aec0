"""A network at its own resolution: what it answers there, and the same on the images' pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.systems import AtSize
from ultrarefiner.types import MultiScaleLogits


class Halves(nn.Module):
    """Logits at half its input's resolution, with smaller ones beside them."""

    def forward(self, images: Tensor) -> MultiScaleLogits:
        logits = functional.avg_pool2d(images, 2) - 0.5
        return MultiScaleLogits(logits, (logits[..., ::2, ::2],))


def test_the_small_answer_is_the_networks_and_the_large_one_is_resized() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1)
    images = torch.rand(3, 1, 50, 70, generator=torch.Generator().manual_seed(0))
    wrapped = AtSize(network, 32)
    small = wrapped.at_size(images)
    seen = functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    assert isinstance(small, Tensor)
    torch.testing.assert_close(small, network(seen))
    expected = functional.interpolate(small, (50, 70), mode="bilinear")
    torch.testing.assert_close(wrapped(images), expected)
    assert small.shape == (3, 2, 32, 32)
    each = torch.cat([wrapped.at_size(image[None]) for image in images])
    torch.testing.assert_close(each, small)


def test_side_logits_stay_as_they_are() -> None:
    images = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    wrapped = AtSize(Halves(), 24)
    small, large = wrapped.at_size(images), wrapped(images)
    assert isinstance(small, MultiScaleLogits)
    assert small.logits.shape == (2, 1, 12, 12)
    assert large.logits.shape == (2, 1, 40, 40)
    assert torch.equal(small.side_logits[0], large.side_logits[0])


@pytest.mark.parametrize("size", [16, 40])
def test_gradients_reach_the_images(size: int) -> None:
    images = torch.rand(1, 1, 40, 40, requires_grad=True)
    AtSize(nn.Conv2d(1, 1, 3, padding=1), size).at_size(images).sum().backward()  # type: ignore[union-attr] # a tensor
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad != 0).any()
