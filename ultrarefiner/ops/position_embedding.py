"""Position embeddings of a vision transformer on another grid of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def position_grid(tokens: Float[Tensor, "1 n c"]) -> Float[Tensor, "1 c side side"]:
    """A row of position embeddings as the square grid they belong to; a class token in front is dropped.

    Args:
        tokens: row by row; n or n - 1 must be a square number.

    Raises:
        ValueError: neither is.

    Example:
        >>> import torch
        >>> position_grid(torch.zeros(1, 197, 8)).shape
        torch.Size([1, 8, 14, 14])
    """
    count = tokens.shape[1] if tokens.ndim == 3 else 0
    for class_tokens in (0, 1):
        side = math.isqrt(max(0, count - class_tokens))
        if side and side * side == count - class_tokens:
            return tokens[:, class_tokens:].transpose(1, 2).reshape(1, -1, side, side)
    message = (
        "tokens must be (1, n, channels) with n a square number, or one more for a class token in front, but their "
        f"shape is {tuple(tokens.shape)}; reshape those of a grid that is not square to (1, channels, rows, columns)."
    )
    raise ValueError(message)


def resize_position_grid(grid: Float[Tensor, "1 c h w"], size: Sequence[int]) -> Float[Tensor, "1 c new_h new_w"]:
    """Position embeddings on another grid: bilinear, corners on corners; exactly as it is where the grid is the same.

    The same numbers as ``scipy.ndimage.zoom(order=1)``, with which TransUNet's published code resizes them.

    Args:
        grid: the embeddings.
        size: (rows, columns) of the new grid.

    Example:
        >>> import torch
        >>> resize_position_grid(torch.tensor([[[[0.0, 1.0]]]]), (1, 3))
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    # Not skipped where the grid is the same: a branch would tie an exported graph to one size of image.
    return functional.interpolate(grid, (size[0], size[1]), mode="bilinear", align_corners=True)
