r"""Values at points, written into logits, differentiably in the logits, the values and the points' positions.

A point between voxels is shared among its :math:`2^D` neighbours with multilinear weights :math:`w_i(v)`, which add up
to 1; at a voxel's centre it is that voxel's alone. With :math:`W = \sum_i w_i` and :math:`A = \sum_i w_i a_i` over the
valid points i with values a, a voxel's logit L becomes

.. math:: L + \frac{A}{\max(W, 1)} \;\text{("add")} \qquad L + \frac{A - W L}{\max(W, 1)} \;\text{("set")}

so one point on a voxel adds or sets its value, several on one voxel write their mean, and a point half on it does half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement.volume_checks import check_points, check_volume

Mode = Literal["add", "set"]


def write_points(
    logits: Float[Tensor, "b 1 *space"],
    positions: Float[Tensor, "b n d"],
    values: Float[Tensor, "b n"],
    valid: Bool[Tensor, "b n"],
    *,
    mode: Mode = "add",
) -> Float[Tensor, "b 1 *space"]:
    """Logits with values written at points, by the formula above.

    Voxels that no valid point touches keep their bits. Points of one voxel are added in a fixed order, so the result is
    the same on every run, on a GPU too. Beyond the result no tensor of the volume's size is made.

    Args:
        logits: (b, 1, d, h, w) or (b, 1, h, w), finite.
        positions: voxel indices in the order of the array's axes, whole or not (1.5 is between the second and the third
            voxel); those outside are moved to the border.
        values: logits to add, or to set.
        valid: False for padding, which writes nothing, whatever it holds.
        mode: "add" or "set".

    Returns:
        New logits, in the dtype of the old ones; sums are float32 or wider.

    Raises:
        ValueError: an unknown mode, logits that are not a finite volume, parts of different batches or axes, or a valid
            point whose position or value is not finite (read on a CPU only).

    Example:
        >>> logits = torch.zeros(1, 1, 1, 4)
        >>> positions = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, 2.25]]])
        >>> write_points(logits, positions, torch.tensor([[1.0, 3.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool))
        tensor([[[[2., 0., 3., 1.]]]])
    """
    if mode not in ("add", "set"):
        message = f'mode must be "add" or "set", but it is {mode!r}.'
        raise ValueError(message)
    check_volume(logits, "logits")
    size = tuple(logits.shape[2:])
    if positions.shape != (*values.shape, len(size)) or valid.shape != values.shape or len(values) != len(logits):
        message = (
            f"positions (b, n, {len(size)}), values (b, n) and valid (b, n) must fit logits {tuple(logits.shape)}, but "
            f"their shapes are {tuple(positions.shape)}, {tuple(values.shape)} and {tuple(valid.shape)}."
        )
        raise ValueError(message)
    check_points(positions, values, valid)
    return written(logits, positions, values, valid, mode=mode)


def written(logits: Tensor, positions: Tensor, values: Tensor, valid: Tensor, *, mode: Mode) -> Tensor:
    """`write_points` without its checks, for callers that have made them.

    Example:
        >>> one = torch.ones(1, 1)
        >>> written(torch.zeros(1, 1, 1, 2), torch.tensor([[[0.0, 1.0]]]), one, one > 0, mode="set")
        tensor([[[[0., 1.]]]])
    """
    size = tuple(logits.shape[2:])
    wide = torch.promote_types(torch.promote_types(logits.dtype, values.dtype), torch.float32)
    voxels, weights = _neighbours(positions.to(wide).masked_fill(~valid[..., None], 0.0), size)
    weights = weights.masked_fill(~valid[..., None], 0.0)
    shares = (weights * values.to(wide).masked_fill(~valid, 0.0)[..., None]).flatten(1)
    # Padding becomes a voxel of its own, past the end.
    voxels, order = voxels.masked_fill(~valid[..., None], math.prod(size)).flatten(1).sort(dim=1, stable=True)
    last = functional.pad(voxels[:, 1:] != voxels[:, :-1], (0, min(1, voxels.shape[1])), value=True)
    total = _sum_of_runs(weights.flatten(1).gather(1, order), voxels)
    amount = _sum_of_runs(shares.gather(1, order), voxels)
    padding = voxels == math.prod(size)
    voxels = voxels.masked_fill(padding, 0)
    flat = logits.flatten(1)
    if mode == "set":
        amount = amount - total * flat.gather(1, voxels).to(wide)
    change = amount / total.clamp(min=1)
    # Each voxel's change is added once; adding -0.0 changes no bit of any number.
    change = change.where(last & ~padding, -0.0)
    return flat.scatter_add(1, voxels, change.to(flat.dtype)).view_as(logits)


def written_voxels(
    positions: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"], size: Sequence[int]
) -> Bool[Tensor, "b 1 *space"]:
    """Where `write_points` writes: the voxels on which a valid point has a weight above 0.

    Args:
        positions: in voxel indices, fractions too.
        valid: False for padding.
        size: of the volume, (d, h, w) or (h, w).

    Returns:
        True where something is written.

    Example:
        >>> written_voxels(torch.tensor([[[0.0, 2.25]]]), torch.ones(1, 1, dtype=torch.bool), (1, 4))
        tensor([[[[False, False,  True,  True]]]])
    """
    voxels, weights = _neighbours(positions.detach().masked_fill(~valid[..., None], 0.0), size)
    touched = (weights > 0) & valid[..., None]
    written = torch.zeros(positions.shape[0], math.prod(size) + 1, dtype=torch.bool, device=positions.device)
    written.scatter_(1, voxels.masked_fill(~touched, math.prod(size)).flatten(1), True)
    return written[:, :-1].reshape(-1, 1, *size)


def _sum_of_runs(values: Tensor, keys: Tensor) -> Tensor:
    """Along sorted keys, the sum of each run of equal ones up to every place in it, in a fixed order."""
    step = 1
    while step < values.shape[1]:
        earlier = values[:, :-step].where(keys[:, :-step] == keys[:, step:], 0.0)
        values = values + functional.pad(earlier, (step, 0))
        step *= 2
    return values


def _neighbours(positions: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The raster indices of each point's 2^D neighbours, (b, n, 2^D), and their multilinear weights."""
    indices, weights = [], []
    for axis, side in enumerate(size):
        place = positions[..., axis].clamp(0, side - 1)
        low = place.detach().floor().clamp(max=max(side - 2, 0))
        part = place - low
        near = low.long()
        indices.append((near, (near + 1).clamp(max=side - 1)))
        weights.append((1 - part, part))
    voxels, shares = [], []
    for corner in product((0, 1), repeat=len(size)):
        raster, share = torch.zeros_like(indices[0][0]), torch.ones_like(weights[0][0])
        for axis, upper in enumerate(corner):
            raster = raster * size[axis] + indices[axis][upper]
            share = share * weights[axis][upper]
        voxels.append(raster)
        shares.append(share)
    return torch.stack(voxels, -1), torch.stack(shares, -1)
