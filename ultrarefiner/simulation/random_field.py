"""Smooth random fields with a set correlation length, from a few waves."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

WAVES = 32
"""Waves of a field; each takes three uniform numbers."""


def random_field(
    uniform: Float[Tensor, "n numbers"],
    length: Float[Tensor, " n"],
    x: Float[Tensor, "1 1 w"],
    y: Float[Tensor, "1 h 1"],
) -> Float[Tensor, "n h w"]:
    r"""Gaussian-like fields of mean 0 and variance 1, smooth, without a border or a grid of their own.

    A sum of plane waves with random directions, lengths and phases,

    .. math:: g(p) = \sqrt{2 / K} \sum_k \cos(\omega_k \cdot p + \beta_k), \quad
        \omega_k \sim N(0, \ell^{-2} I), \quad \beta_k \sim U(0, 2 \pi),

    whose expected autocorrelation is :math:`e^{-d^2 / 2 \ell^2}` at the distance d. Each wave is a product of a row and
    a column, so that a field is one small matrix product.

    Args:
        uniform: 3 `WAVES` numbers in (0, 1) for each field.
        length: :math:`\ell`, in pixels.
        x: columns' positions.
        y: rows' positions.

    Returns:
        The fields, float32. Each is the same bit for bit in any batch (on a CPU, in frames of more than one column).

    Example:
        >>> from ultrarefiner.ops.counter import counter_uniform
        >>> uniform = counter_uniform(0, torch.arange(2), 3 * WAVES)
        >>> x, y = torch.arange(6.0)[None, None], torch.arange(5.0)[None, :, None]
        >>> random_field(uniform, torch.tensor([2.0, 4.0]), x, y).shape
        torch.Size([2, 5, 6])

    Rahimi and Recht, "Random features for large-scale kernel machines", NeurIPS 2007.
    """
    first, angle, phase = uniform.reshape(len(uniform), 3, WAVES).unbind(1)
    speed = (-2 * first.log()).sqrt() / length[:, None]
    along_x = (speed * (2 * torch.pi * angle).cos())[..., None] * x + 2 * torch.pi * phase[..., None]
    along_y = (speed * (2 * torch.pi * angle).sin())[..., None, :] * y
    rows = torch.cat([along_y.cos(), -along_y.sin()], 2)
    columns = torch.cat([along_x.cos(), along_x.sin()], 1)
    return (rows @ columns) * math.sqrt(2 / WAVES)
