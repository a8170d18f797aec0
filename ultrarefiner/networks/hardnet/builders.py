"""The builder of HarDNet: the numbers live here. It opens no file and asks no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ultrarefiner.networks.hardnet.blocks import ConvNormReLU6, HarDBlock
from ultrarefiner.networks.hardnet.model import HarDNet, HarDUnit

Size = Literal["hardnet85", "hardnet68", "tiny"]

Unit = tuple[int, int, int]
"""A unit's growth, its layers, and the channels that leave it."""


@dataclass(frozen=True)
class HarDNetSize:
    """The numbers of one size of HarDNet.

    Attributes:
        stem: channels after each of the stem's convolutions.
        stages: the units of the stages at 1/4, 1/8, 1/16 and 1/32.
        multiplier: how much wider each further link makes a layer.
    """

    stem: tuple[int, int]
    stages: tuple[tuple[Unit, ...], ...]
    multiplier: float = 1.7


SIZES = {
    "hardnet85": HarDNetSize(
        (48, 96),
        (
            ((24, 8, 192),),
            ((24, 16, 256), (28, 16, 320)),
            ((36, 16, 480), (48, 16, 720)),
            ((256, 4, 1280),),
        ),
    ),
    "hardnet68": HarDNetSize(
        (32, 64),
        (
            ((14, 8, 128),),
            ((16, 16, 256), (20, 16, 320)),
            ((40, 16, 640),),
            ((160, 4, 1024),),
        ),
    ),
    "tiny": HarDNetSize((16, 24), (((8, 4, 32),), ((8, 8, 48),), ((12, 8, 64),), ((24, 4, 96),))),
}

STRIDES = (4, 8, 16, 32)


def build_hardnet(size: Size = "hardnet85", *, deepest: Literal[4, 8, 16, 32] = 16) -> HarDNet:
    """Build HarDNet without its classifier, with random weights; `ultrarefiner.load_weights` fills it.

    Args:
        size: "hardnet85" and "hardnet68" are published; "tiny" (0.2 million parameters to 1/16) is for tests, examples
            and laptops.
        deepest: stride of the last stage. 16 is all that AutoSAM looks at; 32 is the whole backbone, whose last stage
            holds half of HarDNet-85's 35.4 million parameters.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: an unknown size or stride.

    Example:
        >>> import torch
        >>> [tuple(features.shape[1:]) for features in build_hardnet("tiny")(torch.rand(1, 3, 64, 96))]
        [(32, 16, 24), (48, 8, 12), (64, 4, 6)]

    Chao et al., "HarDNet: A Low Memory Traffic Network", arXiv 1909.00948.
    """
    numbers, depth = _numbers(size, deepest)
    channels = numbers.stem[1]
    stages = []
    for units in numbers.stages[:depth]:
        stage = []
        for growth, layers, outputs in units:
            block = HarDBlock(channels, growth=growth, layers=layers, multiplier=numbers.multiplier)
            stage.append(HarDUnit(block, outputs))
            channels = outputs
        stages.append(stage)
    stem = nn.Sequential(ConvNormReLU6(3, numbers.stem[0], stride=2), ConvNormReLU6(*numbers.stem))
    return HarDNet(stem=stem, stages=stages, name=size)


def _numbers(size: Any, deepest: Any) -> tuple[HarDNetSize, int]:
    if not isinstance(size, str) or size not in SIZES:
        message = f"size must be one of {', '.join(SIZES)}, but it is {size!r}."
        raise ValueError(message)
    if deepest not in STRIDES:
        message = f"deepest must be one of the strides {', '.join(map(str, STRIDES))}, but it is {deepest!r}."
        raise ValueError(message)
    return SIZES[size], STRIDES.index(deepest) + 1
