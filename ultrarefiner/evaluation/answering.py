"""What an evaluation asks of any network: the logits of one mask an image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.at_size import main_logits
from ultrarefiner.types import RefinedSegmentation


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU for one without any.

    Example:
        >>> device_of(nn.Identity())
        device(type='cpu')
    """
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def mask_logits(
    network: nn.Module, images: Float[Tensor, "b c s s"], content_sizes: Int[Tensor, "b 2"], *, of: str
) -> Float[Tensor, "b 1 h w"]:
    """The network's main answer, whatever it wraps it in, in float32.

    Args:
        network: from images to logits, to `MultiScaleLogits`, to a `PromptedSegmentation` or, as an `UltraRefiner`, to
            a `RefinedSegmentation`, whose refined mask is taken.
        images: in [0, 1], padded to a square.
        content_sizes: (height, width) of what of each image is not padding; an `UltraRefiner` is told.
        of: what the images are, for the error.

    Raises:
        ValueError: the answer is not one mask an image, or has NaN or infinity.

    Example:
        >>> images = torch.rand(2, 1, 8, 8)
        >>> mask_logits(nn.Conv2d(1, 1, 1), images, torch.full((2, 2), 8), of="images").shape
        torch.Size([2, 1, 8, 8])
    """
    compiled = getattr(network, "_orig_mod", network)
    answer = network(images, content_sizes) if isinstance(compiled, UltraRefiner) else network(images)
    logits = answer.refined_logits if isinstance(answer, RefinedSegmentation) else main_logits(answer)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[:2] != (len(images), 1):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        message = (
            f"network must answer with one mask an image, ({len(images)}, 1, h, w), but it is {came}; wrap it, so that "
            "only the lesion's logits come out"
        )
        raise ValueError(message)
    if not bool(logits.isfinite().all()):
        message = f"network must answer with finite logits, but {of} have NaN or infinity; check its weights"
        raise ValueError(message)
    return logits.float()
