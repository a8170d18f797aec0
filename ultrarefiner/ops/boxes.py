"""Boxes (x0, y0, x1, y1) in pixel edges: from a mask, larger, clipped, and back to a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.ops.coordinates import pixel_centres


def soft_box(
    centroid: Float[Tensor, "*batch 2"], variance: Float[Tensor, "*batch 2"], *, sigmas: float = 2.5
) -> Float[Tensor, "*batch 4"]:
    r"""The box :math:`c \mp n \sigma` on each axis, with :math:`\sigma = \sqrt{v + 10^{-6}}`.

    For a filled ellipse :math:`\sigma` is half the semi-axis, so 2.5 sigmas are 1.25 semi-axes.

    Args:
        centroid: (x, y).
        variance: (x, y), in pixels squared; the 1e-6 keeps the gradient finite where it is 0.
        sigmas: half the side, n, in standard deviations.

    Returns:
        (x0, y0, x1, y1), not clipped to any frame.

    Example:
        >>> soft_box(torch.tensor([10.0, 20.0]), torch.tensor([4.0, 16.0])).round()
        tensor([ 5., 10., 15., 30.])
    """
    half = sigmas * (variance + 1e-6).sqrt()
    return torch.cat([centroid - half, centroid + half], -1)


def tight_box(mask: Bool[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 4"]:
    """The smallest box around the True pixels; an empty mask has the box (0, 0, 0, 0). Not differentiable.

    Args:
        mask: True inside.

    Returns:
        (x0, y0, x1, y1) in pixel edges.

    Example:
        >>> mask = torch.zeros(8, 8, dtype=torch.bool)
        >>> mask[2:4, 1:7] = True
        >>> tight_box(mask)
        tensor([1., 2., 7., 4.])
    """
    limits = []
    for occupied in (mask.any(-2), mask.any(-1)):
        index = torch.arange(occupied.shape[-1], device=mask.device)
        first = index.masked_fill(~occupied, occupied.shape[-1]).amin(-1)
        last = index.masked_fill(~occupied, -1).amax(-1) + 1
        limits.append((first.where(last > 0, 0), last))
    (x0, x1), (y0, y1) = limits
    return torch.stack([x0, y0, x1, y1], -1).float()


def fill_box(probability: Float[Tensor, "*batch h w"] | Bool[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w"]:
    """The tight box of each mask at 0.5 as a mask of 0 and 1; empty where the mask is. Not differentiable.

    Args:
        probability: soft masks in [0, 1], or masks.

    Returns:
        Masks of 0 and 1 on the same pixels.

    Example:
        >>> fill_box(torch.tensor([[0.9, 0.0], [0.0, 0.7]]))
        tensor([[1., 1.],
                [1., 1.]])
    """
    inside = probability > 0.5

    def span(there: Tensor) -> Tensor:
        return (there.int().cumsum(-1) > 0) & (there.flip(-1).int().cumsum(-1).flip(-1) > 0)

    return (span(inside.any(-1))[..., :, None] & span(inside.any(-2))[..., None, :]).float()


def expand_box(boxes: Float[Tensor, "*batch 4"], fraction: float) -> Float[Tensor, "*batch 4"]:
    """Move every side outwards by ``fraction`` of the box's own width or height.

    Args:
        boxes: (x0, y0, x1, y1) in pixel edges.
        fraction: of the width left and right, of the height above and below; at least 0.

    Returns:
        Larger boxes around the same centres, which may leave the frame.

    Example:
        >>> expand_box(torch.tensor([10.0, 10.0, 20.0, 30.0]), 0.2)
        tensor([ 8.,  6., 22., 34.])
    """
    margin = fraction * (boxes[..., 2:] - boxes[..., :2])
    return torch.cat([boxes[..., :2] - margin, boxes[..., 2:] + margin], -1)


def jitter_box(boxes: Float[Tensor, "*batch 4"], share: float, generator: torch.Generator) -> Float[Tensor, "*batch 4"]:
    """Move each side by up to a share of the box's own width or height, drawn evenly.

    A box keeps at least a pixel on each axis; one without an area, as an empty mask has, stays as it is.

    Args:
        boxes: (x0, y0, x1, y1) in pixel edges.
        share: in [0, 0.5); 0 changes nothing.
        generator: on the CPU.

    Returns:
        Boxes in pixel edges, which may leave the frame by the share.

    Example:
        >>> jitter_box(torch.tensor([[[0.0, 0.0, 10.0, 20.0]]]), 0.0, torch.Generator())
        tensor([[[ 0.,  0., 10., 20.]]])
    """
    if share == 0:
        return boxes
    sides = (boxes[..., 2:] - boxes[..., :2]).repeat_interleave(2, -1)[..., [0, 2, 1, 3]]
    drawn = torch.rand(boxes.shape, generator=generator).to(boxes) * 2 - 1
    loose = boxes + share * drawn * sides
    low, high = loose[..., :2], loose[..., 2:]
    # A small box keeps a pixel: rounded to nothing it would say that there is no lesion.
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=0.5)
    moved = torch.cat([middle - half, middle + half], -1)
    return moved.where(sides > 0, boxes)


def clip_box(boxes: Float[Tensor, "*batch 4"], size: Sequence[int]) -> Float[Tensor, "*batch 4"]:
    """Cut boxes off at the borders of a frame of ``size`` = (height, width).

    Args:
        boxes: (x0, y0, x1, y1) in pixel edges.
        size: (height, width) of the frame.

    Returns:
        The boxes' parts inside the frame; a box outside it has no area.

    Example:
        >>> clip_box(torch.tensor([-3.0, 2.0, 50.0, 9.0]), (10, 40))
        tensor([ 0.,  2., 40.,  9.])
    """
    height, width = size
    clipped = [boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)]
    return torch.stack(clipped, -1).flatten(-2)


def box_profile(
    low: Float[Tensor, "*batch"], high: Float[Tensor, "*batch"], length: int, *, softness: float | Tensor
) -> Float[Tensor, "*batch length"]:
    r"""How much each pixel of an axis lies between two limits: :math:`\sigma((x - l)/t) \, \sigma((h - x)/t)`.

    The outer product of a box's two profiles is its sigmoid-edged mask; most uses need only the profiles.

    Args:
        low: lower limits, pixel edges.
        high: upper limits, pixel edges.
        length: number of pixels of the axis.
        softness: t, in pixels, above 0, a number or (*batch, 1); smaller is harder.

    Returns:
        A number in (0, 1) for each pixel of the axis.

    Example:
        >>> box_profile(torch.tensor(1.0), torch.tensor(3.0), 4, softness=0.01).round()
        tensor([0., 1., 1., 0.])
    """
    centres = pixel_centres(length, low)
    rising = torch.sigmoid((centres - low[..., None]) / softness)
    return rising * torch.sigmoid((high[..., None] - centres) / softness)


def box_to_mask(
    boxes: Float[Tensor, "*batch 4"], size: Sequence[int], *, softness: float
) -> Float[Tensor, "*batch h w"]:
    """A mask in (0, 1) with sigmoid edges: the product of the box's two profiles.

    Args:
        boxes: (x0, y0, x1, y1) in pixel edges.
        size: (height, width) of the mask.
        softness: width of the edges in pixels, see `box_profile`.

    Returns:
        A mask for each box; differentiable in the box.

    Example:
        >>> box_to_mask(torch.tensor([1.0, 0.0, 3.0, 1.0]), (2, 4), softness=0.01).round()
        tensor([[0., 1., 1., 0.],
                [0., 0., 0., 0.]])
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    columns = box_profile(x0, x1, size[1], softness=softness)
    rows = box_profile(y0, y1, size[0], softness=softness)
    return rows[..., :, None] * columns[..., None, :]
