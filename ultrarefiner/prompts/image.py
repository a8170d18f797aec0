"""AutoSAM's prompt generator: the image itself becomes the dense prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.checks import check_layout


class UpStep(nn.Module):
    """Coarse features up to a finer map's size, that map beside them, two convolutions with nothing between.

    Args:
        inputs: channels of the coarse features.
        skip: channels of the finer map, and of the output.
    """

    def __init__(self, inputs: int, skip: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs + skip, skip, 3, padding=1)
        self.conv2 = nn.Conv2d(skip, skip, 3, padding=1)
        self.norm = nn.BatchNorm2d(skip)

    def forward(self, coarse: Float[Tensor, "b c h w"], fine: Float[Tensor, "b s h2 w2"]) -> Float[Tensor, "b s h2 w2"]:
        """Features at the finer map's size."""
        raised = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        mixed = self.norm(self.conv2(self.conv1(torch.cat([raised, fine], 1))))
        return functional.leaky_relu(mixed, 0.01, inplace=True)


class FinalConvolutions(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and ReLU between.

    Args:
        inputs: channels.
        hidden: channels between the convolutions.
        outputs: channels.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Features of the same size."""
        mixed: Tensor = self.conv2(functional.relu(self.norm(self.conv1(features)), inplace=True))
        return mixed


class PyramidDecoder(nn.Module):
    """A feature pyramid to one map of its finest size, in (-1, 1).

    Args:
        levels: channels of the pyramid's maps, from fine to coarse.
        channels: of the output.
        hidden: channels between the last two convolutions.

    Example:
        >>> decoder = PyramidDecoder((8, 16), channels=32, hidden=8)
        >>> decoder((torch.rand(1, 8, 6, 8), torch.rand(1, 16, 3, 4))).shape
        torch.Size([1, 32, 6, 8])
    """

    def __init__(self, levels: Sequence[int], *, channels: int, hidden: int) -> None:
        super().__init__()
        coarse_to_fine = tuple(levels)[::-1]
        self.steps = nn.ModuleList(UpStep(coarse, fine) for coarse, fine in pairwise(coarse_to_fine))
        self.final = FinalConvolutions(coarse_to_fine[-1], hidden, channels)

    def forward(self, pyramid: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b o h w"]:
        """Decode, from the coarsest map to the finest."""
        features = pyramid[-1]
        for step, finer in zip(self.steps, tuple(pyramid)[-2::-1], strict=True):
            features = step(features, finer)
        return torch.tanh(self.final(features))


class PromptGenerator(nn.Module):
    """Turn an image into the dense embedding that takes the place of SAM's mask prompt.

    A backbone's features at 1/4, 1/8 and 1/16 are brought together at 1/4, squeezed into (-1, 1) by tanh, and
    resampled to the grid of SAM's image embedding. SAM stays as it is: this is all that AutoSAM trains.
    `build_autosam_generator` builds the published one.

    Args:
        backbone: images to feature maps from fine to coarse, with ``channels`` and ``strides`` of each, as `HarDNet`
            has them; `FeaturePyramid` gives them to a backbone of timm or torchvision.
        channels: of SAM's embeddings: 256 for the published sizes, 64 for "tiny".
        size: side of SAM's image embedding, or (rows, columns): 64 for the published sizes, 16 for "tiny".
        hidden: channels between the last two convolutions; None for as many as ``channels``.

    Raises:
        ValueError: the backbone does not say what it returns, or a number is below 1.

    Example:
        >>> from ultrarefiner.networks import build_hardnet
        >>> generator = PromptGenerator(build_hardnet("tiny"), channels=64, size=16)
        >>> generator(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64, 16, 16])

    Shaharabany et al., "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt Encoder", arXiv 2306.06370
    (github.com/talshaharabany/AutoSAM).
    """

    def __init__(
        self, backbone: nn.Module, *, channels: int = 256, size: int | Sequence[int] = 64, hidden: int | None = None
    ) -> None:
        super().__init__()
        levels, strides = _pyramid_of(backbone)
        self.size = _grid(size)
        hidden = channels if hidden is None else hidden
        if channels < 1 or hidden < 1:
            message = f"channels and hidden must be 1 or more, but they are {channels} and {hidden}."
            raise ValueError(message)
        self.backbone = backbone
        self.decoder = PyramidDecoder(levels, channels=channels, hidden=hidden)
        self.stride = strides[-1]

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o rows columns"]:
        """Generate.

        Args:
            images: grey or RGB, in SAM's frame: the picture must fill the square as it fills SAM's input, or the
                embedding lies elsewhere than the image's. Sides are multiples of the backbone's last stride, 16 for
                HarDNet. The published weights saw SAM's mean and standard deviation taken out, at 256 (GlaS), 512
                (MoNuSeg) or 352 (polyps) pixels.

        Returns:
            The embedding, in [-1, 1]. Under automatic mixed precision it comes in its dtype.

        Raises:
            ValueError: images of another rank, number of channels or dtype, or sides of other lengths.
        """
        self._check(images)
        embedding = self.decoder(self.backbone(images))
        return functional.interpolate(embedding, self.size, mode="bilinear", align_corners=True)

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        described = getattr(self.backbone, "settings", None)
        return {
            "backbone": described() if callable(described) else type(self.backbone).__name__,
            "channels": self.decoder.final.conv2.out_channels,
            "hidden": self.decoder.final.conv1.out_channels,
            "size": list(self.size),
        }

    def _check(self, images: Tensor) -> None:
        check_layout(images)
        dtype = self.decoder.final.conv1.weight.dtype
        if images.dtype != dtype and not torch.is_autocast_enabled(images.device.type):
            message = (
                f"images must have the dtype of the generator's weights, {dtype}, but theirs is {images.dtype}; "
                "convert them with .to(), or work under torch.autocast."
            )
            raise ValueError(message)
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            message = (
                f"images must have sides that are multiples of {self.stride}, but they are {height} x {width} pixels; "
                "resize them as a whole (SAM's input is square), or pad them as SAM's are padded."
            )
            raise ValueError(message)


def _pyramid_of(backbone: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of what a backbone returns."""
    channels: Any = getattr(backbone, "channels", None)
    strides: Any = getattr(backbone, "strides", None)
    fits = isinstance(channels, Sequence) and isinstance(strides, Sequence) and len(channels) == len(strides) > 0
    if not fits or list(strides) != sorted(set(strides)):
        message = (
            f"backbone must say the channels and strides of its maps, from fine to coarse, but this "
            f"{type(backbone).__name__} says {channels!r} and {strides!r}; wrap it in FeaturePyramid."
        )
        raise ValueError(message)
    return tuple(map(int, channels)), tuple(map(int, strides))


def _grid(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(sides) != 2 or any(not isinstance(side, Integral) or int(side) < 1 for side in sides):
        message = f"size must be a whole number from 1 on, or (rows, columns), but it is {size!r}."
        raise ValueError(message)
    return int(sides[0]), int(sides[1])
