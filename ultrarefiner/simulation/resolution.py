"""Failures made in a small frame and brought to the image's pixels, as a coarse network's masks are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.ops.logits import finite_logit, resize_logits, steady_sigmoid


@dataclass(frozen=True)
class AtResolution:
    """Simulate at the side of the coarse network's input, and bring the logits up as the network's are.

    A network that works at 224 pixels cannot make the sharp corners that an edit at 1024 can. So true masks are made
    small first (a pixel is lesion where at least half of it is), damaged there, and their logits resized bilinearly, on
    the path that `AtSize` and `UltraRefiner` take in phase 3. A wanted Dice is then met in the small frame.

    Args:
        failures: called with small true masks and a generator: `FailureSimulator`, `SimpleFailures`.
        size: side of the small square.

    Raises:
        ValueError: the size is less than 1.

    Example:
        >>> from ultrarefiner.simulation import FailureSimulator
        >>> target = torch.zeros(1, 1, 96, 96)
        >>> target[..., 30:60, 30:70] = 1.0
        >>> AtResolution(FailureSimulator(), 48)(target, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 1, 96, 96])
    """

    failures: Callable[[Tensor, torch.Generator], Tensor]
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            message = f"size must be at least 1 pixel, but it is {self.size}; give the coarse network's, such as 224."
            raise ValueError(message)

    @torch.no_grad()
    def __call__(self, target: Float[Tensor, "b k h w"], generator: torch.Generator) -> Float[Tensor, "b k h w"]:
        """Wrong masks for true ones, on the same pixels; new ones for each call.

        Args:
            target: true masks; above 0.5 is lesion.
            generator: as the failures want it.

        Returns:
            Soft masks in [0, 1].
        """
        small = mask_at_size(target, (self.size, self.size)).to(torch.promote_types(target.dtype, torch.float32))
        return probability_at_size(self.failures(small, generator), target.shape[-2:])


def mask_at_size(mask: Float[Tensor, "b k h w"], size: Sequence[int]) -> Bool[Tensor, "b k new_h new_w"]:
    """Where at least half of a pixel of another raster is lesion, by antialiased bilinear interpolation.

    Args:
        mask: 0 or 1.
        size: (height, width) wanted.

    Returns:
        True inside.

    Example:
        >>> mask_at_size(torch.ones(1, 1, 4, 6), (2, 3)).int()[0, 0]
        tensor([[1, 1, 1],
                [1, 1, 1]], dtype=torch.int32)
    """
    target = (int(size[0]), int(size[1]))
    if tuple(mask.shape[-2:]) == target:
        return mask > 0.5
    inside = (mask > 0.5).float()
    return functional.interpolate(inside, target, mode="bilinear", align_corners=False, antialias=True) >= 0.5


def probability_at_size(probability: Float[Tensor, "b k h w"], size: Sequence[int]) -> Float[Tensor, "b k new_h new_w"]:
    """A soft mask on another raster, its logits interpolated bilinearly; untouched where it is the same.

    Args:
        probability: soft masks in [0, 1].
        size: (height, width) wanted.

    Returns:
        In [0, 1].

    Example:
        >>> probability_at_size(torch.tensor([[[[0.1, 0.9]]]]), (1, 4))
        tensor([[[[0.1000, 0.2500, 0.7500, 0.9000]]]])
    """
    if tuple(probability.shape[-2:]) == tuple(size):
        return probability
    return steady_sigmoid(resize_logits(finite_logit(probability), size))
