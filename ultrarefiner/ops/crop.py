"""Crop regions out of pictures and paste them back: an exact inverse pair, differentiable in picture and boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.ops.coordinates import accumulation_dtype, pixel_centres


def crop_to_boxes(
    pictures: Float[Tensor, "n c h w"],
    boxes: Float[Tensor, "n 4"],
    size: Sequence[int],
    *,
    padding: str = "zeros",
) -> Float[Tensor, "n c new_h new_w"]:
    """Cut one box out of each picture and resample it to ``size``, bilinearly.

    Output pixel u (centre u + 1/2) shows the position ``x0 + (u + 1/2) / new_w * (x1 - x0)``. A linear ramp keeps its
    mean: cropped from [40, 80] it has the mean 60. There is no antialiasing: a box with far more pixels than ``size``
    is subsampled.

    Args:
        pictures: any number of channels.
        boxes: (x0, y0, x1, y1) in pixel edges, one a picture; parts outside the picture are padding.
        size: (height, width) of the result.
        padding: "zeros", or "border" to repeat the picture's outermost pixels.

    Returns:
        The crops; differentiable in the pictures and in the boxes.

    Example:
        >>> ramp = torch.arange(100.0).add(0.5).expand(1, 1, 100, 100)
        >>> round(crop_to_boxes(ramp, torch.tensor([[40.0, 40.0, 80.0, 80.0]]), (64, 64)).mean().item(), 4)
        60.0
    """
    height, width = pictures.shape[-2:]
    x0, y0, x1, y1 = boxes.unbind(-1)
    horizontal = _positions(x0, x1, size[1]) * (2 / width) - 1
    vertical = _positions(y0, y1, size[0]) * (2 / height) - 1
    crops = _sample(pictures, horizontal, vertical)
    # Sampling with zeros would fade the outermost half pixel of the picture.
    return crops * _inside(horizontal, vertical) if padding == "zeros" else crops


def paste_from_boxes(
    crops: Float[Tensor, "n c crop_h crop_w"],
    boxes: Float[Tensor, "n 4"],
    size: Sequence[int],
    *,
    background: Float[Tensor, "n c h w"] | float,
) -> Float[Tensor, "n c h w"]:
    """Put each crop back where it was cut out; every pixel whose centre lies outside the box is the background's.

    The inverse of `crop_to_boxes`: inside the box, cropping and pasting returns the picture, exactly where the crop's
    pixels include the picture's (its side an odd multiple of the box's), and to bilinear accuracy elsewhere.

    Args:
        crops: what `crop_to_boxes` returned, or something of the same place.
        boxes: the boxes of the crops, in pixel edges.
        size: (height, width) of the result.
        background: what stands outside the boxes: a picture of that size, or one number.

    Returns:
        The pictures; differentiable in crops, background and, through the positions inside, boxes.

    Example:
        >>> box = torch.tensor([[2.0, 2.0, 6.0, 6.0]])
        >>> paste_from_boxes(torch.ones(1, 1, 8, 8), box, (8, 8), background=-9.0)[0, 0, 0, 0].item()
        -9.0
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    columns, rows = pixel_centres(size[1], boxes), pixel_centres(size[0], boxes)
    horizontal = 2 * (columns - x0[:, None]) / _side(x0, x1) - 1
    vertical = 2 * (rows - y0[:, None]) / _side(y0, y1) - 1
    return torch.where(_inside(horizontal, vertical), _sample(crops, horizontal, vertical), background)


def _positions(low: Tensor, high: Tensor, count: int) -> Tensor:
    return low[:, None] + pixel_centres(count, low) / count * (high - low)[:, None]


def _side(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=1e-6)[:, None]


def _inside(horizontal: Tensor, vertical: Tensor) -> Tensor:
    return ((horizontal.abs() < 1)[:, None, None, :]) & ((vertical.abs() < 1)[:, None, :, None])


def _sample(pictures: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    """Bilinear samples, the border repeated; positions and sums in float32 or wider, whatever the pictures' dtype."""
    rows, columns = vertical.shape[1], horizontal.shape[1]
    grid = torch.stack([horizontal[:, None, :].expand(-1, rows, -1), vertical[:, :, None].expand(-1, -1, columns)], -1)
    wide = torch.promote_types(accumulation_dtype(pictures), grid.dtype)
    with torch.autocast(pictures.device.type, enabled=False):
        sampled = functional.grid_sample(
            pictures.to(wide), grid.to(wide), mode="bilinear", padding_mode="border", align_corners=False
        )
    return sampled.to(pictures.dtype)
