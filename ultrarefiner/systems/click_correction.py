"""A correction at a click after any logits, at their own resolution or at one that it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement import ClickCorrection, CorrectionState
from ultrarefiner.systems.told_prompts import ToldClicks, clicks_of
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class CorrectedLogits:
    """What a click made of logits.

    Attributes:
        logits: corrected, on the voxels of those that came.
        raster_logits: the same on the correction's raster, where the next click may start.
        state: for the next click.
        written: the raster's voxels that were written.
    """

    logits: Float[Tensor, "b 1 *space"]
    raster_logits: Float[Tensor, "b 1 *raster"]
    state: CorrectionState | None
    written: Bool[Tensor, "b 1 *raster"]


def correct_at_clicks(
    correction: ClickCorrection,
    logits: Float[Tensor, "1 1 *space"],
    clicks: ToldClicks,
    *,
    side: int | None = None,
    state: CorrectionState | None = None,
    earlier: Float[Tensor, "1 1 *raster"] | None = None,
) -> CorrectedLogits:
    """Let a correction work on logits: on their own voxels, or on a raster with their *change* brought back.

    On their own voxels nothing but what the correction writes changes a bit. On a raster a point covers several voxels
    of a large image, and the logits keep their detail: the change is interpolated linearly and added to them.

    Args:
        correction: for as many dimensions as the logits have.
        logits: finite, without any correction.
        clicks: that the correction is told, in their voxels.
        side: of the raster's longest side; its shape is that of the logits. None for their own voxels.
        state: after the clicks before.
        earlier: ``raster_logits`` after the clicks before, to go on from; None starts from ``logits``.

    Example:
        >>> from ultrarefiner.refinement import GRUCorrection
        >>> correction = GRUCorrection(points=4, hidden=8, dimensions=2)
        >>> torch.nn.init.ones_(correction.value_head.bias).sum().item()
        1.0
        >>> logits = torch.zeros(1, 1, 40, 60)
        >>> changed = [correct_at_clicks(correction, logits, (((9, 9), True),), side=side) for side in (None, 15)]
        >>> [int((one.logits != 0).sum()) < 9 for one in changed]
        [True, False]
    """
    heard = clicks_of(clicks, logits.ndim - 2, device=logits.device)
    return correct_on_raster(correction, logits, heard, side=side, state=state, earlier=earlier)


def correct_on_raster(
    correction: ClickCorrection,
    logits: Float[Tensor, "b 1 *space"],
    clicks: Clicks,
    *,
    side: int | None = None,
    state: CorrectionState | None = None,
    earlier: Float[Tensor, "b 1 *raster"] | None = None,
) -> CorrectedLogits:
    """`correct_at_clicks` of several volumes or images of one size at once, as training needs it.

    Args:
        correction: see `correct_at_clicks`.
        logits: see `correct_at_clicks`.
        clicks: that the correction is told, in the logits' voxels.
        side: see `correct_at_clicks`.
        state: see `correct_at_clicks`.
        earlier: see `correct_at_clicks`.

    Example:
        >>> from ultrarefiner.refinement import WrittenClicks
        >>> clicks = Clicks.at([(9, 9)], positive=[True])
        >>> found = correct_on_raster(WrittenClicks(count=1), torch.zeros(1, 1, 40, 60), clicks, side=15)
        >>> found.written.shape, found.written.nonzero()[:, 2:]
        (torch.Size([1, 1, 10, 15]), tensor([[2, 2]]))
    """
    size = tuple(int(length) for length in logits.shape[2:])
    raster = size if side is None else raster_size(size, side)
    same = raster == size
    start = on_raster(logits, raster)
    heard = clicks if same else replace(clicks, positions=_raster_positions(clicks.positions, size, raster))
    with torch.autocast(logits.device.type, enabled=False):
        found = correction(start if earlier is None else earlier, heard, state)
        answer = found.logits if same else logits + on_raster(found.logits - start, size)
    return CorrectedLogits(answer, found.logits, found.state, found.written)


def raster_size(size: Sequence[int], side: int) -> tuple[int, ...]:
    """The shape of a raster whose longest side is ``side``, with the sides' ratio kept; at least 1 each.

    Example:
        >>> raster_size((300, 500), 100)
        (60, 100)
    """
    longest = max(size)
    return tuple(max(1, (2 * length * side + longest) // (2 * longest)) for length in size)


def raster_position(position: Sequence[int], size: Sequence[int], raster: Sequence[int]) -> tuple[int, ...]:
    """The voxel of a raster over the same view that holds a voxel's centre.

    Example:
        >>> raster_position((5, 9), (10, 10), (5, 20))
        (2, 19)
    """
    along = zip(position, size, raster, strict=True)
    return tuple((2 * index + 1) * cells // (2 * length) for index, length, cells in along)


def _raster_positions(
    positions: Int[Tensor, "b n d"], size: Sequence[int], raster: Sequence[int]
) -> Int[Tensor, "b n d"]:
    """`raster_position` of clicks."""
    cells, lengths = (torch.tensor(along, device=positions.device) for along in (raster, size))
    return ((2 * positions + 1) * cells).div(2 * lengths, rounding_mode="floor")


def on_raster(logits: Float[Tensor, "b k *space"], size: Sequence[int]) -> Float[Tensor, "b k ..."]:
    """Logits on another raster over the same view, linearly (antialiased in 2-D); untouched where it is theirs.

    Example:
        >>> on_raster(torch.zeros(1, 1, 4, 6), (8, 3)).shape
        torch.Size([1, 1, 8, 3])
    """
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    plane = logits.ndim == 4
    mode = "bilinear" if plane else "trilinear"
    return functional.interpolate(logits, tuple(size), mode=mode, align_corners=False, antialias=plane)


def check_correction_options(side: int | None, cache_bytes: int) -> None:
    """Raise unless the numbers that go with a correction make sense.

    Raises:
        ValueError: a side below 1 or a cache below 0.

    Example:
        >>> check_correction_options(256, 2**28)
    """
    if (side is not None and side < 1) or cache_bytes < 0:
        message = (
            "correction_side must be None or at least 1, and cache_bytes at least 0, but they are "
            f"{side} and {cache_bytes}; 256 and 2**28 are usual."
        )
        raise ValueError(message)
