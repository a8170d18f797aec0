"""Logits of soft masks: finite where a mask is sure, and on another raster as a network's are brought there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LOGIT_EPSILON = 1e-6
"""A probability nearer to 0 or 1 than this counts as this near: logits stay within 13.9."""


def finite_logit(probability: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logit of a probability that may be 0 or 1: cut off at 1e-6 from either, so within 13.9; float32 or wider.

    Args:
        probability: in [0, 1].

    Returns:
        Logits in [-13.9, 13.9].

    Example:
        >>> finite_logit(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-13.8155,   0.0000,  13.8...])
    """
    wide = probability if probability.dtype == torch.float64 else probability.float()
    inside = wide.clamp(LOGIT_EPSILON, 1 - LOGIT_EPSILON)
    return (inside / (1 - inside)).log()  # as steady_sigmoid, not torch.logit


def steady_sigmoid(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sigmoid, to the same bits for a value whatever stands beside it.

    `torch.sigmoid` rounds otherwise where a tensor or a thread's part of it ends, so a mask would depend on its batch
    and on how many threads its process has.

    Args:
        logits: any.

    Returns:
        In [0, 1].

    Example:
        >>> steady_sigmoid(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (-logits).exp().add(1).reciprocal()


def resize_logits(logits: Float[Tensor, "b k h w"], size: Sequence[int]) -> Float[Tensor, "b k new_h new_w"]:
    """Logits on another raster, bilinearly; untouched where it is the same.

    Args:
        logits: of the masks.
        size: (height, width) wanted.

    Returns:
        Logits on the wanted raster.

    Example:
        >>> resize_logits(torch.zeros(1, 1, 4, 4), (8, 6)).shape
        torch.Size([1, 1, 8, 6])
    """
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    target = (int(size[0]), int(size[1]))
    return functional.interpolate(logits, target, mode="bilinear", align_corners=False)
