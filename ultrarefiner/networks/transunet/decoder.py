"""The cascaded decoder: four times up by two, with the stem's features beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ConvNormReLU(nn.Sequential):
    """A 3 x 3 convolution, batch normalisation, ReLU.

    Args:
        inputs: channels.
        outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


class DecoderStage(nn.Module):
    """Up by two, the stem's features beside, two convolutions.

    Args:
        inputs: channels from below.
        skip: channels of the stem's features, 0 for none.
        outputs: channels.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNormReLU(inputs + skip, outputs)
        self.conv2 = ConvNormReLU(outputs, outputs)

    def forward(
        self, features: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s _ _"] | None
    ) -> Float[Tensor, "b o _ _"]:
        """Features at twice the resolution."""
        features = functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=True)
        if skip is not None:
            features = torch.cat([features, skip], 1)
        decoded: Tensor = self.conv2(self.conv1(features))
        return decoded


class CascadedDecoder(nn.Module):
    """A map at 1/16 to maps at 1/8, 1/4, 1/2 and 1.

    Args:
        inputs: channels of the map at 1/16.
        bridge: channels into the first stage.
        stages: channels out of each stage.
        skips: channels of the stem's features for each stage, from the coarsest; missing ones are none.

    Example:
        >>> decoder = CascadedDecoder(16, bridge=8, stages=(8, 4, 4, 2), skips=())
        >>> [tuple(stage.shape[1:]) for stage in decoder(torch.rand(1, 16, 2, 3), ())]
        [(8, 4, 6), (4, 8, 12), (4, 16, 24), (2, 32, 48)]

    Chen et al., "TransUNet", arXiv 2102.04306.
    """

    def __init__(self, inputs: int, *, bridge: int, stages: Sequence[int], skips: Sequence[int]) -> None:
        super().__init__()
        self.bridge = ConvNormReLU(inputs, bridge)
        below = (bridge, *stages[:-1])
        beside = (*skips, *(0 for _ in range(len(stages) - len(skips))))
        self.stages = nn.ModuleList(DecoderStage(*channels) for channels in zip(below, beside, stages, strict=True))

    def forward(
        self, features: Float[Tensor, "b c h w"], skips: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The map after each stage, coarse to fine."""
        features = self.bridge(features)
        maps = []
        for index, stage in enumerate(self.stages):
            features = stage(features, skips[index] if index < len(skips) else None)
            maps.append(features)
        return tuple(maps)
