"""Where prompts come from: a soft mask, an image, or SAM's own embedding of it."""

from __future__ import annotations

from ultrarefiner.prompts.embedding import PromptModule, TokenPromptModule
from ultrarefiner.prompts.feature_pyramid import FeaturePyramid
from ultrarefiner.prompts.image import PromptGenerator
from ultrarefiner.prompts.mask_prompt import (
    MASK_PROMPT_STRIDE,
    MaskStyle,
    blur_in_frame,
    mask_prompt_logits,
)
from ultrarefiner.prompts.points import (
    BoxBackground,
    Centroid,
    FarCorner,
    MaskGeometry,
    MeanShift,
    PointChoice,
    PointRule,
)
from ultrarefiner.prompts.soft_mask import DifferentiablePromptExtractor

__all__ = [
    "MASK_PROMPT_STRIDE",
    "BoxBackground",
    "Centroid",
    "DifferentiablePromptExtractor",
    "FarCorner",
    "FeaturePyramid",
    "MaskGeometry",
    "MaskStyle",
    "MeanShift",
    "PointChoice",
    "PointRule",
    "PromptGenerator",
    "PromptModule",
    "TokenPromptModule",
    "blur_in_frame",
    "mask_prompt_logits",
]
