"""Pure tensor functions: coordinates, moments, boxes, crop, paste, resampling, overlap, distance. No module or file."""

from __future__ import annotations

from ultrarefiner.ops.boxes import (
    box_profile,
    box_to_mask,
    clip_box,
    expand_box,
    fill_box,
    jitter_box,
    soft_box,
    tight_box,
)
from ultrarefiner.ops.checks import check_images, check_probability
from ultrarefiner.ops.coordinates import (
    Frame,
    edge_to_index,
    index_to_edge,
    pad_frame,
    pixel_centres,
    squash_frame,
    stretch_frame,
)
from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.ops.crop import crop_to_boxes, paste_from_boxes
from ultrarefiner.ops.distance import distance_transform, signed_distance, squared_distance_transform
from ultrarefiner.ops.gradient import scale_gradient
from ultrarefiner.ops.logits import finite_logit, resize_logits, steady_sigmoid
from ultrarefiner.ops.moments import Moments, moments, remove_floor
from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.ops.resample import apply_weights, linear_weights

__all__ = [
    "Frame",
    "Moments",
    "apply_weights",
    "box_profile",
    "box_to_mask",
    "check_images",
    "check_probability",
    "clip_box",
    "counter_uniform",
    "crop_to_boxes",
    "dice_coefficient",
    "distance_transform",
    "edge_to_index",
    "expand_box",
    "fill_box",
    "finite_logit",
    "index_to_edge",
    "jitter_box",
    "linear_weights",
    "moments",
    "pad_frame",
    "paste_from_boxes",
    "pixel_centres",
    "remove_floor",
    "resize_logits",
    "scale_gradient",
    "signed_distance",
    "soft_box",
    "squared_distance_transform",
    "squash_frame",
    "steady_sigmoid",
    "stretch_frame",
    "tight_box",
]
