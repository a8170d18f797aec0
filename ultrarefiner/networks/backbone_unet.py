"""A U-Net of segmentation-models-pytorch on a timm backbone: a light coarse network with ImageNet behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_statistics

STRIDE = 32
"""Sides of the input are multiples of this."""


class BackboneUNet(nn.Module):
    """The U-Net of segmentation-models-pytorch on any timm backbone with strides 2, 4, 8, 16 and 32.

    It opens no file: its weights are random until `load_weights` fills ``backbone`` or the whole. On EfficientNet-Lite0
    it has 3.8 million parameters.

    Args:
        backbone: a name of timm's, such as "tf_efficientnet_lite0".
        masks: how many masks it predicts.
        decoder_channels: of the five steps of the decoder, from the deepest to the image's own resolution.
        mean: what is taken off images in [0, 1], for each of three channels; belongs to the backbone's weights.
        std: by what the rest is divided.

    Raises:
        ValueError: timm has no such backbone, it has other strides, the decoder has not five steps, or mean or std is
            not three numbers.
        ModuleNotFoundError: segmentation-models-pytorch is not installed.

    Example:
        >>> network = BackboneUNet("tf_efficientnet_lite0", decoder_channels=(32, 16, 16, 8, 8))
        >>> network.eval()(torch.rand(2, 1, 64, 96)).shape
        torch.Size([2, 1, 64, 96])

    References:
        Ronneberger et al., "U-Net", MICCAI 2015; github.com/qubvel-org/segmentation_models.pytorch;
        github.com/huggingface/pytorch-image-models; Tan and Le, "EfficientNet", ICML 2019.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        *,
        masks: int = 1,
        decoder_channels: Sequence[int] = (128, 64, 32, 16, 8),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        from segmentation_models_pytorch import Unet

        check_statistics(mean, std)
        if len(decoder_channels) != 5:
            message = f"decoder_channels must be five numbers, one for each step, but they are {decoder_channels!r}."
            raise ValueError(message)
        try:
            self.network = Unet(
                f"tu-{backbone}", encoder_weights=None, decoder_channels=list(decoder_channels), classes=masks
            )
        except (RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
            message = (
                f"backbone must be one of timm's with features at strides 2, 4, 8, 16 and 32, but {backbone!r} is "
                f"not ({error}); timm.list_models() names all there are."
            )
            raise ValueError(message) from error
        self._told = {"backbone": backbone, "masks": masks, "decoder_channels": [*decoder_channels]}
        self._statistics = {"mean": [*mean], "std": [*std]}
        for name, numbers in self._statistics.items():
            self.register_buffer(name, torch.tensor(numbers).view(3, 1, 1), persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """Timm's network, for its ImageNet weights."""
        return cast("nn.Module", cast("Any", self.network).encoder.model)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of grey or RGB images in [0, 1].

        Args:
            images: grey or RGB in [0, 1], sides multiples of 32.

        Returns:
            One logit a pixel and class.

        Raises:
            ValueError: a side is no multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            message = (
                f"images must have sides that are multiples of {STRIDE}, but they are {height} x {width}; wrap the "
                "network in AtSize, which stretches them."
            )
            raise ValueError(message)
        seen = (images.expand(-1, 3, -1, -1) - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        logits: Tensor = self.network(seen)
        return logits

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"network": "backbone_unet", **self._told, **self._statistics}
