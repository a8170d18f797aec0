"""AutoSAM: a network makes SAM's dense prompt from the image itself, and SAM segments with no click and no box."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.ops.checks import check_images
from ultrarefiner.ops.coordinates import accumulation_dtype
from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.sam import InputPolicy, SAMInput, SAMLike, TwiceNormalisedInput, encode_images
from ultrarefiner.systems.pretrained_system import PretrainedSystem
from ultrarefiner.systems.prompted import policy_of, segment_prompted
from ultrarefiner.types import PromptedSegmentation, Prompts


class AutoSAM(PretrainedSystem, nn.Module):
    """Segment with no click and no box: a generator's map takes the place of SAM's dense prompt embedding.

    SAM is meant to stay frozen; only the generator trains. It sees what SAM sees, normalised once, at its own size.

    Args:
        sam: built by `build_sam`, or any SAM-like module.
        generator: called with prepared images (b, 3, s, s); returns a dense prompt (b, d, h, w) on the raster of SAM's
            embedding (`build_autosam_generator`).
        input_size: side of the generator's input; published: 512 for nuclei, 352 for polyps, 256 for glands.
        input_policy: how images become SAM's input, for a foreign ``sam`` that does not bring its own.
        generator_policy: how they become the generator's, before they are resized; by default as SAM's.
        output: called with SAM's low-resolution logits (b, 1, h, w), what it returns is the answer; None takes them as
            they are.

    Raises:
        ValueError: no input policy is known, or a size below 1.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> from ultrarefiner.systems import build_autosam_generator
        >>> generator = build_autosam_generator("tiny", channels=64, size=4)
        >>> model = AutoSAM(build_sam("tiny", image_size=64), generator, input_size=64)
        >>> model(torch.rand(2, 1, 48, 60)).logits.shape
        torch.Size([2, 1, 48, 60])

    Shaharabany et al., "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt Encoder", arXiv 2306.06370
    (github.com/talshaharabany/AutoSAM).
    """

    def __init__(
        self,
        sam: nn.Module | SAMLike,
        generator: nn.Module,
        *,
        input_size: int = 512,
        input_policy: InputPolicy | None = None,
        generator_policy: InputPolicy | None = None,
        output: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if input_size < 1:
            message = f"input_size must be at least 1 pixel, but it is {input_size}; 256 to 512 is usual."
            raise ValueError(message)
        self.sam = sam
        self.generator = generator
        self.input_size = input_size
        self.input_policy = policy_of(sam, input_policy)
        self.generator_policy = self.input_policy if generator_policy is None else generator_policy
        self.output = output

    def forward(
        self, images: Float[Tensor, "b c h w"], *, embeddings: Float[Tensor, "b d low_h low_w"] | None = None
    ) -> PromptedSegmentation:
        """Segment one lesion of each image.

        Args:
            images: grey or RGB in [0, 1].
            embeddings: what `encode` returned for these images, to spare SAM's encoder.

        Returns:
            Masks on the images' pixels; `UltraRefiner` takes this as its coarse network's answer.

        Raises:
            ValueError: images of the wrong rank, channels or range.
        """
        check_images(images)
        prepared = self.input_policy(images) if embeddings is None else None
        same = prepared is not None and self.generator_policy is self.input_policy
        own = cast("Tensor", prepared) if same else self.generator_policy(images)
        dense = self.generator(resized(own, self.input_size))
        prompts = Prompts(
            points=None,
            labels=None,
            boxes=None,
            mask_logits=None,
            valid=torch.ones(len(images), 1, dtype=torch.bool, device=images.device),
            dense_embedding=dense[:, None],
        )
        if prepared is not None:
            embeddings = encode_images(cast("SAMLike", self.sam), prepared)
        return segment_prompted(
            cast("SAMLike", self.sam),
            self.input_policy,
            cast("Tensor", embeddings),
            prompts,
            images.shape[-2:],
            output=self.output,
        )

    def encode(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d low_h low_w"]:
        """SAM's embeddings of images in [0, 1]; without a graph unless the encoder trains.

        Args:
            images: grey or RGB, any sides.

        Returns:
            What SAM's decoder works on.
        """
        return encode_images(cast("SAMLike", self.sam), self.input_policy(images))

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values: what a checkpoint remembers."""
        described = [getattr(part, "settings", None) for part in (self.sam, self.generator, self.output)]
        sam, generator, output = (None if settings is None else settings() for settings in described)
        return {
            "sam": {"name": type(self.sam).__name__} if sam is None else sam,
            "generator": type(self.generator).__name__ if generator is None else generator,
            "input": self.input_policy.settings(),
            "generator_input": {**self.generator_policy.settings(), "resized_to": self.input_size},
            "output": None if self.output is None else output or type(self.output).__name__,
        }


def resized(prepared: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 side side"]:
    """SAM's prepared input as a smaller square, antialiased.

    Example:
        >>> resized(torch.ones(1, 3, 64, 64), 32).shape
        torch.Size([1, 3, 32, 32])
    """
    if tuple(prepared.shape[-2:]) == (side, side):
        return prepared
    wide = prepared.to(accumulation_dtype(prepared))
    return functional.interpolate(wide, (side, side), mode="bilinear", align_corners=False, antialias=True)


class MinMaxLogits(nn.Module):
    """Logits such that each mask's smallest probability is 0 and its largest 1, as AutoSAM was published.

    A pixel of every image is then lesion, even if there is none; the scale hangs on one outlier. For published weights
    only.

    Example:
        >>> MinMaxLogits()(torch.tensor([[[[-3.0, 0.0, 1.0]]]])).sigmoid().round(decimals=2)
        tensor([[[[0.0000, 0.7500, 1.0000]]]])
    """

    def forward(self, logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """The logits of the stretched values.

        Args:
            logits: of the masks.

        Returns:
            Of the same shape.
        """
        low, high = logits.amin((2, 3), keepdim=True), logits.amax((2, 3), keepdim=True)
        return finite_logit((logits - low) / (high - low + 1e-6))


def legacy_autosam(sam: nn.Module | SAMLike, generator: nn.Module, *, input_size: int = 512) -> AutoSAM:
    """AutoSAM as its published code runs: SAM's input is normalised twice, and each mask stretched to 0 to 1.

    The second normalisation shrinks the contrast that SAM sees about 58 times. For weights that were trained so, and to
    compare; `AutoSAM` is what to train.

    Args:
        sam: built by `build_sam` with SAM's own policy.
        generator: with the published weights.
        input_size: as in `AutoSAM`.

    Returns:
        The system, around the modules that were given.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> from ultrarefiner.systems import build_autosam_generator
        >>> generator = build_autosam_generator("tiny", channels=64, size=4)
        >>> legacy_autosam(build_sam("tiny", image_size=64), generator).settings()["input"]
        {'policy': 'sam twice', 'size': 64}
    """
    size = policy_of(sam, None).size
    return AutoSAM(
        sam,
        generator,
        input_size=input_size,
        input_policy=TwiceNormalisedInput(size),
        generator_policy=SAMInput(size),
        output=MinMaxLogits(),
    )
