"""Which voxels a correction looks at: the most uncertain ones, and those that a click says are wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement.volume_checks import check_clicks, check_volume
from ultrarefiner.types import Clicks

_LARGEST = 2**62
# Fewer voxels together are not worth a row of their own.
_SHORTEST_CHUNK = 32
# Voxels of which temporaries are made at once. On a CPU they stay in the cache.
_CPU_TOGETHER = 2**18
_DEVICE_TOGETHER = 2**24
# A ball of more voxels is made anew at each call rather than kept.
_LARGEST_KEPT_BALL = 2**21


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

    Equal distances are taken in raster order. The choice has no gradient, the probabilities have. The volume is read in
    pieces: what it needs in memory beyond it is a small part of it.

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
    check_options(count=count, tau=tau)
    check_volume(probability, "probability")
    return uncertain_voxels(probability, count=count, tau=tau)


def select_errors(
    probability: Float[Tensor, "b 1 *space"], clicks: Clicks, *, count: int, radius: float
) -> SelectedPoints:
    r"""The voxels near a click whose prediction (:math:`p > 0.5`) is not what the click says.

    No ground truth is asked for: within ``radius`` of a click, what disagrees with its label is taken for wrong. Ranked
    by the distance to the nearest click that they disagree with, then in raster order; a voxel near several such clicks
    counts once. Only the balls around the clicks are read: the cost grows with the clicks and with the third power of
    the radius (the square in an image), not with the volume.

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
    check_options(count=count, radius=radius)
    check_volume(probability, "probability")
    check_clicks(clicks, probability.shape[0], probability.shape[2:])
    return wrong_voxels(probability, clicks, count=count, radius=radius)


