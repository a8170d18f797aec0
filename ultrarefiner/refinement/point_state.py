"""What a correction is told about its points at a click: one row of features for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.refinement.point_selection import SelectedPoints


@dataclass(frozen=True)
class PointState:
    """The 2K points of one click: K uncertain ones, then K errors.

    Attributes:
        features: the two sets of rows, see `build_state`.
        indices: voxel indices in the order of the array's axes; 0 at padding.
        valid: False at padding.
    """

    features: Float[Tensor, "b 2 k f"]
    indices: Int[Tensor, "b points d"]
    valid: Bool[Tensor, "b points"]

    def sequence(self) -> Float[Tensor, "b 2 kf"]:
        """Two steps in time, uncertain rows first: what a recurrent network reads."""
        return self.features.flatten(2)


def unit_coordinates(indices: Int[Tensor, "b n d"], size: Sequence[int]) -> Float[Tensor, "b n d"]:
    """Voxel indices over the last index of each axis: the first voxel is 0, the last is 1; float32.

    An axis of a single voxel has the coordinate 0.

    Args:
        indices: of voxels, in the order of the array's axes.
        size: of the volume, (d, h, w) or (h, w).

    Returns:
        In [0, 1] for voxels inside.

    Example:
        >>> unit_coordinates(torch.tensor([[[0, 2, 0]]]), (3, 5, 1))
        tensor([[[0.0000, 0.5000, 0.0000]]])
    """
    # Made on the device, side by side, so that nothing is copied to it.
    return torch.stack([indices[..., axis] / max(side - 1, 1) for axis, side in enumerate(size)], -1).float()


def build_state(
    uncertain: SelectedPoints, errors: SelectedPoints, context: Float[Tensor, "b d"], size: Sequence[int]
) -> PointState:
    """The features of each point: D coordinates, what is known, a mask, and D coordinates of the first click.

    With D = 3 that makes the 8 numbers of the seed, with D = 2 there are 6:

    * the voxel's coordinates in [0, 1], see `unit_coordinates`; 0 at padding;
    * an uncertain voxel's probability, with its gradient; an error's label, 1 for object and 0 for background; 0 at
      padding;
    * 1 for a point, 0 for padding;
    * the first click's coordinates, in every row.

    Args:
        uncertain: from `select_uncertain`.
        errors: from `select_errors`, as many.
        context: the first click's coordinates in [0, 1]; 0 where there was none.
        size: of the volume, (d, h, w) or (h, w).

    Returns:
        The features, 2K rows for each volume, uncertain points first.

    Raises:
        ValueError: there are not as many errors as uncertain points, or the errors have no labels.

    Example:
        >>> from ultrarefiner.refinement import select_errors, select_uncertain
        >>> from ultrarefiner.types import Clicks
        >>> probability = torch.tensor([[[[0.9, 0.6, 0.1]]]])
        >>> clicks = Clicks.at([(0, 1)], positive=[False])
        >>> uncertain = select_uncertain(probability, count=1)
        >>> errors = select_errors(probability, clicks, count=1, radius=1.0)
        >>> build_state(uncertain, errors, torch.tensor([[0.0, 0.5]]), (1, 3)).features
        tensor([[[[0.0000, 0.5000, 0.6000, 1.0000, 0.0000, 0.5000]],
                 [[0.0000, 0.5000, 0.0000, 1.0000, 0.0000, 0.5000]]]])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction (its state X_t).
    """
    if errors.positive is None or errors.valid.shape != uncertain.valid.shape:
        message = (
            "errors must come from select_errors with the count of the uncertain points, but their shapes are "
            f"{tuple(errors.valid.shape)} and {tuple(uncertain.valid.shape)}"
            f"{' and the errors have no labels' if errors.positive is None else ''}."
        )
        raise ValueError(message)
    known = (uncertain.probability, errors.positive.to(uncertain.probability.dtype))
    rows = [
        torch.cat(
            [
                unit_coordinates(points.indices, size).to(value.dtype),
                torch.stack([value, points.valid.to(value.dtype)], -1),
                context.to(value.dtype)[:, None].expand(-1, value.shape[1], -1),
            ],
            -1,
        )
        for points, value in zip((uncertain, errors), known, strict=True)
    ]
    return PointState(
        torch.stack(rows, 1),
        torch.cat([uncertain.indices, errors.indices], 1),
        torch.cat([uncertain.valid, errors.valid], 1),
    )
