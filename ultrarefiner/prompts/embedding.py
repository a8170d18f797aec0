"""Prompts from SAM's own embedding of an image, with no click and no box: Automatic MedSAM's prompt module."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.coordinates import edge_to_index
from ultrarefiner.types import Prompts


class PromptModule(nn.Module):
    r"""Predict a dense embedding, points with soft labels and a box from SAM's embedding of an image.

    Two branches. Dense: 1x1 convolution, ReLU, 3x3 convolution. Sparse: 1x1 convolution, ReLU, adaptive max-pooling,
    and fully connected heads for the points' places, their labels and the box, each with a sigmoid. Places are shares
    of SAM's frame, :math:`(x, y) \cdot size - 1/2` as pixel indices; the box's corners are put in order.

    A label is not rounded: a point's token lies between SAM's "background" and "lesion" tokens, so that the label head
    learns (`Prompts.positive_probability`). With the defaults it has 4,559,507 parameters.

    Args:
        channels: of SAM's embedding.
        hidden: of both branches.
        points: how many.
        pooled: side of the raster that the sparse branch is pooled to.
        image_size: side of SAM's frame, in pixels.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> prompts = PromptModule(channels=32, hidden=8, image_size=64)(torch.rand(2, 32, 4, 4))
        >>> prompts.points.shape, prompts.boxes.shape, prompts.dense_embedding.shape
        (torch.Size([2, 1, 5, 2]), torch.Size([2, 1, 4]), torch.Size([2, 1, 32, 4, 4]))

    Automatic MedSAM (github.com/vinhnamhai321/AutoMedSAM), after Gaillochet et al., arXiv 2409.20293, whose own module
    is `TokenPromptModule`.
    """

    def __init__(
        self, *, channels: int = 256, hidden: int = 128, points: int = 5, pooled: int = 8, image_size: int = 1024
    ) -> None:
        super().__init__()
        _check(channels=channels, hidden=hidden, points=points, pooled=pooled, image_size=image_size)
        self.channels, self.hidden = channels, hidden
        self.points, self.pooled, self.image_size = points, pooled, image_size
        self.dense = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 3, padding=1))
        self.sparse = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(pooled), nn.Flatten()
        )
        width = hidden * pooled**2
        self.point_head = _head(width, 2 * hidden, 2 * points)
        self.label_head = _head(width, hidden, points)
        self.box_head = _head(width, hidden, 4)
        for parameter in self.parameters():
            _ = nn.init.xavier_uniform_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def forward(self, embeddings: Float[Tensor, "b d h w"]) -> Prompts:
        """The prompts of each image, for one mask each; all valid.

        Args:
            embeddings: SAM's of the images.

        Returns:
            Points with soft labels, a box and a dense embedding.
        """
        seen = self.sparse(embeddings)
        places = rearrange(self.point_head(seen).sigmoid(), "b (n xy) -> b 1 n xy", xy=2)
        corners = rearrange(self.box_head(seen).sigmoid(), "b (corner xy) -> b 1 corner xy", xy=2)
        boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
        return Prompts(
            points=self._indices(places),
            labels=None,
            boxes=self._indices(boxes),
            mask_logits=None,
            valid=torch.ones(len(embeddings), 1, dtype=torch.bool, device=embeddings.device),
            positive_probability=self.label_head(seen).sigmoid()[:, None].float(),
            dense_embedding=self.dense(embeddings)[:, None],
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's numbers."""
        names = ("channels", "hidden", "points", "pooled", "image_size")
        return {"prompts": "embedding", **{name: getattr(self, name) for name in names}}

    def _indices(self, unit: Tensor) -> Tensor:
        """Shares of the frame to pixel indices, in float32 at least: under autocast a place would move by pixels."""
        wide = unit if unit.dtype == torch.float64 else unit.float()
        return edge_to_index(wide * self.image_size)


class TokenPromptModule(nn.Module):
    """Predict a dense embedding and sparse tokens directly, with no coordinates in between.

    A shared 1x1 convolution with ReLU; dense: 3x3 convolution with ReLU; sparse: 1x1 convolution to half the channels,
    ReLU, adaptive max-pooling, one fully connected layer to the tokens. Nothing passes through SAM's prompt encoder, so
    nothing is rounded. With the defaults it has 2,433,984 parameters.

    Args:
        channels: of SAM's embedding.
        hidden: of the shared branch.
        tokens: how many; the paper's "number of points" plus one.
        pooled: side of the raster that the sparse branch is pooled to.

    Raises:
        ValueError: a number below 1, or an odd number of hidden channels.

    Example:
        >>> prompts = TokenPromptModule(channels=32, hidden=8)(torch.rand(2, 32, 4, 4))
        >>> prompts.tokens.shape, prompts.dense_embedding.shape
        (torch.Size([2, 1, 2, 32]), torch.Size([2, 1, 32, 4, 4]))

    Gaillochet et al., arXiv 2409.20293 (github.com/Minimel/MedSAMWeakFewShotPromptAutomation).
    """

    def __init__(self, *, channels: int = 256, hidden: int = 128, tokens: int = 2, pooled: int = 8) -> None:
        super().__init__()
        _check(channels=channels, hidden=hidden, tokens=tokens, pooled=pooled)
        if hidden % 2:
            message = f"hidden must be even, but it is {hidden}; the sparse branch has half of it."
            raise ValueError(message)
        self.channels, self.hidden, self.tokens, self.pooled = channels, hidden, tokens, pooled
        self.trunk = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU())
        self.dense = nn.Sequential(nn.Conv2d(hidden, channels, 3, padding=1), nn.ReLU())
        self.sparse = nn.Sequential(
            nn.Conv2d(hidden, hidden // 2, 1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(pooled),
            nn.Flatten(),
            nn.Linear(hidden // 2 * pooled**2, tokens * channels),
        )

    def forward(self, embeddings: Float[Tensor, "b d h w"]) -> Prompts:
        """The prompts of each image, for one mask each; all valid.

        Args:
            embeddings: SAM's of the images.

        Returns:
            Tokens and a dense embedding.
        """
        seen = self.trunk(embeddings)
        return Prompts(
            points=None,
            labels=None,
            boxes=None,
            mask_logits=None,
            valid=torch.ones(len(embeddings), 1, dtype=torch.bool, device=embeddings.device),
            tokens=rearrange(self.sparse(seen), "b (t d) -> b 1 t d", t=self.tokens),
            dense_embedding=self.dense(seen)[:, None],
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's numbers."""
        names = ("channels", "hidden", "tokens", "pooled")
        return {"prompts": "embedding tokens", **{name: getattr(self, name) for name in names}}


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            message = f"{name} must be at least 1, but it is {number}."
            raise ValueError(message)
