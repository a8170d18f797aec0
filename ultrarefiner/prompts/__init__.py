"""Where prompts come from: points, boxes and mask prompts of a soft mask."""

from __future__ import annotations

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
    "MaskGeometry",
    "MaskStyle",
    "MeanShift",
    "PointChoice",
    "PointRule",
    "blur_in_frame",
    "mask_prompt_logits",
]
