"""The convolutional stem: a ResNet with standardised weights and group normalisation, to a sixteenth of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class StandardizedConv2d(nn.Conv2d):
    r"""A convolution without bias whose weights have mean 0 and variance 1 for each output channel.

    .. math:: \hat w = (w - \mu) / \sqrt{\sigma^2 + 10^{-5}}, \quad \mu, \sigma^2 \text{ over input channels and kernel}

    A grey image is seen as one of three equal colours: the standardised weights are summed over the colours, which
    is the same number for a third of the work.

    Args:
        inputs: channels.
        outputs: channels.
        kernel_size: of a square kernel, odd; the image is padded by half of it with zeros.
        stride: 1 or 2.

    Example:
        >>> import torch
        >>> layer = StandardizedConv2d(3, 4, 7, stride=2)
        >>> grey = torch.rand(1, 1, 8, 8)
        >>> torch.allclose(layer(grey), layer(grey.expand(1, 3, 8, 8)), atol=1e-5)
        True

    Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", arXiv 1903.10520.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Convolve."""
        # Layer normalisation of each filter is exactly this, in one kernel.
        weight = functional.layer_norm(self.weight, self.weight.shape[1:], eps=1e-5)
        if input.shape[1] == 1 < self.in_channels:
            weight = weight.sum(1, keepdim=True)
        return functional.conv2d(input, weight, stride=self.stride, padding=self.padding)


class GroupNorm(nn.GroupNorm):
    """PyTorch's, for a single pixel, too: one value has no spread, so the answer is the bias.

    ``nn.GroupNorm`` refuses that in evaluation as in training, and the smallest image, 16 x 16, comes down to it.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions beside a shortcut. The activation follows the sum, whatever "V2" promises.

    Args:
        inputs: channels.
        middle: channels between the convolutions; four times as many come out.
        stride: of the 3 x 3 convolution and the shortcut.
        groups: of the group normalisations.
    """

    def __init__(self, inputs: int, middle: int, *, stride: int, groups: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1 = StandardizedConv2d(inputs, middle, 1)
        self.norm1 = GroupNorm(groups, middle, eps=1e-6)
        self.conv2 = StandardizedConv2d(middle, middle, 3, stride=stride)
        self.norm2 = GroupNorm(groups, middle, eps=1e-6)
        self.conv3 = StandardizedConv2d(middle, outputs, 1)
        self.norm3 = GroupNorm(groups, outputs, eps=1e-6)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            # One group a channel: the published code normalises the projection so.
            self.shortcut = nn.Sequential(
                StandardizedConv2d(inputs, outputs, 1, stride=stride), GroupNorm(outputs, outputs)
            )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Features and what the block adds to them."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        hidden = functional.relu(self.norm2(self.conv2(hidden)))
        return functional.relu(self.norm3(self.conv3(hidden)) + self.shortcut(features), inplace=True)


class ResNetV2Stem(nn.Module):
    """Image to features at 1/16, with those at 1/2, 1/4 and 1/8 for the decoder.

    Args:
        width: channels after the first convolution; 16 times as many come out.
        units: bottlenecks of the stages at 1/4, 1/8 and 1/16.
        groups: of the group normalisations.

    Example:
        >>> import torch
        >>> features, skips = ResNetV2Stem(width=8, units=(1, 1, 1), groups=4)(torch.rand(1, 1, 32, 48))
        >>> features.shape, [tuple(skip.shape[1:]) for skip in skips]
        (torch.Size([1, 128, 2, 3]), [(64, 4, 6), (32, 8, 12), (8, 16, 24)])

    Kolesnikov et al., "Big Transfer (BiT)", ECCV 2020; as cut off by Chen et al., "TransUNet", arXiv 2102.04306.
    """

    def __init__(self, *, width: int = 64, units: Sequence[int] = (3, 4, 9), groups: int = 32) -> None:
        super().__init__()
        self.conv = StandardizedConv2d(3, width, 7, stride=2)
        self.norm = GroupNorm(groups, width, eps=1e-6)
        stages, channels = [], width
        for index, count in enumerate(units):
            middle = width * 2**index
            blocks = [
                Bottleneck(
                    channels if unit == 0 else 4 * middle,
                    middle,
                    stride=2 if unit == 0 and index > 0 else 1,
                    groups=groups,
                )
                for unit in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            channels = 4 * middle
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.skip_channels = (8 * width, 4 * width, width)

    def forward(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b o h16 w16"], tuple[Float[Tensor, "b _ _ _"], ...]]:
        """Features at 1/16, and skips from the coarsest to the finest."""
        half = functional.relu(self.norm(self.conv(images)))
        quarter = self.stages[0](functional.max_pool2d(half, 3, stride=2))
        eighth = self.stages[1](quarter)
        # The pooling is not padded, so this map lacks a row and a column. The decoder gets them as zeros; the next
        # stage does not, and comes out right because its stride drops them.
        return self.stages[2](eighth), (eighth, functional.pad(quarter, (0, 1, 0, 1)), half)
