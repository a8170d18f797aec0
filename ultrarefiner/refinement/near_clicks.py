"""Which voxels a click has something to say about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from ultrarefiner.types import Clicks


def near_clicks(clicks: Clicks, size: Sequence[int], *, radius: float) -> Bool[Tensor, "b 1 *space"]:
    """The voxels within a radius of any valid click: the balls that `select_errors` searches.

    Args:
        clicks: any number for each volume; without a valid one nothing is near.
        size: of the volume, (d, h, w) or (h, w).
        radius: Euclidean, in voxels.

    Example:
        >>> near_clicks(Clicks.at([(0, 1)], positive=[True]), (2, 4), radius=1.0)
        tensor([[[[ True,  True,  True, False],
                  [False,  True, False, False]]]])
    """
    batch, _, axes = clicks.positions.shape
    near = torch.zeros(batch, 1, *size, dtype=torch.bool, device=clicks.positions.device)
    # One click after the other: all at once would be a volume of distances for each.
    for position, valid in zip(clicks.positions.unbind(1), clicks.valid.unbind(1), strict=True):
        squared = torch.zeros(batch, *[1] * axes, dtype=torch.float32, device=near.device)
        for axis, side in enumerate(size):
            away = torch.arange(side, device=near.device) - position[:, axis, None]
            squared = squared + away.float().square().view(batch, *[side if at == axis else 1 for at in range(axes)])
        near |= ((squared <= radius**2 + 1e-6) & valid.view(-1, *[1] * axes))[:, None]
    return near
