"""TransUNet: a ResNet stem, a transformer, a cascaded decoder; with side heads it is MicroSegNet."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.networks.transunet.decoder import CascadedDecoder
from ultrarefiner.networks.transunet.encoder import TransformerBlock, VisionTransformer
from ultrarefiner.networks.transunet.stem import ResNetV2Stem
from ultrarefiner.ops.checks import check_layout
from ultrarefiner.types import MultiScaleLogits

STRIDE = 16
"""Input pixels a token, on each axis."""

# torch.export must know how to take a result apart; nothing else depends on it.
torch.export.register_dataclass(MultiScaleLogits, serialized_type_name="ultrarefiner.types.MultiScaleLogits")


class TransUNet(nn.Module):
    """Images to mask logits; `build_transunet` and `build_microsegnet` hold the numbers.

    Args:
        stem: images to features at 1/16 and skips; None lets the encoder see the pixels.
        encoder: the transformer.
        decoder: its map to maps at 1/8, 1/4, 1/2 and 1.
        head: the last map to logits.
        side_heads: the maps at 1/8, 1/4 and 1/2 to logits, for deep supervision; None for none.
        name: which published size this is, for `settings`.

    After Chen et al., "TransUNet", arXiv 2102.04306 (github.com/Beckschen/TransUNet) and Jiang et al., "MicroSegNet",
    arXiv 2305.19956 (github.com/mirthAI/MicroSegNet).
    """

    def __init__(
        self,
        *,
        stem: ResNetV2Stem | None,
        encoder: VisionTransformer,
        decoder: CascadedDecoder,
        head: nn.Conv2d,
        side_heads: nn.ModuleList | None = None,
        name: str = "custom",
    ) -> None:
        super().__init__()
        self.stem = stem
        self.encoder = encoder
        self.decoder = decoder
        self.side_heads = side_heads
        self.head = head
        self.name = name

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"] | MultiScaleLogits:
        """Segment.

        Args:
            images: grey or RGB; height and width are multiples of 16. The published weights saw [0, 1], with neither
                mean nor standard deviation taken out.

        Returns:
            Logits on the images' pixels; with side heads `MultiScaleLogits`, whose side logits lie at 1/8, 1/4
            and 1/2. Under automatic mixed precision they come in its dtype.

        Raises:
            ValueError: images of another rank, number of channels or dtype, or a side that is no multiple of 16.
        """
        _check(images, self.head.weight.dtype)
        features, skips = self._features(images)
        maps = self.decoder(self.encoder(features), skips)
        logits: Tensor = self.head(maps[-1])
        if self.side_heads is None:
            return logits
        sides = zip(self.side_heads, maps[:-1], strict=True)
        return MultiScaleLogits(logits, tuple(head(features) for head, features in sides))

    @torch.no_grad()
    def attention_weights(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b layers heads n n"]:
        """What each patch (row) takes from each patch (column), in every block.

        Args:
            images: as for `forward`.

        Returns:
            Weights whose rows sum to 1, patches row by row, in float32 or wider, without a gradient. They take b x
            layers x heads x n x n numbers: 22 MB an image for R50-ViT-B/16 at 224 pixels. In training mode dropout
            acts, and two calls differ.
        """
        _check(images, self.head.weight.dtype)
        tokens, _ = self.encoder.embed(self._features(images)[0])
        weights = []
        for block in self.encoder.blocks:
            weights.append(cast("TransformerBlock", block).attention_weights(tokens))
            tokens = block(tokens)
        return torch.stack(weights, 1)

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        return {
            "name": self.name,
            "classes": self.head.out_channels,
            "grid": list(self.encoder.position_embedding.shape[-2:]),
            "side_heads": 0 if self.side_heads is None else len(self.side_heads),
            "dropout": self.encoder.dropout.p,
        }

    def _features(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return (images, ()) if self.stem is None else self.stem(images)


def _check(images: Tensor, dtype: torch.dtype) -> None:
    check_layout(images)
    if images.dtype != dtype and not torch.is_autocast_enabled(images.device.type):
        message = (
            f"images must have the dtype of the network's weights, {dtype}, but theirs is {images.dtype}; convert them "
            "with .to(), or work under torch.autocast."
        )
        raise ValueError(message)
    height, width = images.shape[-2:]
    if height % STRIDE or width % STRIDE:
        message = (
            f"images must have sides that are multiples of {STRIDE}, but they are {height} x {width} pixels; resize or "
            "pad them, or wrap the network in ultrarefiner.AtSize."
        )
        raise ValueError(message)
