"""What hypothesis draws: soft masks of many kinds and shapes."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


def lesion(height: int, width: int, centre: tuple[float, float], radii: tuple[float, float]) -> Tensor:
    """A hard ellipse (h, w); centre and radii are (y, x)."""
    y = (torch.arange(height) + 0.5)[:, None]
    x = (torch.arange(width) + 0.5)[None, :]
    return ((((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2) <= 1).float()


@st.composite
def soft_masks(draw: st.DrawFn, *, images: int = 2, masks: int = 2, side: int = 14) -> Tensor:
    """Smooth masks in (0, 1), float64, (b, k, h, w), each with a bump of its own: no value at a kink."""
    b, k = draw(st.integers(1, images)), draw(st.integers(1, masks))
    height, width = draw(st.integers(8, side)), draw(st.integers(8, side))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    y = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None] / height
    x = (torch.arange(width, dtype=torch.float64) + 0.5)[None, :] / width
    parts = torch.rand(b, k, 4, 1, 1, generator=generator, dtype=torch.float64)
    centre_y, centre_x = 0.3 + 0.4 * parts[:, :, 0], 0.3 + 0.4 * parts[:, :, 1]
    radius_y, radius_x = 0.1 + 0.15 * parts[:, :, 2], 0.1 + 0.15 * parts[:, :, 3]
    bump = torch.exp(-(((y - centre_y) / radius_y) ** 2) - ((x - centre_x) / radius_x) ** 2)
    noise = torch.rand(b, k, height, width, generator=generator, dtype=torch.float64)
    return 0.02 + 0.9 * bump + 0.05 * noise


def degenerate_masks(height: int = 24, width: int = 32) -> dict[str, Tensor]:
    """Every mask that published code stumbled over, (1, 1, h, w) float32."""
    empty = torch.zeros(height, width)
    one_pixel, one_row, border = empty.clone(), empty.clone(), empty.clone()
    one_pixel[5, 9] = 1
    one_row[7] = 1
    border[:6, :5] = 1
    ring = lesion(height, width, (12, 16), (10, 10)) - lesion(height, width, (12, 16), (6, 6))
    two = torch.maximum(lesion(height, width, (6, 6), (3, 3)), lesion(height, width, (18, 26), (3, 3)))
    masks = {
        "empty": empty,
        "nearly empty": torch.full_like(empty, 1e-4),
        "full": torch.ones_like(empty),
        "one pixel": one_pixel,
        "one row": one_row,
        "border": border,
        "two lesions": two,
        "ring": ring,
        "floor of 0.05": lesion(height, width, (10, 20), (5, 7)).clamp(min=0.05),
        "corner pixel": torch.nn.functional.pad(torch.ones(1, 1), (width - 1, 0, height - 1, 0)),
    }
    return {name: mask[None, None] for name, mask in masks.items()}
