"""What a `VolumeSegmenter` keeps of a volume, so that little is encoded or asked twice; and what a volume is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ultrarefiner.systems.click_rounds import ClickMemory
from ultrarefiner.systems.kept_parts import KeptParts
from ultrarefiner.systems.volume_windows import Box3D, Size3D

Told = tuple[tuple[Size3D, bool], ...]
"""Clicks as plain numbers: each a voxel, and whether it lies in the object."""


@dataclass(frozen=True)
class WholeRound:
    """The whole volume after a click.

    Attributes:
        logits: on the grid of the network's answers, or corrected on that of its input; None where only background
            was clicked, so that there was nothing to ask.
        memory: for the next click; None before anything was asked.
        region: where the object may be; None where nothing says that there is one.
        starts: of the windows over the region; empty where zooming in shows nothing more.
    """

    logits: Tensor | None
    memory: ClickMemory | None = None
    region: Box3D | None = None
    starts: tuple[Size3D, ...] = ()


@dataclass
class VolumeState:
    """A volume that is being segmented; `VolumeSegmenter.start` makes it, and fills it while it works.

    Attributes:
        volume: as it came.
        embedding: of the whole, made smaller.
        text: an embedding, if the object was named.
        kept: all that was found so far, as far as there is room.
    """

    volume: Tensor
    embedding: Tensor
    text: Tensor | None = None
    kept: KeptParts = field(default_factory=KeptParts)

    @property
    def size(self) -> Size3D:
        """(slices, rows, columns) of the volume."""
        depth, height, width = (int(side) for side in self.volume.shape[1:])
        return depth, height, width

    @property
    def cached_bytes(self) -> int:
        """What is kept beside the volume and the embedding of the whole, in bytes."""
        return self.kept.bytes

    @property
    def rounds(self) -> dict[tuple[Box3D | None, Told], WholeRound]:
        """A copy of what is kept of the whole, by box and clicks."""
        return self.kept.of_kind("round")

    @property
    def window_memory(self) -> dict[tuple[Size3D, Box3D | None, Told], ClickMemory]:
        """A copy of what is kept of clicks into windows, by window, box and clicks."""
        return self.kept.of_kind("memory")

    @property
    def windows(self) -> dict[tuple[Size3D], Tensor]:
        """A copy of the embeddings that are kept, by their windows' first voxels."""
        return self.kept.of_kind("view")


def checked_volume(volume: Any) -> Tensor:
    """The volume, if it is one; its values are read wherever it lies.

    Raises:
        ValueError: another shape or dtype, no voxel, NaN, or values that are not in [0, 1].
    """
    if not isinstance(volume, Tensor) or volume.ndim != 4 or volume.shape[0] != 1 or not volume.numel():
        came = f"of the shape {tuple(volume.shape)}" if isinstance(volume, Tensor) else f"a {type(volume).__name__}"
        message = (
            f"volume must be (1, D, H, W) with at least one voxel, slices first, but it is {came}; add the channel "
            "with volume[None], and make a tensor of an array with torch.from_numpy."
        )
        raise ValueError(message)
    if not volume.is_floating_point():
        message = f"volume must be floating point in [0, 1], but its dtype is {volume.dtype}; normalise it."
        raise ValueError(message)
    low, high = (value.item() for value in volume.detach().aminmax())
    if low != low or high != high:
        message = "volume must not hold NaN, but it does; replace it by the value of the background (torch.nan_to_num)."
        raise ValueError(message)
    if low < -1e-3 or high > 1 + 1e-3:
        message = (
            f"volume must lie in [0, 1], but its values span [{low:.4g}, {high:.4g}]; normalise it as the network's "
            "training did, with ultrarefiner.data.normalise_foreground for SegVol."
        )
        raise ValueError(message)
    return volume
