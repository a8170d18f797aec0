"""HarDNet's parts: a convolution with its activation, and the block whose links follow the powers of two."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvNormReLU6(nn.Module):
    """A convolution without bias, batch normalisation, ReLU6.

    Args:
        inputs: channels.
        outputs: channels.
        kernel_size: of a square kernel, odd; the image is padded by half of it with zeros.
        stride: of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU6(inplace=True)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Convolve, normalise, cut off below 0 and above 6."""
        activated: Tensor = self.activation(self.norm(self.conv(features)))
        return activated


def harmonic_links(layer: int) -> tuple[int, ...]:
    r"""The layers whose outputs a layer sees: :math:`l - 2^i` for every :math:`2^i` that divides :math:`l`.

    Args:
        layer: l, counted from 1; 0 is the block's input.

    Returns:
        The nearest first.

    Example:
        >>> harmonic_links(1), harmonic_links(6), harmonic_links(8)
        ((0,), (5, 4), (7, 6, 4, 0))
    """
    powers = (2**exponent for exponent in range(layer.bit_length()))
    return tuple(layer - power for power in powers if layer % power == 0)


def harmonic_channels(layer: int, *, growth: int, multiplier: float) -> int:
    r"""Channels out of a layer: :math:`k m^{n - 1}` for n links, rounded to an even number.

    Args:
        layer: l, counted from 1.
        growth: k, channels of a layer with one link.
        multiplier: m, above 1; layers that more others see are wider.

    Example:
        >>> [harmonic_channels(layer, growth=24, multiplier=1.7) for layer in (1, 2, 4, 8)]
        [24, 40, 70, 118]
    """
    # Multiplied link by link: the published widths hang on how the product is rounded.
    channels = float(growth)
    for _ in harmonic_links(layer)[1:]:
        channels *= multiplier
    return int(int(channels + 1) / 2) * 2


class HarDBlock(nn.Module):
    """Convolutions that see some of those before them; out come every other one and the last, side by side.

    Which layers see which is `harmonic_links`; how wide they are is `harmonic_channels`. The block's input is not
    among its outputs.

    Args:
        inputs: channels.
        growth: channels of a layer with one link.
        layers: how many convolutions; even, as in all published networks.
        multiplier: how much wider each further link makes a layer.

    Attributes:
        channels: of the output.

    Raises:
        ValueError: ``layers`` is odd or below 2.

    Example:
        >>> import torch
        >>> HarDBlock(96, growth=24, layers=8)(torch.rand(1, 96, 4, 4)).shape
        torch.Size([1, 214, 4, 4])

    Chao et al., "HarDNet: A Low Memory Traffic Network", arXiv 1909.00948.
    """

    def __init__(self, inputs: int, *, growth: int, layers: int, multiplier: float = 1.7) -> None:
        super().__init__()
        if layers < 2 or layers % 2:
            message = f"layers must be even and at least 2, but it is {layers}; take {max(2, layers + layers % 2)}."
            raise ValueError(message)
        widths = [inputs]
        convolutions = []
        self.links = tuple(harmonic_links(layer) for layer in range(1, layers + 1))
        for layer, links in enumerate(self.links, 1):
            widths.append(harmonic_channels(layer, growth=growth, multiplier=multiplier))
            convolutions.append(ConvNormReLU6(sum(widths[link] for link in links), widths[layer]))
        self.layers = nn.ModuleList(convolutions)
        self.kept = (*range(1, layers, 2), layers)
        self.channels = sum(widths[layer] for layer in self.kept)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """The odd layers' outputs and the last one's.

        Args:
            features: of the block's input channels.

        Returns:
            On the same raster, with ``out_channels`` channels.
        """
        outputs = [features]
        for links, layer in zip(self.links, self.layers, strict=True):
            outputs.append(layer(torch.cat([outputs[link] for link in links], 1)))
        return torch.cat([outputs[layer] for layer in self.kept], 1)
