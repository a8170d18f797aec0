"""AutoSAM's ablation: its generator with a lightweight decoder in SAM's place."""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_images
from ultrarefiner.sam import InputPolicy
from ultrarefiner.systems.autosam import resized
from ultrarefiner.systems.pretrained_system import PretrainedSystem


class LightAutoSAM(PretrainedSystem, nn.Module):
    """Segment with AutoSAM's generator g and a light decoder h, h(g(I)), without any SAM.

    Images take the same way to the generator as in `AutoSAM`, and masks the same way back, so how far AutoSAM is above
    it is what SAM adds. Both parts train; `ultrarefiner.training.CoarseRecipe` does it.

    Args:
        generator: from images in its input's frame to embeddings (b, d, h, w).
        decoder: from those to mask logits (b, 1, h', w') of the same frame: `ultrarefiner.networks.LightDecoder`.
        input_policy: how images become the generator's input, before they are resized: that of AutoSAM's SAM.
        input_size: side of the generator's input.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from ultrarefiner.networks import LightDecoder
        >>> from ultrarefiner.sam import SAMInput
        >>> from ultrarefiner.systems import build_autosam_generator
        >>> generator = build_autosam_generator("tiny", channels=64, size=4)
        >>> model = LightAutoSAM(generator, LightDecoder(64), input_policy=SAMInput(64), input_size=64)
        >>> model(torch.rand(2, 1, 48, 60)).shape
        torch.Size([2, 1, 48, 60])

    Shaharabany et al., "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt Encoder", arXiv 2306.06370
    (github.com/talshaharabany/AutoSAM).
    """

    def __init__(
        self, generator: nn.Module, decoder: nn.Module, *, input_policy: InputPolicy, input_size: int = 512
    ) -> None:
        super().__init__()
        if input_size < 1:
            message = f"input_size must be at least 1 pixel, but it is {input_size}; 256 to 512 is usual."
            raise ValueError(message)
        self.generator = generator
        self.decoder = decoder
        self.input_policy = input_policy
        self.input_size = input_size

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Mask logits on the images' pixels.

        Args:
            images: grey or RGB in [0, 1].

        Returns:
            One logit a pixel.

        Raises:
            ValueError: images of the wrong rank, channels or range.
        """
        check_images(images)
        low_logits: Tensor = self.decoder(self.generator(resized(self.input_policy(images), self.input_size)))
        return self.input_policy.restore(low_logits, self.input_policy.frame(images.shape[-2:]))

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values: what a checkpoint remembers."""
        parts = {"generator": self.generator, "decoder": self.decoder}
        return {
            **{name: cast("Any", part).settings() for name, part in parts.items()},
            "input": {**self.input_policy.settings(), "resized_to": self.input_size},
        }
