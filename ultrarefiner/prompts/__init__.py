"""Where prompts come from: a soft mask, an image, SAM's own embedding of it, or a simulated person's clicks."""

from __future__ import annotations

from ultrarefiner.prompts.clicks import ROUND_WEIGHTS, draw_rounds, next_click
from ultrarefiner.prompts.embedding import PromptModule, TokenPromptModule
from ultrarefiner.prompts.feature_pyramid import FeaturePyramid
from ultrarefiner.prompts.image import PromptGenerator
from ultrarefiner.prompts.mask_prompt import (
    MASK_PROMPT_STRIDE,
    MaskStyle,
    blur_in_frame,
    mask_prompt_logits,
)
from ultrarefiner.prompts.object_boxes import ObjectBoxes, box_from_middle_slice, tight_object_box
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
    "ROUND_WEIGHTS",
    "BoxBackground",
    "Centroid",
    "DifferentiablePromptExtractor",
    "FarCorner",
    "FeaturePyramid",
    "MaskGeometry",
    "MaskStyle",
    "MeanShift",
    "ObjectBoxes",
    "PointChoice",
    "PointRule",
    "PromptGenerator",
    "PromptModule",
    "TokenPromptModule",
    "blur_in_frame",
    "box_from_middle_slice",
    "draw_rounds",
    "mask_prompt_logits",
    "next_click",
    "tight_object_box",
]
