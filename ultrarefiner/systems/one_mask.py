"""One mask's logits, whatever a network answers with."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.systems.at_size import main_logits
from ultrarefiner.types import RefinedSegmentation


def one_mask_logits(answer: Any, *, images: int, axes: int) -> Float[Tensor, "b 1 *space"]:
    """The logits of one mask an image or volume: the refined ones of `UltraRefiner`, otherwise `main_logits`.

    Args:
        answer: logits, or what one of this library's systems returns.
        images: how many it should answer.
        axes: of their space, 2 or 3.

    Returns:
        In float32 or wider, on the answer's own raster.

    Raises:
        ValueError: it is anything else.

    Example:
        >>> one_mask_logits(torch.zeros(2, 1, 8, 8).half(), images=2, axes=2).dtype
        torch.float32
    """
    logits: Any = answer
    if isinstance(answer, RefinedSegmentation):
        logits = answer.refined_logits
    elif not isinstance(answer, Tensor):
        logits = main_logits(answer)
    if not isinstance(logits, Tensor) or logits.ndim != axes + 2 or tuple(logits.shape[:2]) != (images, 1):
        came = f"the shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        asked = "one image" if images == 1 else f"{images} images"
        message = (
            f"network must answer {asked} with logits of one mask, ({images}, 1, *space) with {axes} axes of space, "
            f"but it answered with {came}; wrap it so that it returns one of its masks, logits[:, k : k + 1]."
        )
        raise ValueError(message)
    return logits if logits.dtype == torch.float64 else logits.float()
