"""What the heads of a correction are told about each point beside the memory: its logit, and its way from the click."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.refinement.point_selection import values_at
from ultrarefiner.refinement.point_state import PointState
from ultrarefiner.types import Clicks

_LOGIT = 16.0  # where a logit begins to count as sure
_REACHES = (1.0, 2.0, 4.0, 8.0)  # voxels: how far what a click says is carried


def row_length(dimensions: int) -> int:
    """How many numbers `point_rows` has for a point.

    Example:
        >>> row_length(3)
        18
    """
    return 3 * dimensions + 5 + len(_REACHES)


def point_rows(
    points: PointState, logits: Float[Tensor, "b 1 *space"], clicks: Clicks, *, radius: float
) -> Float[Tensor, "b points f"]:
    r"""What is known of each of 2K points, in 3D + 9 numbers.

    * its features in the state (`build_state`): coordinates, probability or label, mask, the first click's coordinates;
    * its logit z as :math:`\tanh(z / 16)`, with its gradient: how sure the network is of it;
    * the way to it from the nearest valid click, for an error of those that call it one; D numbers in units of the
      radius;
    * what that click says, l = 1 for object and -1 for background, and how much it says of a point d voxels away,
      :math:`l \exp(-d^2 / 2 s^2)` for s of 1, 2, 4 and 8 voxels;
    * 1 for an error, -1 for an uncertain voxel.

    Padding is 0 throughout, but for the state's context.

    Args:
        points: of these logits and clicks.
        logits: (b, 1, d, h, w) or (b, 1, h, w).
        clicks: that the points were chosen by; without a valid one the way is 0.
        radius: in voxels; under 1 it counts as 1.

    Example:
        >>> from ultrarefiner.refinement import GRUCorrection
        >>> logits, clicks = torch.randn(1, 1, 9, 9), Clicks.at([(3, 4)], positive=[True])
        >>> found = GRUCorrection(points=5, hidden=4, dimensions=2)(logits, clicks).points
        >>> point_rows(found, logits, clicks, radius=3.0).shape
        torch.Size([1, 10, 15])
    """
    features = points.features.flatten(1, 2)
    valid = points.valid[..., None].to(features.dtype)
    way = (points.indices[:, :, None] - clicks.positions[:, None]).to(features.dtype)  # (b, points, clicks, D)
    told = features.new_zeros(*features.shape[:2], points.indices.shape[-1] + 1 + len(_REACHES))
    if way.shape[2]:
        # An error is told of the nearest click that calls it one, whatever other clicks are nearer.
        predicted = values_at(logits.detach(), points.indices) > 0
        agrees = (predicted[..., None] == clicks.positive[:, None]) & _are_errors(points)[None, :, None]
        apart = way.square().sum(-1).masked_fill(~clicks.valid[:, None] | agrees, torch.inf)
        squared, nearest = apart.min(2)
        way = way.gather(2, nearest[..., None, None].expand(-1, -1, 1, way.shape[-1]))[:, :, 0] / max(radius, 1.0)
        says = clicks.positive.to(features.dtype).mul(2).sub(1).gather(1, nearest)
        near = [says * torch.exp(-squared / (2 * reach**2)) for reach in _REACHES]
        told = torch.cat([way, torch.stack([says, *near], -1)], -1) * clicks.valid.any(1)[:, None, None]
    sure = torch.tanh(values_at(logits, points.indices).to(features.dtype) / _LOGIT)
    kind = _are_errors(points).to(sure.dtype).mul(2).sub(1).expand_as(sure)
    return torch.cat([features, torch.cat([sure[..., None], told, kind[..., None]], -1) * valid], -1)


def _are_errors(points: PointState) -> Tensor:
    """Of 2K points the second half."""
    count = points.valid.shape[1]
    return torch.arange(count, device=points.valid.device) >= count // 2
