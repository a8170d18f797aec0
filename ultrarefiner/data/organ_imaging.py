"""What a CT scanner makes of tissue: partial volume, a smooth bias, correlated noise."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

AIR = -1000.0  # HU

_BLUR = 0.6  # pixels: the standard deviation in the plane of a slice
_BIAS = 0.03  # of the density: how far the bias field goes at one standard deviation


def scan_of(
    density: Float[Tensor, "d h w"], generator: torch.Generator, *, thickness: float = 1.0
) -> Float[Tensor, "1 d h w"]:
    r"""A scan of a map of densities, in HU.

    .. math:: I = (1 + 0.03\, b)\,\bigl(G * (\rho + 1000)\bigr) - 1000 + \sigma n

    where G is a Gaussian of 0.6 pixels in the plane and ``0.6 / thickness`` slices across it, b a smooth field of unit
    variance, n noise that the same blur has correlated, of unit variance, and :math:`\sigma` is drawn between 8 and
    22 HU for each scan. Results stay above -1024.

    Args:
        density: :math:`\rho`, in HU; every voxel is of one tissue.
        generator: for the noise and the field.
        thickness: of a slice, in sides of a pixel; thick slices blur into one another less.

    Example:
        >>> scan = scan_of(torch.full((16, 16, 16), 40.0), torch.Generator().manual_seed(0))
        >>> scan.shape, -10 < scan.mean().item() < 90
        (torch.Size([1, 16, 16, 16]), True)
    """
    sigmas = (_BLUR / thickness, _BLUR, _BLUR)
    seen = blurred(density - AIR, sigmas)
    bias = smooth_field((3, 3, 3), tuple(density.shape), generator)
    noise = blurred(torch.randn(density.shape, generator=generator), sigmas)
    loudness = 8 + 14 * torch.rand((), generator=generator)
    image = seen * (1 + _BIAS * bias) + AIR + loudness * noise / math.prod(_kept(sigma) for sigma in sigmas)
    return image.clamp(min=-1024.0)[None]


def blurred(volume: Float[Tensor, "d h w"], sigmas: tuple[float, ...]) -> Float[Tensor, "d h w"]:
    """A Gaussian blur, axis by axis, the border repeated; a sigma under 0.2 voxels does nothing.

    Example:
        >>> round(blurred(torch.ones(4, 4, 4), (1.0, 1.0, 0.0)).mean().item(), 4)
        1.0
    """
    for axis, sigma in enumerate(sigmas):
        weights = _gaussian(sigma)
        reach = len(weights) // 2
        side = volume.shape[axis]
        index = torch.arange(-reach, side + reach).clamp(0, side - 1)
        padded = volume.index_select(axis, index)
        result = torch.zeros_like(volume)
        for start, weight in enumerate(weights):
            result.add_(padded.narrow(axis, start, side), alpha=weight)
        volume = result
    return volume


def smooth_field(nodes: tuple[int, ...], size: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "d h w"]:
    """Noise of about unit variance that is smooth: normal numbers on a few nodes, interpolated between them.

    Example:
        >>> smooth_field((2, 2, 2), (8, 8, 8), torch.Generator()).shape
        torch.Size([8, 8, 8])
    """
    values = torch.randn(nodes, generator=generator)[None, None]
    field: Tensor = functional.interpolate(values, size=size, mode="trilinear", align_corners=True)[0, 0]
    return field


def _gaussian(sigma: float) -> list[float]:
    """Weights that sum to 1."""
    if sigma < 0.2:
        return [1.0]
    reach = max(1, math.ceil(2.5 * sigma))
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-reach, reach + 1)]
    return [weight / sum(weights) for weight in weights]


def _kept(sigma: float) -> float:
    """What is left of the standard deviation of white noise."""
    return math.sqrt(sum(weight**2 for weight in _gaussian(sigma)))
