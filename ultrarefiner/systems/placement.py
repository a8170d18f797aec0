"""Where SAM's prompts lie on the image: to draw them, or to hand them to somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ultrarefiner.ops.coordinates import edge_to_index, index_to_edge
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.types import Prompts, Refinement


def prompts_on_image(refiner: SAMRefiner, refinement: Refinement, image_size: Sequence[int]) -> Prompts:
    """Points and boxes of a refinement in pixel indices of the image instead of SAM's frame.

    Args:
        refiner: the one that made the refinement.
        refinement: its answer.
        image_size: (height, width) of the images.

    Returns:
        The prompts with points and boxes moved; the mask prompt stays in SAM's frame.

    Example:
        >>> import torch
        >>> from ultrarefiner import ROICropper, SAMRefiner, build_sam
        >>> refiner = SAMRefiner(build_sam("tiny"), cropper=ROICropper())
        >>> probability = torch.zeros(1, 1, 60, 100)
        >>> probability[..., 20:30, 40:60] = 1.0
        >>> refinement = refiner(torch.rand(1, 1, 60, 100), probability)
        >>> prompts_on_image(refiner, refinement, (60, 100)).points[0, 0, 0].round()
        tensor([50., 24.])
    """
    prompts = refinement.prompts

    def place(coordinates: Tensor | None) -> Tensor | None:
        if coordinates is None:
            return None
        edges = index_to_edge(coordinates)
        if refinement.boxes is None:
            return edge_to_index(refiner.input_policy.frame(image_size).from_frame(edges))
        region = refinement.boxes[:, :, None] if coordinates.ndim == 4 else refinement.boxes
        share = edges / refiner.input_policy.size
        x = region[..., :1] + share[..., 0::2] * (region[..., 2:3] - region[..., :1])
        y = region[..., 1:2] + share[..., 1::2] * (region[..., 3:] - region[..., 1:2])
        return edge_to_index(torch.stack([x, y], -1).flatten(-2))

    return replace(prompts, points=place(prompts.points), boxes=place(prompts.boxes))
