"""MobileSAM's image encoder: timm's TinyViT, whose last stage keeps SAM's stride of 16."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from ultrarefiner.sam.backbone_encoder import STRIDE, forget_biases

_BACKBONE = "tiny_vit_5m_224"


class MobileEncoder(nn.Module):
    """TinyViT (5 million parameters) as MobileSAM uses it: no step to stride 32, then SAM's neck.

    The tensors are timm's, so that other TinyViT files of timm's fit ``backbone`` too. It opens no file: weights are
    random until `load_weights` fills them.

    Args:
        channels: of the embedding, SAM's 256.

    Raises:
        ModuleNotFoundError: timm is not installed.

    Example:
        >>> import torch
        >>> MobileEncoder(channels=32).eval()(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 32, 4, 6])

    References:
        Zhang et al., "Faster Segment Anything" (MobileSAM), arXiv 2306.14289 (github.com/ChaoningZhang/MobileSAM); Wu
        et al., "TinyViT", ECCV 2022; github.com/huggingface/pytorch-image-models.
    """

    def __init__(self, *, channels: int = 256) -> None:
        super().__init__()
        import timm

        self.backbone: Any = timm.create_model(_BACKBONE, pretrained=False, num_classes=0)
        self.backbone.head = nn.Identity()
        self.backbone.stages[-1].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(self.backbone.num_features, channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )
        self._channels = channels

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d low_h low_w"]:
        """Embeddings of what the input policy prepared; sides are multiples of 16.

        Args:
            inputs: what the input policy prepared.

        Returns:
            Embeddings at a sixteenth of the sides.

        Raises:
            ValueError: a side is no multiple of 16.
        """
        height, width = inputs.shape[-2:]
        if height % STRIDE or width % STRIDE:
            message = (
                f"inputs must have sides that are multiples of {STRIDE}, but they are {height} x {width}; choose "
                "another image_size."
            )
            raise ValueError(message)
        features = self.backbone.forward_features(inputs)
        forget_biases(self.backbone)
        embedding: Tensor = self.neck(features)
        return embedding

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"encoder": "mobile", "channels": self._channels}
