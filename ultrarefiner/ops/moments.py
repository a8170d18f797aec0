"""Mass, centroid and spread of a soft mask, in 2-D and 3-D, defined when it is empty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.ops.coordinates import accumulation_dtype, pixel_centres


@dataclass(frozen=True)
class Moments:
    """The first moments of a mask along each axis, axes in the order x, y (, z).

    Attributes:
        mass: sum of the mask, in pixels.
        centroid: weighted mean position, in pixel edges; the middle of the frame where the mass is 0.
        variance: weighted variance of the pixel centres, in pixels squared; 0 where the mass is 0.
    """

    mass: Float[Tensor, "*batch"]
    centroid: Float[Tensor, "*batch axes"]
    variance: Float[Tensor, "*batch axes"]


def moments(mask: Float[Tensor, "*shape"], *, axes: int = 2) -> Moments:
    r"""Mass, centroid and variance of every mask from its sums along the axes.

    .. math:: M = \sum_i m_i, \quad c_x = \frac{1}{M} \sum_x s_x x, \quad v_x = \frac{1}{M} \sum_x s_x (x - c_x)^2

    where :math:`s_x` is the mask's sum over all other axes. Everything after those sums works on vectors. Sums are in
    float32 or wider whatever the input's dtype. A mask without mass has its centroid in the middle of the frame,
    variance 0 and no gradient.

    Args:
        mask: non-negative weights; the last ``axes`` dimensions are space ((h, w) or (d, h, w)).
        axes: 2 or 3.

    Returns:
        The moments; ``centroid[..., 0]`` belongs to the last dimension (x).

    Example:
        >>> square = torch.zeros(1, 1, 6, 6)
        >>> square[..., 1:3, 2:6] = 1
        >>> moments(square).centroid
        tensor([[[4., 2.]]])
    """
    space = tuple(range(-axes, 0))
    wide = mask.to(accumulation_dtype(mask))
    sums = [wide.sum([other for other in space if other != axis]) for axis in reversed(space)]
    mass = sums[0].sum(-1)
    empty = mass == 0
    safe_mass = mass.masked_fill(empty, 1.0)[..., None]
    centroids, variances = [], []
    for along in sums:
        centres = pixel_centres(along.shape[-1], along)
        share = along / safe_mass
        centroid = (share * centres).sum(-1).masked_fill(empty, along.shape[-1] / 2)
        centroids.append(centroid)
        variances.append((share * (centres - centroid[..., None]) ** 2).sum(-1))
    return Moments(mass=mass, centroid=torch.stack(centroids, -1), variance=torch.stack(variances, -1))


def remove_floor(probability: Float[Tensor, "b k h w"], floor: float) -> Float[Tensor, "b k h w"]:
    r"""What is left of a soft mask above a floor f: :math:`q^2 / (q + f)` with :math:`q = \max(P - f, 0)`.

    Continuously differentiable, exactly 0 up to the floor, close to P - f well above it.

    Args:
        probability: soft masks in [0, 1].
        floor: f, at least 0; 0 changes nothing.

    Returns:
        In [0, 1], nowhere above the mask.

    Example:
        >>> remove_floor(torch.tensor([[[[0.01, 0.02, 1.0]]]]), 0.01)
        tensor([[[[0.0000, 0.0050, 0.9801]]]])
    """
    above = (probability - floor).clamp(min=0)
    return above.square() / (above + floor)
