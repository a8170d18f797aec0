"""Which voxels a correction looks at: the most uncertain ones, and those that a click says are wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement.volume_checks import check_clicks, check_volume
from ultrarefiner.types import Clicks

# Voxels that are searched together: short enough to be sorted in the cache.
_CHUNK = 4096
# Chunks whose voxels are counted together.
_COUNTED = 1024


@dataclass(frozen=True)
class SelectedPoints:
    """K voxels of each volume, best first; where there are fewer, the rest is padding.

    Attributes:
        indices: voxel indices in the order of the array's axes; 0 at padding.
        valid: False at padding.
        probability: of the object, at the voxels; 0 at padding. It carries a gradient.
        positive: what the click at an error says, True for object; None for uncertain voxels, False at padding.
    """

    indices: Int[Tensor, "b k d"]
    valid: Bool[Tensor, "b k"]
    probability: Float[Tensor, "b k"]
    positive: Bool[Tensor, "b k"] | None = None


def select_uncertain(probability: Float[Tensor, "b 1 *space"], *, count: int, tau: float = 0.1) -> SelectedPoints:
    r"""The voxels with :math:`\tau < p < 1 - \tau` whose p is nearest to 0.5.

    Equal distances are taken in raster order. The choice has no gradient, the probabilities have. Beyond the volume it
    needs about its size again in memory.

    Args:
        probability: (b, 1, d, h, w) or (b, 1, h, w), in [0, 1].
        count: K, at least 1.
        tau: in [0, 0.5); the seed's is 0.1.

    Returns:
        K voxels of each volume, the most uncertain first. A volume without an uncertain voxel has only padding.

    Raises:
        ValueError: count or tau is out of range, or the probability is not a finite volume.

    Example:
        >>> found = select_uncertain(torch.tensor([[[[0.9, 0.45, 0.6], [0.5, 0.02, 1.0]]]]), count=4)
        >>> found.indices[0].tolist(), found.valid[0].tolist()
        ([[1, 0], [0, 1], [0, 2], [0, 0]], [True, True, True, False])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction (its set U_t).
    """
    _check_count(count)
    if not 0 <= tau < 0.5:
        message = f"tau must be in [0, 0.5), but it is {tau}; voxels with tau < p < 1 - tau count as uncertain."
        raise ValueError(message)
    check_volume(probability, "probability")
    flat = probability.detach().flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    voxels = flat.shape[1]
    length = min(_CHUNK, voxels)
    chunks = -(-voxels // length)
    distance = flat.new_full((flat.shape[0], chunks * length), math.inf)
    unsure = (flat > tau) & (flat < 1 - tau)
    torch.sub(flat, 0.5, out=distance[:, :voxels]).abs_().masked_fill_(~unsure, math.inf)
    distance = distance.view(-1, chunks, length)
    last = _kth_smallest(distance, count)[:, None, None]
    # Of those at the distance of the last one, only the first in raster order have a place.
    nearer = _first_true(distance < last, count)
    as_near = _first_true((distance == last) & (distance < math.inf), count)
    candidates = torch.cat([nearer, as_near], 1)
    found = candidates < voxels
    ranks = distance.flatten(1).gather(1, candidates.where(found, 0)).masked_fill(~found, math.inf)
    order = ranks.sort(dim=1, stable=True).indices[:, :count]
    return _selected(probability, candidates.gather(1, order), found.gather(1, order))


def select_errors(
    probability: Float[Tensor, "b 1 *space"], clicks: Clicks, *, count: int, radius: float
) -> SelectedPoints:
    r"""The voxels near a click whose prediction (:math:`p > 0.5`) is not what the click says.

    No ground truth is asked for: within ``radius`` of a click, what disagrees with its label is taken for wrong. Ranked
    by the distance to the nearest click that they disagree with, then in raster order; a voxel near several such clicks
    counts once. Only the blocks around the clicks are read, so the cost does not grow with the volume.

    Args:
        probability: (b, 1, d, h, w) or (b, 1, h, w), in [0, 1].
        clicks: any number for each volume, 0 included.
        count: K, at least 1.
        radius: Euclidean, in voxels whatever their spacing; 0 is the clicked voxel alone.

    Returns:
        K voxels of each volume, the nearest first, with the click's label. A volume without a valid click, or whose
        clicks agree with the prediction all around, has only padding.

    Raises:
        ValueError: count or radius is out of range, the probability is not a finite volume, or a click lies outside.

    Example:
        >>> clicks = Clicks.at([(0, 1)], positive=[True])
        >>> found = select_errors(torch.tensor([[[[0.9, 0.2, 0.4, 0.1]]]]), clicks, count=3, radius=1.0)
        >>> found.indices[0].tolist(), found.valid[0].tolist()
        ([[0, 1], [0, 2], [0, 0]], [True, True, False])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction (its set E_t).
    """
    _check_count(count)
    if not (radius >= 0 and math.isfinite(radius)):
        message = f"radius must be at least 0 voxels and finite, but it is {radius}."
        raise ValueError(message)
    check_volume(probability, "probability")
    size = tuple(probability.shape[2:])
    check_clicks(clicks, probability.shape[0], size)
    farthest = math.floor(radius**2 + 1e-9)
    offsets, squared = _around([min(math.isqrt(farthest), side - 1) for side in size], probability.device)
    where = (clicks.positions[:, :, None, :] + offsets).long()
    inside = (squared <= farthest) & clicks.valid[..., None]
    for axis, side in enumerate(size):
        inside = inside & (where[..., axis] >= 0) & (where[..., axis] < side)
    raster = _raveled(where, size).masked_fill(~inside, 0).flatten(1)
    predicted = probability.detach().flatten(1).gather(1, raster) > 0.5
    says = clicks.positive[..., None].expand_as(inside).flatten(1)
    wrong = inside.flatten(1) & (predicted != says)
    nearest = _nearest_once(raster, squared.expand_as(inside).flatten(1), wrong, farthest + 1, math.prod(size))
    keys = functional.pad(nearest, (0, max(0, count - nearest.shape[1])), value=_LARGEST)
    keys = keys.topk(count, dim=1, largest=False).values
    found = _selected(probability, keys % math.prod(size), keys < _LARGEST)
    # Whatever disagrees with its prediction has the other label.
    return SelectedPoints(
        found.indices, found.valid, found.probability, (found.probability.detach() <= 0.5) & found.valid
    )


_LARGEST = 2**62


def values_at(volume: Float[Tensor, "b 1 *space"], indices: Int[Tensor, "b k d"]) -> Float[Tensor, "b k"]:
    """The values of a volume at voxels, with their gradient.

    Example:
        >>> values_at(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[1, 0]]]))
        tensor([[3.]])
    """
    return volume.flatten(1).gather(1, _raveled(indices, tuple(volume.shape[2:])))


def _selected(probability: Tensor, raster: Tensor, valid: Tensor) -> SelectedPoints:
    raster = raster.masked_fill(~valid, 0)
    values = probability.flatten(1).gather(1, raster)
    indices = []
    left = raster
    for side in reversed(probability.shape[2:]):
        indices.append(left % side)
        left = torch.div(left, side, rounding_mode="floor")
    return SelectedPoints(torch.stack(indices[::-1], -1), valid, values.masked_fill(~valid, 0.0))


def _raveled(indices: Tensor, size: Sequence[int]) -> Tensor:
    raster = torch.zeros_like(indices[..., 0])
    for axis, side in enumerate(size):
        raster = raster * side + indices[..., axis]
    return raster


def _kth_smallest(distance: Tensor, count: int) -> Tensor:
    """The K-th smallest of (b, chunks, length), or the largest where there are fewer.

    The K chunks with the smallest minima hold it: whatever lies in another chunk is no smaller than those K minima.
    """
    chunks = distance.amin(-1).topk(min(count, distance.shape[1]), dim=1, largest=False).indices
    nearest = distance.gather(1, chunks[..., None].expand(-1, -1, distance.shape[-1])).flatten(1)
    return nearest.topk(min(count, nearest.shape[1]), dim=1, largest=False).values[:, -1]


def _first_true(mask: Tensor, count: int) -> Tensor:
    """Raster indices of the first K True of (b, chunks, length); beyond the last one an index past the end."""
    chunks, length = mask.shape[1:]
    # A sum over bool makes whole numbers of 8 bytes of all it is given, so it is given a part at a time.
    counts = [mask[:, start : start + _COUNTED].sum(-1) for start in range(0, chunks, _COUNTED)]
    ends = torch.cat(counts, 1).cumsum(-1)
    slots = torch.arange(1, count + 1, device=mask.device).expand(mask.shape[0], -1).contiguous()
    chunk = torch.searchsorted(ends, slots)
    inside = chunk.clamp(max=chunks - 1)
    before = functional.pad(ends, (1, 0))[:, :-1].gather(1, inside)
    rows = mask.gather(1, inside[..., None].expand(-1, -1, length))
    within = (rows.cumsum(-1, dtype=torch.int32) < (slots - before)[..., None]).sum(-1)
    return (inside * length + within).where(chunk < chunks, chunks * length)


def _around(reaches: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Whole offsets of a block around a voxel, and their squared lengths."""
    axes = [torch.arange(-reach, reach + 1, device=device) for reach in reaches]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return offsets, offsets.square().sum(-1)


def _nearest_once(raster: Tensor, squared: Tensor, wrong: Tensor, distances: int, voxels: int) -> Tensor:
    """Keys that sort by distance, then in raster order; each voxel once, at its smallest distance."""
    by_voxel = (raster * distances + squared).masked_fill(~wrong, _LARGEST).sort(dim=1).values
    voxel = torch.div(by_voxel, distances, rounding_mode="floor")
    again = functional.pad(voxel[:, 1:] == voxel[:, :-1], (min(1, voxel.shape[1]), 0))
    left_out = again | (by_voxel == _LARGEST)
    return ((by_voxel % distances) * voxels + voxel).masked_fill(left_out, _LARGEST)


def _check_count(count: int) -> None:
    if count < 1:
        message = f"count must be at least 1 point, but it is {count}."
        raise ValueError(message)
