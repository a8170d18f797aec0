"""Linear resampling as two small matrices: exact for any scale and padding, antialiased, differentiable, batched.

A resize of axis-aligned pixels is separable and linear, so it is ``rows @ picture @ columns.T``. Several resizes in a
row are one: their matrices are multiplied first, and the large picture between them is never made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.ops.coordinates import accumulation_dtype, pixel_centres


def linear_weights(
    inputs: int, outputs: int, *, scale: float, like: Tensor, antialias: bool = False
) -> Float[Tensor, "outputs inputs"]:
    r"""The matrix that resamples a row of ``inputs`` pixels to ``outputs`` pixels with a linear (triangle) kernel.

    Output pixel u looks at the input coordinate :math:`(u + 1/2) / s`; the weight of input pixel i is
    :math:`\max(0, 1 - |(u + 1/2)/s - (i + 1/2)| / r)`, rows normalised to sum 1. The radius r is 1, or with
    ``antialias`` :math:`\max(1, 1/s)`. Rows of output pixels whose centre lies past the last input pixel are zero:
    padding.

    Args:
        inputs: number of input pixels.
        outputs: number of output pixels.
        scale: output pixels an input pixel, s.
        like: a tensor whose device and (widened) dtype the matrix takes.
        antialias: whether shrinking averages over all input pixels that an output pixel covers.

    Returns:
        The weights; with ``scale = outputs / inputs`` they are those of ``torch.nn.functional.interpolate``.

    Example:
        >>> linear_weights(2, 4, scale=2.0, like=torch.zeros(1))
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 1.0000]])
    """
    centres = pixel_centres(outputs, like) / scale
    radius = max(1.0, 1.0 / scale) if antialias else 1.0
    distance = (centres[:, None] - pixel_centres(inputs, like)[None, :]).abs()
    weights = (1 - distance / radius).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    return weights * (centres < inputs)[:, None]


def apply_weights(
    picture: Float[Tensor, "*batch h w"], rows: Float[Tensor, "new_h h"], columns: Float[Tensor, "new_w w"]
) -> Float[Tensor, "*batch new_h new_w"]:
    """Resample a picture: ``rows @ picture @ columns.T``, in float32 or wider, whatever autocast says.

    Args:
        picture: any pictures.
        rows: weights of the old rows in each new one, from `linear_weights`.
        columns: the same of the columns.

    Returns:
        The pictures on the new raster.

    Example:
        >>> apply_weights(torch.ones(1, 1, 2, 2), torch.full((1, 2), 0.5), torch.full((3, 2), 0.5)).shape
        torch.Size([1, 1, 1, 3])
    """
    with torch.autocast(picture.device.type, enabled=False):
        return rows @ (picture.to(accumulation_dtype(picture)) @ columns.T)


def resize_linear(volume: Float[Tensor, "*batch d h w"], size: Sequence[int]) -> Float[Tensor, "*batch _ _ _"]:
    """Resample a volume to a size with the triangle kernel, antialiased on every axis that shrinks; float32 or wider.

    Each voxel of the result averages all that it covers, so nothing thin appears or vanishes by where it happens to lie
    between two centres. An axis that grows is interpolated linearly, one that stays is left as it is.

    Args:
        volume: grey values.
        size: (slices, rows, columns) of the result.

    Example:
        >>> lines = torch.zeros(1, 2, 4, 16)
        >>> lines[..., 3::8] = 1.0
        >>> resize_linear(lines, (2, 4, 2))[0, 0, 0]
        tensor([0.1429, 0.1339])
    """
    with torch.autocast(volume.device.type, enabled=False):
        found = volume.to(accumulation_dtype(volume))
        for axis in (-1, -2, -3):
            inputs, outputs = int(volume.shape[axis]), int(size[axis])
            if inputs != outputs:
                weights = linear_weights(inputs, outputs, scale=outputs / inputs, like=found, antialias=True)
                found = (found.movedim(axis, -1) @ weights.T).movedim(-1, axis)
        return found.contiguous()
