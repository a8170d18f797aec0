"""The refined mask behind a gate, as phases 2 and 3 and prediction all have it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.refinement import blend
from ultrarefiner.types import Refinement


def gated(
    gate: nn.Module | None,
    images: Float[Tensor, "b c h w"],
    coarse_probability: Float[Tensor, "b k h w"],
    refinement: Refinement,
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"], Float[Tensor, "b k h w"] | None]:
    """Blend a refinement with the masks that it came from.

    Args:
        gate: how much of SAM's mask enters the final mask; None takes SAM's mask as it is.
        images: in [0, 1], on the masks' pixels.
        coarse_probability: the masks that were refined.
        refinement: what the refiner returned.

    Returns:
        Logits and probability of the final masks, and the gate's share of SAM's mask, None without a gate. Masks that
        were empty stay as they were.

    Example:
        >>> from ultrarefiner import SAMRefiner, UncertaintyGate, build_sam
        >>> images, coarse = torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64)
        >>> refinement = SAMRefiner(build_sam("tiny", image_size=64))(images, coarse)
        >>> logits, probability, share = gated(UncertaintyGate(maximum=0.5), images, coarse, refinement)
        >>> bool((share <= 0.5).all()), torch.allclose(logits.sigmoid(), probability, atol=1e-5)
        (True, True)
    """
    logits, probability = refinement.logits, torch.sigmoid(refinement.logits)
    if gate is None:
        return logits, probability, None
    share: Tensor = gate(images, coarse_probability, probability)
    empty = ~refinement.prompts.valid[..., None, None]
    blended = blend(coarse_probability, probability, share)
    return logits.where(empty, finite_logit(blended)), probability.where(empty, blended), share
