"""HarDNet as a feature pyramid: images to features at 1/4, 1/8, 1/16 and, if built, 1/32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.networks.hardnet.blocks import ConvNormReLU6, HarDBlock
from ultrarefiner.ops.checks import check_layout


class HarDUnit(nn.Module):
    """A `HarDBlock`, and a 1 x 1 convolution after it.

    Args:
        block: the block.
        outputs: channels after the convolution.

    Attributes:
        channels: of the output.
    """

    def __init__(self, block: HarDBlock, outputs: int) -> None:
        super().__init__()
        self.block = block
        self.transition = ConvNormReLU6(block.channels, outputs, 1)
        self.channels = outputs

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Features of the same size."""
        mixed: Tensor = self.transition(self.block(features))
        return mixed


class HarDNet(nn.Module):
    """Images to features at 1/4, 1/8, 1/16 …; `build_hardnet` holds the numbers.

    A stem halves the image; a max-pooling before each stage halves again.

    Args:
        stem: two convolutions, the first with stride 2.
        stages: the units of each stage, from 1/4 on.
        name: which published size this is, for `settings`.

    Attributes:
        channels: of each stage's features.
        strides: image pixels a feature, on each axis, of each stage.

    Chao et al., "HarDNet: A Low Memory Traffic Network", arXiv 1909.00948 (github.com/PingoLH/Pytorch-HarDNet). Its
    dropout before the stage at 1/32 ends is left out.
    """

    def __init__(self, *, stem: nn.Sequential, stages: Sequence[Sequence[HarDUnit]], name: str = "custom") -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(nn.Sequential(*units) for units in stages)
        self.channels = tuple(units[-1].channels for units in stages)
        self.strides = tuple(4 * 2**index for index in range(len(stages)))
        self.name = name

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Features, from fine to coarse.

        Args:
            images: grey (seen as three equal colours) or RGB; height and width are multiples of the last stride.
                ImageNet's weights saw ImageNet's mean and standard deviation taken out.

        Returns:
            One map for each of ``strides``, with as many ``channels``. Under automatic mixed precision they come in its
            dtype.

        Raises:
            ValueError: images of another rank, number of channels or dtype, or sides of other lengths.
        """
        self._check(images)
        features = self.stem(images.expand(-1, 3, -1, -1))
        pyramid: list[Tensor] = []
        for stage in self.stages:
            # The first pooling sees one pixel more to each side.
            features = functional.max_pool2d(features, 2) if pyramid else functional.max_pool2d(features, 3, 2, 1)
            features = stage(features)
            pyramid.append(features)
        return tuple(pyramid)

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        return {"name": self.name, "channels": list(self.channels), "strides": list(self.strides)}

    def _check(self, images: Tensor) -> None:
        check_layout(images)
        dtype = next(self.stem.parameters()).dtype
        if images.dtype != dtype and not torch.is_autocast_enabled(images.device.type):
            message = (
                f"images must have the dtype of the network's weights, {dtype}, but theirs is {images.dtype}; convert "
                "them with .to(), or work under torch.autocast."
            )
            raise ValueError(message)
        height, width = images.shape[-2:]
        if height % self.strides[-1] or width % self.strides[-1]:
            message = (
                f"images must have sides that are multiples of {self.strides[-1]}, but they are {height} x {width} "
                "pixels; resize or pad them."
            )
            raise ValueError(message)
