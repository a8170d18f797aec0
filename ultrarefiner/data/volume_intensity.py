"""Intensities of a volume on one scale whatever the scanner, and the part of it that is not background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

_LOW, _HIGH = 0.0005, 0.9995  # quantiles of the foreground: SegVol's percentiles 0.05 and 99.95


def normalise_foreground(image: Float[Tensor, "1 d h w"]) -> Float[Tensor, "1 d h w"]:
    r"""Bring a volume's intensities to [0, 1] by the range of its foreground.

    The foreground is what is brighter than the mean of all voxels. With its percentiles :math:`a = q_{0.05}` and
    :math:`b = q_{99.95}` (linear between ranks)

    .. math:: I' = \frac{v - \min v}{\max v - \min v}, \qquad v = \min(\max(I, a), b)

    SegVol also subtracts the foreground's mean and divides by its standard deviation before it brings the volume to
    [0, 1]; that changes nothing, for the last step undoes it, and is left out here.

    Args:
        image: one volume, in any unit.

    Returns:
        In [0, 1], float32. All zero for a constant volume, which has no foreground; 0 and 1 where all foreground has
        one value, as in a volume of two values.

    Raises:
        ValueError: a voxel is NaN or infinite, or there is no voxel.

    Example:
        >>> ramp = torch.linspace(-1000, 1000, 4001).reshape(1, 1, 1, 4001)
        >>> found = normalise_foreground(ramp)
        >>> found.min().item(), found.max().item(), found[..., 2000].item()
        (0.0, 1.0, 0.0)
        >>> normalise_foreground(torch.full((1, 2, 2, 2), 7.0)).max().item()
        0.0

    References:
        Du, Bai, Huang, Zhao: SegVol: Universal and Interactive Volumetric Medical Image Segmentation. NeurIPS 2024.
    """
    if image.numel() == 0 or not bool(image.isfinite().all()):
        message = (
            f"image must have voxels, all of them finite; of {image.numel()} there are "
            f"{int((~image.isfinite()).sum())} NaN or infinite. Replace them by the value of the background."
        )
        raise ValueError(message)
    image = image.float()
    foreground = image[image > image.mean()]
    # The mean of equal numbers may be rounded to less than they are.
    if bool(image.amin() == image.amax()) or foreground.numel() == 0:
        return torch.zeros_like(image)
    low, high = _quantiles(foreground, (_LOW, _HIGH))
    seen = image.clamp(low, high)
    lowest, highest = seen.amin(), seen.amax()
    if not bool(highest > lowest):
        return (image >= low).float()
    return (seen - lowest) / (highest - lowest)


@dataclass(frozen=True)
class VolumeCrop:
    """A box of voxels in a volume, and the way back.

    Attributes:
        start: (z, y, x) of its first voxel.
        stop: (z, y, x) after its last voxel.
        shape: (slices, rows, columns) of the volume.

    Raises:
        ValueError: the box is empty or leaves the volume.

    Example:
        >>> box = VolumeCrop((1, 0, 2), (3, 4, 4), (4, 4, 4))
        >>> volume = torch.arange(64.0).reshape(1, 4, 4, 4)
        >>> part = box.crop(volume)
        >>> part.shape, torch.equal(box.crop(box.put_back(part)), part), box.put_back(part)[0, 0].sum().item()
        (torch.Size([1, 2, 4, 2]), True, 0.0)
        >>> box.enter((2, 2, 2)), box.leave((1, 2, 0))
        ((1, 2, 0), (2, 2, 2))
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not all(0 <= a < b <= side for a, b, side in zip(self.start, self.stop, self.shape, strict=True)):
            message = (
                "start and stop must bound at least one voxel of the volume along each axis, got "
                f"{self.start} to {self.stop} in {self.shape}; clip them to the volume."
            )
            raise ValueError(message)

    @property
    def size(self) -> tuple[int, int, int]:
        """(slices, rows, columns) of the box."""
        depth, height, width = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return depth, height, width

    def crop(self, volume: Shaped[Tensor, "*c d h w"]) -> Shaped[Tensor, "*c box_d box_h box_w"]:
        """The box's voxels, a view.

        Args:
            volume: of the shape that the box was found in.

        Returns:
            The part inside the box.

        Raises:
            ValueError: the volume has another shape.
        """
        self._check("volume", volume, self.shape)
        return volume[self._inside]

    def put_back(
        self, part: Shaped[Tensor, "*c box_d box_h box_w"], *, fill: float = 0.0
    ) -> Shaped[Tensor, "*c d h w"]:
        """A volume with the part in its place: voxel by voxel, nothing is resampled.

        Args:
            part: of the box's size.
            fill: the value of all other voxels.

        Returns:
            Of the volume's own shape.

        Raises:
            ValueError: the part has another size.
        """
        self._check("part", part, self.size)
        whole = part.new_full((*part.shape[:-3], *self.shape), fill)
        whole[self._inside] = part
        return whole

    def enter(self, position: tuple[int, int, int]) -> tuple[int, int, int]:
        """The volume's voxel (z, y, x) as the box counts; below 0 or past the box's size where it lies outside."""
        z, y, x = (index - first for index, first in zip(position, self.start, strict=True))
        return z, y, x

    def leave(self, position: tuple[int, int, int]) -> tuple[int, int, int]:
        """The box's voxel (z, y, x) as the volume counts."""
        z, y, x = (index + first for index, first in zip(position, self.start, strict=True))
        return z, y, x

    @property
    def _inside(self) -> tuple[Any, ...]:
        return (..., *(slice(a, b) for a, b in zip(self.start, self.stop, strict=True)))

    def _check(self, name: str, tensor: Tensor, expected: tuple[int, int, int]) -> None:
        if tuple(tensor.shape[-3:]) != expected:
            message = f"{name} must end in the sides {expected}, got {tuple(tensor.shape)}; it belongs to another box."
            raise ValueError(message)


