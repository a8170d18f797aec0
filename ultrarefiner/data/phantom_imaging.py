"""What a scanner makes of tissue: interference of scatterers, envelope, logarithm."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def speckle_image(
    level: Float[Tensor, "h w"],
    generator: torch.Generator,
    *,
    axial: float,
    lateral: float,
    looks: int,
    dynamic_range: float,
) -> Float[Tensor, "h w"]:
    r"""A B-mode picture of a map of echo levels.

    Every pixel holds scatterers whose sum z is complex normal; the beam h adds neighbours up, weighted by a
    Gaussian. The picture is the logarithm of the intensity, averaged over independent looks as compounding
    scanners do:

    .. math:: I = \frac{10}{R} \log_{10} \frac{1}{n} \sum_{i=1}^{n} |\, h * (10^{L / 20} z_i) \,|^2 + 0.4

    where L is the level less its mean. Speckle is multiplicative: where the level is flat, the envelope of
    one look is Rayleigh distributed, with a mean that is proportional to the amplitude.

    Args:
        level: in decibels; adding a constant changes nothing.
        generator: for the scatterers z.
        axial: standard deviation of the beam along depth, in pixels.
        lateral: the same across.
        looks: how many are averaged, n; 1 is full speckle.
        dynamic_range: decibels between black and white, R.

    Returns:
        The picture, in [0, 1].

    Example:
        >>> beam = {"axial": 1.0, "lateral": 2.0, "looks": 3, "dynamic_range": 50.0}
        >>> flat = speckle_image(torch.zeros(64, 64), torch.Generator(), **beam)
        >>> 0.35 < flat.mean().item() < 0.45
        True
    """
    amplitude = 10 ** ((level - level.mean()) / 20)
    intensity = torch.stack(
        [rayleigh_envelope(amplitude, generator, axial=axial, lateral=lateral).square() for _ in range(looks)]
    ).mean(0)
    decibels = intensity.clamp(min=1e-9).log() * (10 / math.log(10))
    return (decibels / dynamic_range + 0.4).clamp(0, 1)


def rayleigh_envelope(
    amplitude: Float[Tensor, "h w"], generator: torch.Generator, *, axial: float, lateral: float
) -> Float[Tensor, "h w"]:
    """The envelope of one look: Rayleigh distributed, its mean square the amplitude's where that is flat.

    Example:
        >>> envelope = rayleigh_envelope(torch.ones(200, 200), torch.Generator(), axial=1.0, lateral=2.0)
        >>> round((envelope**2).mean().item(), 1)
        1.0
    """
    rows, columns = _gaussian(axial), _gaussian(lateral)
    margins = (len(columns) // 2, len(columns) // 2, len(rows) // 2, len(rows) // 2)
    padded = functional.pad(amplitude[None, None], margins, mode="replicate")[0] * math.sqrt(0.5)
    echoes = torch.randn(2, *padded.shape[-2:], generator=generator) * padded
    echoes = _weighted_sum(echoes, rows, dim=1)
    echoes = _weighted_sum(echoes, columns, dim=2)
    return torch.hypot(echoes[0], echoes[1])


def _gaussian(sigma: float) -> list[float]:
    """A Gaussian whose squares sum to 1, so that blurred white noise keeps its variance."""
    reach = max(1, math.ceil(2.5 * sigma))
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1)]
    norm = math.sqrt(sum(weight**2 for weight in weights))
    return [weight / norm for weight in weights]


def _weighted_sum(picture: Tensor, weights: list[float], *, dim: int) -> Tensor:
    """A convolution without padding; with few weights, shifts are faster than conv2d on a CPU."""
    length = picture.shape[dim] - len(weights) + 1
    total = picture.narrow(dim, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        total.add_(picture.narrow(dim, start, length), alpha=weight)
    return total
