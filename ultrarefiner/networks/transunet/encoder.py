"""The vision transformer between stem and decoder, with fused attention."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.position_embedding import resize_position_grid


class SelfAttention(nn.Module):
    """Every token looks at every token.

    Args:
        width: channels, a multiple of the heads.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Tokens mixed by PyTorch's fused attention; the n x n weights are never stored."""
        query, key, value = self._split(tokens)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected

    def weights(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b heads n n"]:
        """What each token (row) takes from each (column); rows sum to 1, in float32 or wider. For looking at only."""
        query, key, _ = self._split(tokens)
        wide = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            scores = (query.to(wide) * query.shape[-1] ** -0.5) @ key.to(wide).transpose(-2, -1)
            return torch.softmax(scores, -1)

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joined = torch.unflatten(self.query_key_value(tokens), -1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        return query, key, value


class TransformerBlock(nn.Module):
    """Attention, then two linear layers; each normalises first and adds to what came in.

    Args:
        width: channels.
        heads: attention heads.
        hidden: channels between the two linear layers.
        dropout: share of their activations that training sets to 0.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Tokens and what the block adds to them."""
        attended: Tensor = tokens + self.attention(self.attention_norm(tokens))
        out: Tensor = attended + self.mlp(self.mlp_norm(attended))
        return out

    def attention_weights(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b heads n n"]:
        """What the block's attention takes from where (`SelfAttention.weights`)."""
        return self.attention.weights(self.attention_norm(tokens))


class VisionTransformer(nn.Module):
    """Features or pixels to tokens, through a stack of transformer blocks, and back to a map.

    Args:
        inputs: channels of what comes in.
        patch: its pixels along one side of a token: 1 behind a stem, 16 on an image.
        grid: (rows, columns) of the position embeddings; other grids get them interpolated.
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: channels inside a block's linear layers.
        dropout: share of activations that training sets to 0, after the embeddings and in the linear layers.

    Example:
        >>> encoder = VisionTransformer(8, patch=1, grid=(4, 4), width=16, depth=1, heads=2, hidden=32, dropout=0.0)
        >>> encoder(torch.rand(2, 8, 4, 6)).shape
        torch.Size([2, 16, 4, 6])

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
    """

    def __init__(
        self,
        inputs: int,
        *,
        patch: int,
        grid: tuple[int, int],
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(inputs, width, patch, stride=patch)
        self.position_embedding = nn.Parameter(torch.zeros(1, width, *grid))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width gh gw"]:
        """The last block's tokens, normalised, as a map."""
        tokens, grid = self.embed(features)
        for block in self.blocks:
            tokens = block(tokens)
        return torch.unflatten(self.norm(tokens).transpose(1, 2), 2, grid)

    def embed(self, features: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n width"], tuple[int, int]]:
        """Tokens row by row, with their positions, and the (rows, columns) they came from."""
        weight = self.patch_embedding.weight
        if features.shape[1] == 1 < weight.shape[1]:
            weight = weight.sum(1, keepdim=True)  # a grey image is one of equal colours
        stride = self.patch_embedding.stride
        embedded = functional.conv2d(features, weight, self.patch_embedding.bias, stride)
        grid = (embedded.shape[-2], embedded.shape[-1])
        embedded = embedded + resize_position_grid(self.position_embedding, grid).to(embedded.dtype)
        return self.dropout(embedded.flatten(2).transpose(1, 2)), grid
