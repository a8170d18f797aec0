"""Where a voxel is, as random Fourier features, and the order of axes in which SegVol's weights saw it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from ultrarefiner.ops.coordinates import accumulation_dtype, index_to_edge, pixel_centres

PEOrder = Literal["legacy", "aligned"]
"""In which order of axes prompts are encoded: as the published code has it, or as the volume's own grid."""

PE_ORDERS: tuple[PEOrder, ...] = ("legacy", "aligned")


class FourierPositions(nn.Module):
    """Positions in a volume to ``2 * features`` numbers: sines and cosines of random projections.

    A voxel (z, y, x) of a volume (D, H, W) is u = ((y + 0.5) / H, (z + 0.5) / D, (x + 0.5) / W), and its features are
    sin and cos of 2 pi (2u - 1) G with a fixed random matrix G. The published code encodes the embedding's grid so,
    but prompts as ((z + 0.5) / H, (y + 0.5) / D, (x + 0.5) / W): rows and slices are exchanged and each is divided by
    the other's length, so that a prompt does not look like the place it is at. Its weights were trained with that.

    Args:
        features: columns of G.
        volume_size: (D, H, W) of the network's input.
        order: "legacy" for prompts as the published weights know them, "aligned" for u.

    Example:
        >>> positions = FourierPositions(4, volume_size=(8, 16, 16), order="aligned")
        >>> grid = positions.grid((8, 16, 16))
        >>> grid.shape, torch.allclose(positions(torch.tensor([[5, 2, 7]]))[0], grid[0, :, 5, 2, 7], atol=1e-5)
        (torch.Size([1, 8, 8, 16, 16]), True)

    Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions", NeurIPS 2020; Du et al., "SegVol",
    arXiv 2311.13385 (github.com/BAAI-DCAI/SegVol).
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int, *, volume_size: tuple[int, int, int], order: PEOrder) -> None:
        super().__init__()
        self.volume_size = volume_size
        self.order = order
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, features))

    def forward(self, indices: Real[Tensor, "*shape 3"]) -> Float[Tensor, "*shape features"]:
        """Features of voxel indices (z, y, x); float32, or float64 where the indices are."""
        edges = index_to_edge(indices if indices.is_floating_point() else indices.float())
        z, y, x = edges.to(accumulation_dtype(edges)).unbind(-1)
        depth, height, width = self.volume_size
        first, second = (z, y) if self.order == "legacy" else (y, z)
        return self._features(torch.stack([first / height, second / depth, x / width], -1))

    def grid(self, size: tuple[int, int, int]) -> Float[Tensor, "1 features d h w"]:
        """Features of the cells' centres of a grid over the whole volume."""
        matrix = self.positional_encoding_gaussian_matrix
        z, y, x = torch.meshgrid(*(pixel_centres(length, matrix) / length for length in size), indexing="ij")
        return self._features(torch.stack([y, z, x], -1)).permute(3, 0, 1, 2)[None]

    def _features(self, unit: Tensor) -> Tensor:
        centred = 2 * unit - 1
        matrix = self.positional_encoding_gaussian_matrix.to(centred.dtype)
        # A sum of products: autocast would run a matmul in half precision, which moves points by voxels.
        angle = 2 * math.pi * (centred[..., None] * matrix).sum(-2)
        return torch.cat([torch.sin(angle), torch.cos(angle)], -1)
