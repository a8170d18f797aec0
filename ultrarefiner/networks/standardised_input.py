"""A network that wants three standardised channels, as one that takes grey or RGB images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_layout, check_statistics
from ultrarefiner.types import MultiScaleLogits

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class StandardisedInput(nn.Module):
    r"""Images in [0, 1], grey or RGB, to three channels :math:`(x - \mu) / \sigma`, and then through a network.

    Backbones that were trained on ImageNet want this, and so do the networks of segmentation-models-pytorch,
    torchvision and transformers that are built on them. A grey image becomes three equal channels first.

    Args:
        network: called with (b, 3, h, w).
        mean: what is taken off each channel; ImageNet's if not given. It belongs to the network's weights.
        std: by what the rest is divided; likewise.

    Raises:
        ValueError: mean or std is not three finite numbers, or a deviation is not above 0.

    Example:
        >>> StandardisedInput(nn.Conv2d(3, 1, 3, padding=1))(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        check_statistics(mean, std)
        self.network = network
        self._statistics = {"mean": [*mean], "std": [*std]}
        for name, numbers in self._statistics.items():
            self.register_buffer(name, torch.tensor(numbers).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k _ _"] | MultiScaleLogits:
        """What the network answers.

        Args:
            images: c is 1 or 3.

        Returns:
            What the network answers.

        Raises:
            ValueError: the images have another shape, or are no floating point.
        """
        check_layout(images)
        seen = (images.expand(-1, 3, -1, -1) - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        answer: Tensor | MultiScaleLogits = self.network(seen)
        return answer

    def settings(self) -> dict[str, Any]:
        """The network's settings, or its class, and the numbers."""
        described = getattr(self.network, "settings", None)
        return {"network": type(self.network).__name__ if described is None else described(), **self._statistics}

    def extra_repr(self) -> str:
        """The constructor's numbers."""
        return ", ".join(f"{name}={numbers}" for name, numbers in self._statistics.items())
