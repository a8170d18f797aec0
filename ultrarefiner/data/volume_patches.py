"""What a network sees of a volume in training: a patch that mostly holds the object, or the whole, made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.ops.resample import resize_linear

Size3D = tuple[int, int, int]

_TRIES = 64  # for a background voxel; where nearly all is object, background voxels are counted


def patch_start(
    mask: Float[Tensor, "1 d h w"], size: Size3D, generator: torch.Generator, *, positive: float = 0.75
) -> Size3D:
    """Draw where a patch begins: around a voxel of the object, or around one that is not.

    With probability ``positive`` the patch's centre is any voxel of the object, else any voxel of the background, all
    equally likely; then the patch is moved until it lies inside the volume. Where the volume has no object, or nothing
    but object, the other kind is taken.

    Args:
        mask: the object, above 0.
        size: (slices, rows, columns) of the patch.
        generator: for the draws.
        positive: 0.75 is three positive patches to each negative one.

    Returns:
        (z, y, x) of the patch's first voxel.

    Raises:
        ValueError: the patch is larger than the volume, or positive is no probability.

    Example:
        >>> mask = torch.zeros(1, 8, 8, 8)
        >>> mask[0, 4, 4, 7] = 1.0
        >>> patch_start(mask, (2, 4, 4), torch.Generator(), positive=1.0)
        (3, 2, 4)
    """
    volume = mask.shape[-3:]
    if not 0 <= positive <= 1 or any(not 1 <= side <= whole for side, whole in zip(size, volume, strict=True)):
        message = (
            f"size must fit into the volume {tuple(volume)} and positive must be in [0, 1], got {size} and {positive}; "
            "pad the volume first (`pad_volume`)."
        )
        raise ValueError(message)
    wants_object = float(torch.rand((), generator=generator)) < positive
    centre = _voxel_of(mask[0], wants_object, generator)
    z, y, x = (
        min(max(middle - side // 2, 0), whole - side) for middle, side, whole in zip(centre, size, volume, strict=True)
    )
    return z, y, x


def pad_volume(volume: Float[Tensor, "*c d h w"], size: Size3D, *, fill: float = 0.0) -> Float[Tensor, "*c _ _ _"]:
    """Pad a volume on both sides to at least a size; where the number is odd, the end gets one more.

    Args:
        volume: image or mask.
        size: (slices, rows, columns) that the result has at least.
        fill: the value of the new voxels.

    Returns:
        The padded volume; the volume itself, not a copy, where nothing is missing.

    Example:
        >>> pad_volume(torch.ones(1, 4, 9, 3), (4, 8, 6)).shape
        torch.Size([1, 4, 9, 6])
    """
    padding: list[int] = []
    for side, wanted in zip(reversed(volume.shape[-3:]), reversed(size), strict=True):
        missing = max(wanted - side, 0)
        padding += [missing // 2, missing - missing // 2]
    if not any(padding):
        return volume
    return functional.pad(volume, padding, value=fill)


def resize_volume(volume: Float[Tensor, "1 d h w"], size: Size3D) -> Float[Tensor, "1 _ _ _"]:
    """Resample a volume's grey values to a size, linearly, edges on edges; where it shrinks, antialiased.

    It is what `VolumeSegmenter` does to a volume before it looks at it as a whole (`ops.resample.resize_linear`). The
    published SegVol takes the nearest voxel instead, so that of a thin object it sees what happens to be hit.

    Args:
        volume: grey values.
        size: (depth, height, width) wanted.

    Returns:
        Grey values at the wanted size; they stay within the volume's own range.

    Example:
        >>> resize_volume(torch.ones(1, 4, 8, 8), (2, 4, 4)).mean().item()
        1.0
    """
    return resize_linear(volume, size)


def resize_mask(mask: Float[Tensor, "1 d h w"], size: Size3D) -> Float[Tensor, "1 _ _ _"]:
    """Resample a mask to a size, the nearest voxel: no value is made that was not there.

    An average of labels that is cut off to whole numbers, as the published GRU code makes it, shrinks every object. An
    object thinner than the new voxels may vanish; `VolumeView` leaves such a mask out by taking a patch.

    Args:
        mask: 0 or 1.
        size: (depth, height, width) wanted.

    Returns:
        Values of the mask, at the wanted size.

    Example:
        >>> resize_mask(torch.ones(1, 4, 8, 8), (2, 4, 4)).mean().item()
        1.0
    """
    return functional.interpolate(mask[None], size=size, mode="nearest-exact")[0]


@dataclass(frozen=True)
class VolumeView:
    """One view of a volume and its mask, of one size: a patch, or the whole volume resampled.

    SegVol's training takes one whole volume to three patches, and three patches around the object to one around
    background. Volumes that are smaller than a patch are padded with zeros. A whole volume in which no voxel of the
    object would be left is shown as a patch.

    Args:
        size: (slices, rows, columns) of the view.
        whole: the share of whole volumes.
        positive: the share of patches around the object among the patches.

    Raises:
        ValueError: a share is outside [0, 1], or a side below 1.

    Example:
        >>> image, mask = torch.rand(1, 20, 30, 9), torch.ones(1, 20, 30, 9)
        >>> view = VolumeView((8, 16, 16))
        >>> [tuple(one.shape) for one in view(image, mask, torch.Generator().manual_seed(0))]
        [(1, 8, 16, 16), (1, 8, 16, 16)]

    References:
        Du, Bai, Huang, Zhao: SegVol: Universal and Interactive Volumetric Medical Image Segmentation. NeurIPS 2024.
    """

    size: Size3D
    whole: float = 0.25
    positive: float = 0.75

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1 or not all(0 <= one <= 1 for one in (self.whole, self.positive)):
            message = (
                "a view needs three sides of at least 1 voxel and shares in [0, 1], got "
                f"{self.size}, whole={self.whole} and positive={self.positive}."
            )
            raise ValueError(message)

    def __call__(
        self, image: Float[Tensor, "1 d h w"], mask: Float[Tensor, "1 d h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "1 _ _ _"], Float[Tensor, "1 _ _ _"]]:
        """Draw a view; the same generator gives the same one.

        Args:
            image: one volume, already on one scale (`normalise_foreground`).
            mask: its object.
            generator: for the draws.

        Returns:
            Image and mask, each with memory of its own: a patch does not keep its volume alive.

        Raises:
            ValueError: image and mask differ in shape.
        """
        if image.shape != mask.shape:
            message = f"mask must lie on the voxels of image, {tuple(image.shape)}, but it has {tuple(mask.shape)}."
            raise ValueError(message)
        if float(torch.rand((), generator=generator)) < self.whole:
            small = resize_mask(mask, self.size)
            if bool(small.any()) or not bool(mask.any()):
                return resize_volume(image, self.size), small
        start = patch_start(pad_volume(mask, self.size), self.size, generator, positive=self.positive)
        # Where the volume is smaller than the patch, start is 0 and the whole side is in.
        inside: tuple[Any, ...] = (
            ...,
            *(slice(first, first + side) for first, side in zip(start, self.size, strict=True)),
        )
        seen, object_ = (
            pad_volume(one[inside].clone(memory_format=torch.contiguous_format), self.size) for one in (image, mask)
        )
        return seen, object_


def _voxel_of(mask: Float[Tensor, "d h w"], wanted: bool, generator: torch.Generator) -> Size3D:
    """Any voxel of a kind, or of the other kind if there is none."""
    height, width = mask.shape[1:]
    counts = torch.stack([(plane > 0).count_nonzero() for plane in mask])  # a plane stays in the processor's cache
    count = int(counts.sum())
    if wanted and count == 0:
        wanted = False
    elif not wanted and count == mask.numel():
        wanted = True
    if not wanted:
        for _ in range(_TRIES):
            place = int(torch.randint(mask.numel(), (), generator=generator))
            z, y, x = place // (height * width), place // width % height, place % width
            if not bool(mask[z, y, x] > 0):
                return z, y, x
        counts, count = height * width - counts, mask.numel() - count
    rank = int(torch.randint(count, (), generator=generator))
    z, rank = _pile_of(counts, rank)
    rows = (mask[z] > 0) == wanted
    y, rank = _pile_of(rows.sum(1), rank)
    return z, y, int(rows[y].nonzero()[rank, 0])


def _pile_of(counts: Tensor, rank: int) -> tuple[int, int]:
    """In which of some piles number ``rank`` of all that they hold lies, and which number it has in that pile."""
    after = counts.cumsum(0)
    pile = int((after <= rank).sum())
    return pile, rank - int(after[pile] - counts[pile])
