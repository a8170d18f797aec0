"""Boxes around the object of a volume or an image, as a person would draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.prompts.clicks import check_masks


@dataclass(frozen=True)
class ObjectBoxes:
    """One box for each volume or image.

    Attributes:
        boxes: first and last voxel of the box on each axis, both inside it, in the order of the array's axes: (z0, y0,
            x0, z1, y1, x1) of a volume, (y0, x0, y1, x1) of an image; -1 where there is no object.
        valid: False where there is no object.
    """

    boxes: Int[Tensor, "b sides"]
    valid: Bool[Tensor, " b"]


def tight_object_box(
    mask: Bool[Tensor, "b 1 *space"] | Float[Tensor, "b 1 *space"],
    *,
    jitter: int | Sequence[int] = 0,
    generator: torch.Generator | None = None,
) -> ObjectBoxes:
    """The smallest box around the mask, its faces moved at random.

    Args:
        mask: (b, 1, d, h, w) or (b, 1, h, w); above 0.5 is object.
        jitter: each face moves by a whole number drawn evenly from -jitter to jitter voxels, one number for all axes or
            one for each. A box stays inside the volume and keeps at least a voxel on each axis.
        generator: on the CPU; needed where jitter is not 0.

    Returns:
        The boxes in voxel indices, and which are valid: those of an empty mask are not.

    Raises:
        ValueError: the mask is no mask, jitter is below 0, not one for each axis, or comes without a generator.

    Example:
        >>> mask = torch.zeros(1, 1, 4, 6, 8)
        >>> mask[..., 1:3, 2:5, 0:4] = 1
        >>> tight_object_box(mask).boxes
        tensor([[1, 2, 0, 2, 4, 3]])
    """
    check_masks(mask, "mask")
    inside = (mask > 0.5)[:, 0]
    low, high = _limits(inside)
    return _moved(low, high, inside, jitter, generator)


def box_from_middle_slice(
    mask: Bool[Tensor, "b 1 d h w"] | Float[Tensor, "b 1 d h w"],
    *,
    jitter: int | Sequence[int] = 0,
    generator: torch.Generator | None = None,
) -> ObjectBoxes:
    """The challenge's box: all slices of the object, but height and width of its middle slice alone.

    The middle slice is that of the median voxel: with the object's n voxels in the order of the slices, the one that
    holds voxel n // 2 (from 0). An object that is wider elsewhere reaches out of the box.

    Args:
        mask: see `tight_object_box`; volumes only.
        jitter: see `tight_object_box`.
        generator: see `tight_object_box`.

    Returns:
        The boxes in voxel indices, and which are valid: those of an empty mask are not.

    Raises:
        ValueError: see `tight_object_box`; or the mask is an image.

    Example:
        >>> mask = torch.zeros(1, 1, 5, 6, 8)
        >>> mask[0, 0, 1:4, 2, 3:6] = 1
        >>> mask[0, 0, 3, 0, 0] = 1
        >>> box_from_middle_slice(mask).boxes
        tensor([[1, 2, 3, 3, 2, 5]])

    CVPR 2025, Foundation Models for Interactive 3D Biomedical Image Segmentation (its box prompts).
    """
    check_masks(mask, "mask")
    if mask.ndim != 5:
        message = (
            f"mask must be a volume (b, 1, d, h, w), but its shape is {tuple(mask.shape)}; the box of an image is "
            "tight_object_box."
        )
        raise ValueError(message)
    inside = (mask > 0.5)[:, 0]
    voxels = inside.sum((-2, -1))
    middle = (voxels.cumsum(1) <= (voxels.sum(1, keepdim=True) // 2)).sum(1).clamp(max=voxels.shape[1] - 1)
    slices = inside[torch.arange(len(inside), device=inside.device), middle]
    low, high = (
        torch.cat([along[:, :1], across], 1) for along, across in zip(_limits(inside), _limits(slices), strict=True)
    )
    return _moved(low, high, inside, jitter, generator)


def _limits(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First and last index of (b, *space) on each axis, (b, axes) each."""
    low, high = [], []
    for axis in range(1, inside.ndim):
        others = [other for other in range(1, inside.ndim) if other != axis]
        there = inside.any(others[-1])
        for other in reversed(others[:-1]):
            there = there.any(other)
        low.append(there.int().argmax(1))
        high.append(inside.shape[axis] - 1 - there.flip(1).int().argmax(1))
    return torch.stack(low, 1), torch.stack(high, 1)


def _moved(
    low: Tensor, high: Tensor, inside: Tensor, jitter: int | Sequence[int], generator: torch.Generator | None
) -> ObjectBoxes:
    axes = inside.ndim - 1
    steps = [jitter] * axes if isinstance(jitter, int) else list(jitter)
    if len(steps) != axes or min(steps) < 0:
        message = f"jitter must be at least 0 voxels, one number or {axes}, but it is {jitter}."
        raise ValueError(message)
    if any(steps) and generator is None:
        message = f"generator must be given where jitter is not 0, but jitter is {jitter} and generator is None."
        raise ValueError(message)
    for axis, (step, side) in enumerate(zip(steps, inside.shape[1:], strict=True)):
        if step == 0:
            continue
        drawn = torch.randint(-step, step + 1, (2, len(inside)), generator=generator).to(low.device)
        first = (low[:, axis] + drawn[0]).clamp(0, side - 1)
        last = (high[:, axis] + drawn[1]).clamp(0, side - 1)
        middle = torch.div(low[:, axis] + high[:, axis], 2, rounding_mode="floor")
        # Faces that crossed meet in the object's middle.
        low[:, axis], high[:, axis] = first.where(first <= last, middle), last.where(first <= last, middle)
    valid = inside.flatten(1).any(1)
    return ObjectBoxes(torch.cat([low, high], 1).where(valid[:, None], -1), valid)
