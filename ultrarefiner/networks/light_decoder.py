"""The lightweight decoder h of AutoSAM's ablation: an embedding to masks without SAM."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    r"""Layer normalisation over the channels of each pixel.

    .. math:: y_c = w_c (x_c - \mu) / \sqrt{\sigma^2 + 10^{-6}} + b_c, \quad \mu, \sigma^2 \text{ over channels}

    Args:
        channels: how many.

    Example:
        >>> import torch
        >>> ChannelNorm(2)(torch.tensor([1.0, 3.0])[None, :, None, None]).flatten().round()
        tensor([-1.,  1.], grad_fn=<RoundBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise."""
        normal: Tensor = self.norm(features.movedim(1, -1))
        return normal.movedim(-1, 1)


class LightDecoder(nn.Module):
    """An embedding to mask logits at four times its size: two transposed convolutions and a 1 x 1 convolution.

    Behind AutoSAM's generator it is the ablation h(g(I)): a small segmentation network that needs no SAM. How far
    AutoSAM is above it is what SAM adds.

    Args:
        channels: of the embedding.
        masks: k, masks an image.
        hidden: channels after the first transposed convolution, and after the second.

    Raises:
        ValueError: a number of channels or masks below 1.

    Example:
        >>> import torch
        >>> LightDecoder()(torch.zeros(2, 256, 16, 16)).shape
        torch.Size([2, 1, 64, 64])

    Shaharabany et al., "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt Encoder", arXiv 2306.06370
    (github.com/talshaharabany/AutoSAM).
    """

    def __init__(self, channels: int = 256, *, masks: int = 1, hidden: tuple[int, int] = (64, 16)) -> None:
        super().__init__()
        for name, number in (("channels", channels), ("masks", masks), ("hidden", min(hidden))):
            if number < 1:
                message = f"{name} must be 1 or more, but it is {number}."
                raise ValueError(message)
        first, second = hidden
        # A 3 x 3 kernel with stride 2 leaves open which of two sizes comes out: the even one.
        self.up1 = nn.ConvTranspose2d(channels, first, 3, stride=2, padding=1, output_padding=1)
        self.norm1 = ChannelNorm(first)
        self.up2 = nn.ConvTranspose2d(first, second, 2, stride=2)
        self.norm2 = ChannelNorm(second)
        self.head = nn.Conv2d(second, masks, 1)

    def forward(self, embedding: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h4 w4"]:
        """Decode.

        Args:
            embedding: for instance from `PromptGenerator`.

        Returns:
            Logits.

        Raises:
            ValueError: an embedding of another rank or number of channels.
        """
        if embedding.ndim != 4 or embedding.shape[1] != self.up1.in_channels:
            message = (
                f"embedding must be (b, {self.up1.in_channels}, h, w), but its shape is {tuple(embedding.shape)}; "
                "build the decoder with the channels of what comes before it."
            )
            raise ValueError(message)
        features = functional.gelu(self.norm1(self.up1(embedding)))
        logits: Tensor = self.head(functional.gelu(self.norm2(self.up2(features))))
        return logits

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        return {
            "channels": self.up1.in_channels,
            "masks": self.head.out_channels,
            "hidden": [self.up1.out_channels, self.up2.out_channels],
        }
