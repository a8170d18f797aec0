"""True masks as their edits see them: signed distances, sizes, and points drawn inside and around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.ops.distance import signed_distance


@dataclass(frozen=True)
class Lesions:
    """n lesions with their measures. Lengths are in pixels, points (x, y) in pixel edges.

    Attributes:
        distance: signed distance to the border, negative inside.
        radius: of the disc of the lesion's area, sqrt(area / pi).
        centre: its centroid.
    """

    distance: Float[Tensor, "n h w"]
    radius: Float[Tensor, " n"]
    centre: Float[Tensor, "n 2"]

    @classmethod
    def of(cls, inside: Bool[Tensor, "n h w"]) -> Lesions:
        """Measure masks. A mask that fills its frame has its border there; an empty one is infinitely far away.

        Args:
            inside: True in the lesion.

        Returns:
            What edits ask about each mask.

        Example:
            >>> mask = torch.zeros(1, 5, 6, dtype=torch.bool)
            >>> mask[:, 1:4, 2:5] = True
            >>> lesions = Lesions.of(mask)
            >>> lesions.centre.tolist(), lesions.distance[0, 2, 3].item()
            ([[3.5, 2.5]], -1.5)
        """
        # In whole numbers of half pixels, so that no order of summation matters.
        rows, columns = (2 * torch.arange(side, device=inside.device) + 1 for side in inside.shape[-2:])
        by_column, by_row = inside.sum(1), inside.sum(2)
        area = by_row.sum(1).clamp(min=1)
        centre = torch.stack([(by_column * columns).sum(1), (by_row * rows).sum(1)], 1) / (2 * area[:, None])
        distance = signed_distance(inside[:, None])[:, 0]
        to_edge = torch.minimum(torch.minimum(rows, rows.flip(0))[:, None], torch.minimum(columns, columns.flip(0))) / 2
        full = inside.flatten(1).all(1)[:, None, None]
        return cls(torch.where(full, -to_edge, distance), (area / torch.pi).sqrt(), centre)

    @classmethod
    def stack(cls, parts: Sequence[Lesions]) -> Lesions:
        """Measures that were taken apart, as one."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("distance", "radius", "centre")))

    def __len__(self) -> int:
        return len(self.radius)

    def __getitem__(self, which: Int[Tensor, " m"] | slice) -> Lesions:
        return Lesions(self.distance[which], self.radius[which], self.centre[which])

    @cached_property
    def x(self) -> Float[Tensor, "1 1 w"]:
        """Columns' centres."""
        width = self.distance.shape[-1]
        return torch.arange(width, device=self.distance.device, dtype=torch.float32)[None, None] + 0.5

    @cached_property
    def y(self) -> Float[Tensor, "1 h 1"]:
        """Rows' centres."""
        height = self.distance.shape[-2]
        return torch.arange(height, device=self.distance.device, dtype=torch.float32)[None, :, None] + 0.5

    def drawn_points(
        self, low: Float[Tensor, " n"], high: Float[Tensor, " n"], uniform: Float[Tensor, "n m"]
    ) -> Float[Tensor, "n m 2"]:
        """Centres of pixels whose signed distance lies in [low, high], each as likely as another.

        Where no pixel does, the one whose distance is nearest to the middle of the two.

        Args:
            low: of each lesion.
            high: of each lesion.
            uniform: in (0, 1), one for each point.

        Returns:
            (x, y) in pixel edges.
        """
        distance = self.distance.flatten(1)
        there = (distance >= low[:, None]) & (distance <= high[:, None])
        rank = there.int().cumsum(1, dtype=torch.int32)
        wanted = (uniform * rank[:, -1:]).int() + 1
        found = torch.searchsorted(rank, wanted.contiguous()).clamp(max=distance.shape[1] - 1)
        nearest = (distance - (low + high)[:, None] / 2).abs().argmin(1, keepdim=True)
        found = torch.where(rank[:, -1:] > 0, found, nearest)
        width = self.distance.shape[-1]
        return torch.stack([found % width, found // width], -1) + 0.5