def foreground_crop(image: Float[Tensor, "1 d h w"], *, threshold: float = 0.0, margin: int = 0) -> VolumeCrop:
    """The smallest box that holds every voxel above the threshold.

    SegVol crops a volume to what is above 0 after `normalise_foreground`.

    Args:
        image: one volume.
        threshold: voxels above it count.
        margin: voxels around the box, as far as the volume goes.

    Returns:
        The box; the whole volume where no voxel is above the threshold.

    Raises:
        ValueError: the margin is negative, or the volume has no voxel.

    Example:
        >>> image = torch.zeros(1, 4, 5, 6)
        >>> image[0, 1, 2:4, 3] = 1.0
        >>> box = foreground_crop(image)
        >>> box.start, box.stop
        ((1, 2, 3), (2, 4, 4))
    """
    depth, height, width = image.shape[-3:]
    if margin < 0 or image.numel() == 0:
        message = f"margin must not be negative and the volume not empty, got {margin} and {tuple(image.shape)}."
        raise ValueError(message)
    there = (image > threshold)[0]
    bounds = []
    for axis, side in enumerate((depth, height, width)):
        found = there.any(tuple(other for other in (2, 1, 0) if other != axis)).nonzero()[:, 0]
        if len(found) == 0:
            return VolumeCrop((0, 0, 0), (depth, height, width), (depth, height, width))
        bounds.append((max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, side)))
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return VolumeCrop((z0, y0, x0), (z1, y1, x1), (depth, height, width))


def _quantiles(values: Tensor, shares: Sequence[float]) -> list[float]:
    """Linear between ranks; torch.quantile refuses more than 16 million values. On a CPU it reorders the values."""
    places = [share * (len(values) - 1) for share in shares]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    if values.device.type == "cpu":
        numbers = values.detach().numpy()
        numbers.partition(ranks)  # all at once, several times faster than torch.kthvalue for each
        found = {rank: float(numbers[rank]) for rank in ranks}
    else:
        found = {rank: float(values.kthvalue(rank + 1).values) for rank in ranks}
    lows, highs = ([found[to_rank(place)] for place in places] for to_rank in (math.floor, math.ceil))
    return [
        low + (place - math.floor(place)) * (high - low) for low, high, place in zip(lows, highs, places, strict=True)
    ]
