"""The builder of AutoSAM's prompt generator: HarDNet under the generator's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ultrarefiner.networks import build_hardnet
from ultrarefiner.prompts.image import PromptGenerator

_HIDDEN = {"hardnet85": None, "hardnet68": None, "tiny": 48}


def build_autosam_generator(
    backbone: Literal["hardnet85", "hardnet68", "tiny"] = "hardnet85",
    *,
    channels: int = 256,
    size: int | Sequence[int] = 64,
) -> PromptGenerator:
    """Build AutoSAM's prompt generator with random weights; `ultrarefiner.load_weights` fills it.

    For another backbone, of timm for instance, call `PromptGenerator(FeaturePyramid(backbone))`. The published
    generator starts from HarDNet's ImageNet weights: ``load_weights(generator.backbone, path, layout="hardnet")``.

    Args:
        backbone: "hardnet85" is the published one (24.1 million parameters; the 17.5 million more of the published file
            belong to a stage that its decoder never looks at); "hardnet68" is the smaller one of its code; "tiny" (0.4
            million) is for tests, examples and laptops.
        channels: of SAM's embeddings: 256 for the published sizes, 64 for "tiny".
        size: side of SAM's image embedding, or (rows, columns): 64 for the published sizes, 16 for "tiny".

    Returns:
        The generator, in training mode.

    Raises:
        ValueError: an unknown backbone, or a number below 1.

    Example:
        >>> import torch
        >>> build_autosam_generator("tiny", channels=64, size=16)(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 64, 16, 16])

    Shaharabany et al., "AutoSAM: Adapting SAM to Medical Images by Overloading the Prompt Encoder", arXiv 2306.06370
    (github.com/talshaharabany/AutoSAM).
    """
    pyramid = build_hardnet(backbone)
    return PromptGenerator(pyramid, channels=channels, size=size, hidden=_HIDDEN[backbone])
