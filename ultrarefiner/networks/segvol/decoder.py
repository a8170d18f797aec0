"""SegVol's mask decoder: tokens and a volume's embedding look at each other, and tokens become masks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.networks.segvol.two_way import Perceptron, TwoWayTransformer

UPSCALING = 4
"""Cells of the mask logits a cell of the embedding, on each axis."""

CANDIDATES = 3
"""Masks for one prompt with ``multimask``; one more is the mask without it."""


class VolumeMaskDecoder(nn.Module):
    """Prompt tokens and an embedding to mask logits at four times the embedding's grid, and an IoU estimate.

    Segment Anything's decoder in three dimensions. Its normalisation while upscaling covers the whole grid, with a
    weight for each cell, so that it fits one size of volume only. A text is compared with each upscaled cell, and the
    similarity is added to the logits.

    Args:
        width: channels of embedding and tokens.
        embedding_size: (d, h, w) of the embedding.
        heads: attention heads.
        hidden: channels inside the transformer's linear layers.
        iou_hidden: channels inside the head that estimates IoU.

    Example:
        >>> decoder = VolumeMaskDecoder(16, embedding_size=(2, 2, 3), heads=2, hidden=16, iou_hidden=8)
        >>> embedding, tokens = torch.rand(5, 16, 2, 2, 3), torch.rand(5, 4, 16)
        >>> [tuple(part.shape) for part in decoder(embedding, torch.zeros(1, 16, 2, 2, 3), tokens, multimask=True)]
        [(5, 3, 8, 8, 12), (5, 3)]

    Du et al., "SegVol", arXiv 2311.13385; Kirillov et al., "Segment Anything", ICCV 2023, whose transformer
    `TwoWayTransformer` is.
    """

    def __init__(
        self, width: int, *, embedding_size: tuple[int, int, int], heads: int, hidden: int, iou_hidden: int
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(width, heads=heads, hidden=hidden)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(1 + CANDIDATES, width)
        middle, last = width // 4, width // 8
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(width, middle, 2, stride=2),
            nn.LayerNorm((middle, *(2 * length for length in embedding_size))),
            nn.GELU(),
            nn.ConvTranspose3d(middle, last, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron((width, width, width, last)) for _ in range(1 + CANDIDATES)
        )
        self.iou_prediction_head = Perceptron((width, iou_hidden, iou_hidden, 1 + CANDIDATES))
        self.txt_align_upscaled_embedding = nn.Linear(width, last)

    def forward(
        self,
        embedding: Float[Tensor, "b c d h w"],
        position: Float[Tensor, "1 c d h w"],
        tokens: Float[Tensor, "b t c"],
        *,
        text: Float[Tensor, "b c"] | None = None,
        multimask: bool = False,
    ) -> tuple[Float[Tensor, "b m low_d low_h low_w"], Float[Tensor, "b m"]]:
        """Mask logits and estimates of IoU.

        Args:
            embedding: of the volumes, the prompts' dense embedding added.
            position: of the embedding's grid.
            tokens: of the prompts, the text's included.
            text: the same text, to be compared with the voxels.
            multimask: three candidates in place of one mask.

        Returns:
            Logits on a grid ``UPSCALING`` times finer than the embedding's, and one number for each mask.
        """
        chosen = slice(1, None) if multimask else slice(0, 1)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(tokens.shape[0], -1, -1)
        rows = [part.flatten(2).transpose(1, 2) for part in (embedding, position)]
        answers, cells = self.transformer(torch.cat([own, tokens], 1), *rows)
        upscaled = self.output_upscaling(cells.transpose(1, 2).reshape(embedding.shape))
        heads = list(self.output_hypernetworks_mlps)[chosen]
        asked = answers[:, 1 : 2 + CANDIDATES][:, chosen].unbind(1)
        kernels = torch.stack([head(answer) for head, answer in zip(heads, asked, strict=True)], 1)
        if text is not None:  # a sum of two products with the same voxels
            kernels = kernels + self.txt_align_upscaled_embedding(text)[:, None]
        logits = torch.einsum("bmc,bcdhw->bmdhw", kernels, upscaled)
        return logits, self.iou_prediction_head(answers[:, 0])[:, chosen]
