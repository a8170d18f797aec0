"""Which pixels of a mask lie in a box: whole pixels, by coordinates, without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.ops.coordinates import accumulation_dtype


@dataclass(frozen=True)
class BoxRegion:
    """The rows and columns of boxes; a pixel is inside where both its row and its column are.

    Attributes:
        rows: True for the rows of each box; none for an empty box.
        columns: True for the columns of each box; none for an empty box.
    """

    rows: Bool[Tensor, "b k h"]
    columns: Bool[Tensor, "b k w"]

    @property
    def inside(self) -> Bool[Tensor, "b k h w"]:
        """True for the pixels inside."""
        return self.rows[..., :, None] & self.columns[..., None, :]

    @property
    def area(self) -> Int[Tensor, "b k"]:
        """Number of pixels inside; 0 for an empty box."""
        return self.rows.sum(-1) * self.columns.sum(-1)


def box_region(boxes: Float[Tensor, "b k 4"], size: Sequence[int]) -> BoxRegion:
    """The whole pixels of boxes: edges rounded to the nearest one, cut off at the frame.

    Rounding, not cutting the fraction off: an edge that was divided by the width and multiplied by it again may come
    back a hair below the whole number, and cutting would move it by a pixel. A half goes to the even edge. A box
    without a pixel of the frame (no area after rounding, the right edge left of the left one, or outside the frame)
    is empty: it has no row and no column. A NaN makes it empty too. No gradient reaches the boxes.

    Args:
        boxes: (x0, y0, x1, y1) in pixel edges.
        size: (height, width) of the frame.

    Example:
        >>> import torch
        >>> region = box_region(torch.tensor([[[0.9999, 1.0, 3.0001, 9.0]]]), (3, 4))
        >>> region.inside[0, 0].int()
        tensor([[0, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 1, 1, 0]], dtype=torch.int32)
        >>> region.area
        tensor([[4]])
    """
    height, width = size
    x0, y0, x1, y1 = boxes.detach().to(accumulation_dtype(boxes)).round().unbind(-1)
    rows, columns = _between(y0, y1, height), _between(x0, x1, width)
    filled = rows.any(-1, keepdim=True) & columns.any(-1, keepdim=True)
    return BoxRegion(rows & filled, columns & filled)


def aligned_boxes(
    logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]
) -> tuple[Float[Tensor, "b k h w"], BoxRegion]:
    """Check that there is one box for each mask, widen the logits to float32 (float64 stays) and find the pixels.

    Args:
        logits: mask logits, of any floating dtype.
        boxes: (x0, y0, x1, y1) in pixel edges of the masks.

    Raises:
        ValueError: if the logits are not (b, k, h, w), the boxes not (b, k, 4), or a coordinate is NaN (values are not
            read on an accelerator).

    Example:
        >>> import torch
        >>> logits, region = aligned_boxes(torch.zeros(1, 1, 2, 2).half(), torch.tensor([[[0.0, 0.0, 1.0, 2.0]]]))
        >>> logits.dtype, region.area.item()
        (torch.float32, 2)
    """
    if logits.ndim != 4:
        message = (
            f"logits must be (b, k, h, w), b images with k masks each; got shape {tuple(logits.shape)}. "
            "Add the missing axes, for example logits[:, None]."
        )
        raise ValueError(message)
    check_boxes(boxes, "boxes", tuple(logits.shape[:2]))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide, box_region(boxes, (logits.shape[-2], logits.shape[-1]))


def check_boxes(boxes: Float[Tensor, "b k 4"], name: str, masks: tuple[int, ...]) -> None:
    """Check that there is one box for each mask, without a NaN.

    Args:
        boxes: (x0, y0, x1, y1).
        name: what they are called where the user passed them.
        masks: (b, k), the number of images and of masks in each.

    Raises:
        ValueError: if the shape is not (b, k, 4), or a coordinate is NaN (values are not read on an accelerator).

    Example:
        >>> import torch
        >>> check_boxes(torch.zeros(2, 1, 4), "boxes", (2, 1))
    """
    if tuple(boxes.shape) != (*masks, 4):
        message = (
            f"{name} must be (b, k, 4) = {(*masks, 4)}, one box (x0, y0, x1, y1) for each mask; "
            f"got shape {tuple(boxes.shape)}. Add the missing axes, for example {name}[:, None]."
        )
        raise ValueError(message)
    if boxes.device.type == "cpu" and bool(boxes.isnan().any()):
        message = (
            f"{name} must be numbers, pixel edges of the mask; got NaN. "
            "Give a case without a lesion the empty box (0, 0, 0, 0)."
        )
        raise ValueError(message)


def _between(low: Float[Tensor, "b k"], high: Float[Tensor, "b k"], length: int) -> Bool[Tensor, "b k n"]:
    index = torch.arange(length, device=low.device, dtype=low.dtype)
    return (index >= low[..., None]) & (index < high[..., None])
