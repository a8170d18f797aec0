"""SAM as this library uses it: segment-anything's three organs and the input policy that belongs to their weights."""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.sam.inputs import InputPolicy


@runtime_checkable
class SAMLike(Protocol):
    """Anything with SAM's three organs: segment-anything's own, MobileSAM, kornia's and so on.

    ``image_encoder`` maps prepared images to (n, c, h, w). ``prompt_encoder`` and ``mask_decoder`` are called as
    segment-anything calls its own; ``prompt_encoder`` tells its ``image_embedding_size``.
    """

    image_encoder: Any
    prompt_encoder: Any
    mask_decoder: Any


class SAM(nn.Module):
    """SAM's image encoder, prompt encoder and mask decoder, and the input policy of their weights.

    The state dict has segment-anything's own keys. Unlike segment-anything's ``Sam`` it is a plain module with
    gradients; how it is prompted and decoded is the business of `encode_images` and `decode`.

    Args:
        image_encoder: prepared images (n, 3, size, size) to embeddings (n, c, size / 16, size / 16).
        prompt_encoder: segment-anything's, or one that is called like it.
        mask_decoder: likewise.
        input_policy: how images become the encoder's input: `SAMInput` or `MedSAMInput`.
        name: what the architecture is called; it goes into checkpoints.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        *,
        input_policy: InputPolicy,
        name: str = "custom",
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.input_policy = input_policy
        self.name = name

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d low_h low_w"]:
        """Image embeddings of images in [0, 1].

        Args:
            images: grey or RGB, any sides.

        Returns:
            What the prompt encoder and the decoder work on.
        """
        return cast("Tensor", self.image_encoder(self.input_policy(images)))

    def settings(self) -> dict[str, Any]:
        """Architecture and policy as plain values."""
        described = getattr(self.image_encoder, "settings", None)
        encoder = {} if described is None else {"image_encoder": described()}
        return {"name": self.name, "input": self.input_policy.settings(), **encoder}


def encode_images(
    sam: SAMLike, inputs: Float[Tensor, "n c h w"], *, through_inputs: bool = False
) -> Float[Tensor, "n d low_h low_w"]:
    """Run the image encoder; without a graph when nobody needs one.

    A graph is built only if the encoder trains, or if ``through_inputs`` asks for the gradient with respect to the
    inputs (a crop whose place depends on the coarse mask). A frozen ViT-B otherwise costs gigabytes for nothing.

    Args:
        sam: any SAM-like object.
        inputs: prepared by the input policy.
        through_inputs: whether the gradient flows on to the inputs.

    Returns:
        The embeddings.

    Example:
        >>> from ultrarefiner.sam import build_sam, encode_images
        >>> sam = build_sam("tiny")
        >>> encode_images(sam, sam.input_policy(torch.rand(1, 1, 60, 80))).shape
        torch.Size([1, 64, 16, 16])
    """
    trains = any(parameter.requires_grad for parameter in sam.image_encoder.parameters())
    wanted = trains or through_inputs
    with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
        seen = inputs if through_inputs else inputs.detach()
        return cast("Tensor", sam.image_encoder(seen.to(_weight_dtype(sam.image_encoder, seen))))


def _weight_dtype(module: Any, default: Tensor) -> torch.dtype:
    """The dtype of a module's weights: inputs are prepared in float32 or wider and follow a model cast to another."""
    first = next(iter(module.parameters()), None)
    return default.dtype if first is None else cast("torch.dtype", first.dtype)
