"""Automatic MedSAM: a small module makes the prompts from MedSAM's own embedding; boxes are enough to train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.sam import InputPolicy, SAMLike, encode_images
from ultrarefiner.systems.pretrained_system import PretrainedSystem
from ultrarefiner.systems.prompted import policy_of, seen_size, segment_prompted
from ultrarefiner.types import PromptedSegmentation, Prompts


class AutoMedSAM(PretrainedSystem, nn.Module):
    """Segment with no click and no box: prompts come from SAM's embedding of the image.

    SAM is meant to stay frozen; only the prompt module trains. The module's dense embedding is added to SAM's embedding
    of "no mask", as published. Images are encoded without a graph while the encoder is frozen, and once for all with
    `encode`: its embeddings are the same in every epoch, as long as nothing augments the images.

    Args:
        sam: built by `build_sam`, or any SAM-like module.
        prompt_module: called with embeddings (b, d, h, w); returns `Prompts`: `PromptModule` (coordinates and soft
            labels) or `TokenPromptModule` (tokens, the paper's).
        input_policy: how images become SAM's input, for a foreign ``sam`` that does not bring its own.

    Raises:
        ValueError: no input policy is known, or a module whose ``image_size`` is not that of SAM's frame.

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import PromptModule
        >>> from ultrarefiner.sam import build_sam
        >>> sam = build_sam("tiny", image_size=64)
        >>> channels = sam(torch.rand(1, 1, 64, 64)).shape[1]
        >>> model = AutoMedSAM(sam, PromptModule(channels=channels, hidden=8, image_size=64))
        >>> model(torch.rand(2, 1, 48, 60)).logits.shape
        torch.Size([2, 1, 48, 60])

    Automatic MedSAM (github.com/vinhnamhai321/AutoMedSAM); Gaillochet et al., arXiv 2409.20293.
    """

    def __init__(
        self, sam: nn.Module | SAMLike, prompt_module: nn.Module, *, input_policy: InputPolicy | None = None
    ) -> None:
        super().__init__()
        self.sam = sam
        self.prompt_module = prompt_module
        self.input_policy = policy_of(sam, input_policy)
        side = getattr(prompt_module, "image_size", self.input_policy.size)
        if side != self.input_policy.size:
            message = (
                f"prompt_module must place its prompts in SAM's frame of {self.input_policy.size} pixels, but its "
                f"image_size is {side}; build it with image_size={self.input_policy.size}."
            )
            raise ValueError(message)

    def forward(
        self,
        images: Float[Tensor, "b c h w"] | None,
        *,
        embeddings: Float[Tensor, "b d low_h low_w"] | None = None,
        image_size: Sequence[int] | None = None,
    ) -> PromptedSegmentation:
        """Segment one lesion of each image.

        Args:
            images: grey or RGB in [0, 1]; None where ``embeddings`` are given.
            embeddings: what `encode` returned for the images.
            image_size: (height, width) of the images behind ``embeddings``.

        Returns:
            Masks on the images' pixels; `UltraRefiner` takes this as its coarse network's answer.

        Raises:
            ValueError: neither images nor embeddings, or embeddings without their images' size.
        """
        size = seen_size(images, embeddings, image_size)
        if embeddings is None:
            embeddings = self.encode(cast("Tensor", images))
        return segment_prompted(
            cast("SAMLike", self.sam), self.input_policy, embeddings, self._prompts(embeddings), size
        )

    def encode(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d low_h low_w"]:
        """SAM's embeddings of images in [0, 1]; without a graph unless the encoder trains.

        Args:
            images: grey or RGB, any sides.

        Returns:
            What the prompt module and SAM's decoder work on.
        """
        return encode_images(cast("SAMLike", self.sam), self.input_policy(images))

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values: what a checkpoint remembers."""
        described = getattr(self.sam, "settings", None)
        return {
            "sam": {"name": type(self.sam).__name__} if described is None else described(),
            "input": self.input_policy.settings(),
            "prompt_module": cast("Any", self.prompt_module).settings(),
        }

    def _prompts(self, embeddings: Tensor) -> Prompts:
        prompts: Prompts = self.prompt_module(embeddings)
        if prompts.dense_embedding is None:
            return prompts
        nothing = cast("Any", self.sam).prompt_encoder.no_mask_embed.weight[0][:, None, None]
        return replace(prompts, dense_embedding=prompts.dense_embedding + nothing)
