"""A transformer in which tokens and the cells of a grid look at each other, under the names that SegVol's weights have.

It is Segment Anything's, which SegVol took over unchanged, on rows of cells of any number of axes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = 2
"""How many times tokens and cells look at each other."""


class Perceptron(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: channels before the first layer, between the layers, and after the last.

    Example:
        >>> import torch
        >>> Perceptron((4, 8, 2))(torch.rand(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, features: Float[Tensor, "*shape channels"]) -> Float[Tensor, "*shape out"]:
        """The last layer's numbers, which may be negative."""
        for layer in self.layers[:-1]:
            features = layer(features).relu()
        answer: Tensor = self.layers[-1](features)
        return answer


class HeadedAttention(nn.Module):
    r"""Attention with several heads, in a space of its own.

    .. math:: \text{softmax}(q k^\top / \sqrt{c}) v \text{ for each head of } c \text{ channels}

    Args:
        width: channels of what comes in and goes out.
        inner: channels in which it compares, a multiple of ``heads``.
        heads: how many.

    Example:
        >>> import torch
        >>> HeadedAttention(8, inner=4, heads=2)(torch.rand(1, 3, 8), torch.rand(1, 5, 8), torch.rand(1, 5, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, width: int, *, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(
        self, asking: Float[Tensor, "b n c"], asked: Float[Tensor, "b m c"], told: Float[Tensor, "b m c"]
    ) -> Float[Tensor, "b n c"]:
        """For each who asks, a mean of what is told, by how much it fits."""
        query, key, value = (
            rearrange(project(part), "b n (heads c) -> b heads n c", heads=self.heads)
            for project, part in ((self.q_proj, asking), (self.k_proj, asked), (self.v_proj, told))
        )
        heard = functional.scaled_dot_product_attention(query, key, value)
        answer: Tensor = self.out_proj(rearrange(heard, "b heads n c -> b n (heads c)"))
        return answer


class TwoWayBlock(nn.Module):
    """Tokens look at each other, then at the cells; think; then the cells look at the tokens.

    Every step is added to what was there, and normalised. Who is looked at is known by features and place together.

    Args:
        width: channels of tokens and cells.
        heads: attention heads; between tokens and cells they share half of the channels.
        hidden: channels inside the linear layers.
        first: the first block, whose tokens look at each other without their places, and whose answer replaces them.

    Example:
        >>> import torch
        >>> block = TwoWayBlock(8, heads=2, hidden=16, first=True)
        >>> tokens, cells = torch.rand(1, 3, 8), torch.rand(1, 5, 8)
        >>> [part.shape for part in block(tokens, cells, tokens, torch.zeros(1, 5, 8))]
        [torch.Size([1, 3, 8]), torch.Size([1, 5, 8])]
    """

    def __init__(self, width: int, *, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = HeadedAttention(width, inner=width, heads=heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = HeadedAttention(width, inner=width // 2, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        layers = {"lin1": nn.Linear(width, hidden), "act": nn.ReLU(), "lin2": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = HeadedAttention(width, inner=width // 2, heads=heads)

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        cells: Float[Tensor, "b m c"],
        token_places: Float[Tensor, "b n c"],
        cell_places: Float[Tensor, "1 m c"],
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b m c"]]:
        """Both after the block."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_places
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_cells = cells + cell_places
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_places, placed_cells, cells))
        tokens = self.norm3(tokens + self.mlp(tokens))
        cells = self.norm4(cells + self.cross_attn_image_to_token(placed_cells, tokens + token_places, tokens))
        return tokens, cells


class TwoWayTransformer(nn.Module):
    """`BLOCKS` blocks, and a last look of the tokens at the cells. A token's place is what it was at first.

    Args:
        width: channels of tokens and cells.
        heads: attention heads.
        hidden: channels inside the blocks' linear layers.

    Example:
        >>> import torch
        >>> transformer = TwoWayTransformer(8, heads=2, hidden=16)
        >>> tokens, cells = transformer(torch.rand(2, 3, 8), torch.rand(2, 5, 8), torch.rand(1, 5, 8))
        >>> tokens.shape, cells.shape
        (torch.Size([2, 3, 8]), torch.Size([2, 5, 8]))

    Kirillov et al., "Segment Anything", ICCV 2023, appendix A.
    """

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, heads=heads, hidden=hidden, first=index == 0) for index in range(BLOCKS)
        )
        self.final_attn_token_to_image = HeadedAttention(width, inner=width // 2, heads=heads)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, tokens: Float[Tensor, "b n c"], cells: Float[Tensor, "b m c"], cell_places: Float[Tensor, "1 m c"]
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b m c"]]:
        """Tokens that know the cells, and cells that know the tokens."""
        answers = tokens
        for block in self.layers:
            answers, cells = block(answers, cells, tokens, cell_places)
        looked = self.final_attn_token_to_image(answers + tokens, cells + cell_places, cells)
        return self.norm_final_attn(answers + looked), cells
