"""Points, boxes and text to the tokens that SegVol's decoder is told."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from ultrarefiner.networks.segvol.position import FourierPositions, PEOrder

Points = tuple[Real[Tensor, "b n 3"], Int[Tensor, "b n"]]
"""Voxel indices (z, y, x), and 1 for the object, 0 for background, -1 for no point."""


class VolumePromptEncoder(nn.Module):
    """Each point, each of a box's two corners, and a text become one token.

    A token is the Fourier features of where it is plus what it is, which is learned: background, object, first corner,
    last corner. A point that is none (label -1) is a learned token of its own; one such follows the points wherever
    there is no box, as in Segment Anything.

    Args:
        width: channels of a token.
        volume_size: (D, H, W) of the network's input, in whose voxel indices prompts are.
        pe_order: "legacy" for published weights, "aligned" for new ones; see `FourierPositions`.

    Example:
        >>> encoder = VolumePromptEncoder(8, volume_size=(8, 16, 16), pe_order="aligned")
        >>> points = torch.tensor([[[3.0, 4.0, 5.0], [0.0, 9.0, 9.0]]]), torch.tensor([[1, 0]])
        >>> encoder(points=points).shape, encoder(boxes=torch.tensor([[1.0, 2, 3, 6, 12, 13]])).shape
        (torch.Size([1, 3, 8]), torch.Size([1, 2, 8]))

    Du et al., "SegVol: Universal and Interactive Volumetric Medical Image Segmentation", arXiv 2311.13385.
    """

    def __init__(self, width: int, *, volume_size: tuple[int, int, int], pe_order: PEOrder) -> None:
        super().__init__()
        self.pe_layer = FourierPositions(width // 2, volume_size=volume_size, order=pe_order)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(
        self,
        *,
        points: Points | None = None,
        boxes: Real[Tensor, "b 6"] | None = None,
        text: Float[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b tokens c"]:
        """Tokens of the points, then of the box, then of the text.

        Args:
            points: voxel indices (z, y, x) of n points each, and their labels.
            boxes: (z0, y0, x0, z1, y1, x1), the voxel indices of the box's first and last corner.
            text: an embedding of as many channels as a token has.

        Returns:
            n tokens of points, one more if there is no box; two of a box; one of a text.
        """
        tokens = []
        if points is not None:
            tokens.append(self._of_points(*points))
            if boxes is None:
                tokens.append(self.not_a_point_embed.weight.expand(points[0].shape[0], 1, -1))
        if boxes is not None:
            corners = rearrange(boxes, "b (corner zyx) -> b corner zyx", zyx=3)
            tokens.append(self._placed(corners) + self._kinds()[2:])
        if text is not None:
            tokens.append(text[:, None].to(self.not_a_point_embed.weight.dtype))
        return torch.cat(tokens, 1)

    def dense(self) -> Float[Tensor, "1 c 1 1 1"]:
        """What is added to every cell of the embedding: that no mask was given."""
        embedding: Tensor = self.no_mask_embed.weight[:, :, None, None, None]
        return embedding

    def _of_points(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        background, lesion = self._kinds()[:2]
        kind = labels[..., None]
        encoded = self._placed(coordinates) + torch.where(kind == 1, lesion, background)
        return torch.where(kind == -1, self.not_a_point_embed.weight, encoded)

    def _placed(self, indices: Tensor) -> Tensor:
        features: Tensor = self.pe_layer(indices)
        return features.to(self.no_mask_embed.weight.dtype)

    def _kinds(self) -> Tensor:
        return torch.cat([cast("nn.Embedding", kind).weight for kind in self.point_embeddings])