def uncertain_voxels(probability: Float[Tensor, "b 1 *space"], *, count: int, tau: float) -> SelectedPoints:
    """`select_uncertain` without its checks, for callers that have made them.

    Example:
        >>> uncertain_voxels(torch.tensor([[[[0.9, 0.45, 0.95]]]]), count=1, tau=0.1).indices
        tensor([[[0, 1]]])
    """
    flat = probability.detach().flatten(1)
    voxels = flat.shape[1]
    length = _chunk_length(voxels, count)
    budget = _CPU_TOGETHER if flat.device.type == "cpu" else _DEVICE_TOGETHER
    together = max(1, budget // (len(flat) * length)) * length
    parts = (_certainty(flat[:, start : start + together], tau) for start in range(0, voxels, together))
    full = (functional.pad(part, (0, -part.shape[1] % length), value=math.inf) for part in parts)
    minima = torch.cat([part.reshape(len(part), -1, length).amin(-1) for part in full], 1)
    # The K chunks with the smallest minima, the first of equal ones, hold the K voxels: for each voxel of another chunk
    # these K minima are nearer, or as near and before it.
    chunks = _smallest(minima, count)[1].sort(dim=1).values
    raster = (chunks[..., None] * length + torch.arange(length, device=flat.device)).flatten(1)
    certainty = _certainty(flat.gather(1, raster.clamp(max=voxels - 1)), tau)
    nearest, order = _smallest(certainty.masked_fill(raster >= voxels, math.inf), count)
    missing = (0, count - nearest.shape[1])
    raster = functional.pad(raster.gather(1, order), missing)
    return _selected(probability, raster, functional.pad(nearest < math.inf, missing, value=False))


def wrong_voxels(
    probability: Float[Tensor, "b 1 *space"], clicks: Clicks, *, count: int, radius: float
) -> SelectedPoints:
    """`select_errors` without its checks, for callers that have made them.

    Example:
        >>> clicks = Clicks.at([(0, 1)], positive=[True])
        >>> wrong_voxels(torch.tensor([[[[0.9, 0.2, 0.4]]]]), clicks, count=1, radius=1.0).indices
        tensor([[[0, 1]]])
    """
    size = tuple(probability.shape[2:])
    squared_radius = math.floor(min(radius, float(sum(size))) ** 2 + 1e-9)
    reaches = tuple(min(math.isqrt(squared_radius), side - 1) for side in size)
    farthest = min(squared_radius, sum(reach**2 for reach in reaches))
    large = math.prod(2 * reach + 1 for reach in reaches) > _LARGEST_KEPT_BALL
    ball = _ball.__wrapped__ if large else _ball
    raster, squared, found = _nearest_wrong(probability, clicks, *ball(reaches, farthest, probability.device), count)
    if clicks.positions.shape[1] == 1:
        chosen = _selected(probability, raster[:, 0], found[:, 0])
    else:
        # Whatever is among the K nearest of all clicks is among the K nearest of the click that it is nearest to.
        nearest = _nearest_once(raster.flatten(1), squared.flatten(1), found.flatten(1), farthest + 1, math.prod(size))
        keys = functional.pad(nearest, (0, max(0, count - nearest.shape[1])), value=_LARGEST)
        keys = keys.topk(count, dim=1, largest=False).values
        chosen = _selected(probability, keys % math.prod(size), keys < _LARGEST)
    # Whatever disagrees with its prediction has the other label.
    says = (chosen.probability.detach() <= 0.5) & chosen.valid
    return SelectedPoints(chosen.indices, chosen.valid, chosen.probability, says)


def check_options(*, count: int = 1, tau: float = 0.1, radius: float = 0.0) -> None:
    """Raise if an option of `select_uncertain` or `select_errors` is out of range.

    Raises:
        ValueError: count is below 1, tau not in [0, 0.5), or radius negative or not finite.

    Example:
        >>> check_options(count=200, tau=0.1, radius=20.0)
    """
    if count < 1:
        message = f"count must be at least 1 point, but it is {count}."
        raise ValueError(message)
    if not 0 <= tau < 0.5:
        message = f"tau must be in [0, 0.5), but it is {tau}; voxels with tau < p < 1 - tau count as uncertain."
        raise ValueError(message)
    if not (radius >= 0 and math.isfinite(radius)):
        message = f"radius must be at least 0 voxels and finite, but it is {radius}."
        raise ValueError(message)


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


def _chunk_length(voxels: int, count: int) -> int:
    """So many voxels make a chunk that all chunks are about as many as the voxels of K chunks."""
    return min(max(_SHORTEST_CHUNK, math.isqrt(voxels // count)), voxels)


def _certainty(probability: Tensor, tau: float) -> Tensor:
    """The distance from 0.5 in float32 or wider, infinity where it is not within tau and 1 - tau."""
    wide = probability if probability.dtype == torch.float64 else probability.float()
    # 0.5 itself lies between them after rounding too, so 0 is never divided by 0; dividing is faster than filling.
    tau = min(tau, 0.5 - torch.finfo(wide.dtype).eps / 2)
    return (wide - 0.5).abs_().div_((wide > tau) & (wide < 1 - tau))


def _smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The K smallest of numbers of at least 0 along the last axis, or all; of equal ones the first, in order."""
    count = min(count, values.shape[-1])
    if values.dtype != torch.float32:
        ordered, order = values.sort(dim=-1, stable=True)
        return ordered[..., :count], order[..., :count]
    # Numbers of at least 0 are ordered as their bits are; with the place behind them no two are equal.
    keys = (values.view(torch.int32).long() << 32) + torch.arange(values.shape[-1], device=values.device)
    order = keys.topk(count, dim=-1, largest=False).values & (2**32 - 1)
    return values.gather(-1, order), order


@lru_cache(maxsize=8)
def _ball(reaches: tuple[int, ...], farthest: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Whole offsets (d, m) from a voxel to those around it, nearest first, then in raster order; their squared lengths.

    Made on the CPU, and as ordinary tensors even under inference_mode, for the next caller may need them in a graph.
    """
    with torch.inference_mode(mode=False):
        axes = [torch.arange(-reach, reach + 1, dtype=torch.int32, device="cpu") for reach in reaches]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        squared = offsets.long().square().sum(0)
        offsets, squared = offsets[:, squared <= farthest], squared[squared <= farthest]
        squared, order = squared.sort(stable=True)
        return offsets[:, order].to(device), squared.to(device)


def _nearest_wrong(
    probability: Tensor, clicks: Clicks, offsets: Tensor, squared: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each click the K nearest voxels that contradict it, (b, n, k): raster indices, squared distances, found."""
    size = tuple(probability.shape[2:])
    places = clicks.positions.to(offsets.dtype)
    inside = clicks.valid[..., None]
    for axis, side in enumerate(size):
        place = places[..., axis, None]
        inside = inside & (offsets[axis] >= -place) & (offsets[axis] < side - place)
    raster = _raveled(clicks.positions.long(), size)[..., None] + _raveled(offsets.T.long(), size)
    raster = raster.masked_fill_(~inside, 0)
    predicted = probability.detach().flatten(1).gather(1, raster.flatten(1)).view_as(raster) > 0.5
    wrong = inside & (predicted != clicks.positive[..., None])
    # The k-th is where k wrong ones have been seen.
    seen = wrong.cumsum(-1, dtype=torch.int32)
    slots = torch.arange(1, count + 1, dtype=torch.int32, device=seen.device).expand(*seen.shape[:2], -1).contiguous()
    at = torch.searchsorted(seen, slots)
    found = at < squared.numel()
    at = at.masked_fill(~found, 0)
    return raster.gather(-1, at), squared[at], found


def _nearest_once(raster: Tensor, squared: Tensor, wrong: Tensor, distances: int, voxels: int) -> Tensor:
    """Keys that sort by distance, then in raster order; each voxel once, at its smallest distance."""
    by_voxel = (raster * distances + squared).masked_fill(~wrong, _LARGEST).sort(dim=1).values
    voxel = torch.div(by_voxel, distances, rounding_mode="floor")
    again = functional.pad(voxel[:, 1:] == voxel[:, :-1], (min(1, voxel.shape[1]), 0))
    left_out = again | (by_voxel == _LARGEST)
    return ((by_voxel % distances) * voxels + voxel).masked_fill(left_out, _LARGEST)
