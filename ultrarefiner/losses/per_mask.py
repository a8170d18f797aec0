"""What every loss does with its inputs: same shapes, float32 or wider, one value a mask, then the mean."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "none"]


def aligned(
    logits: Float[Tensor, "b k h w"], target: Float[Tensor, "b k h w"], *, name: str = "target", of: str = "logits"
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]]:
    """Check that a mask lies on the pixels of the logits and widen both to float32 (float64 stays float64).

    Args:
        logits: mask logits, of any floating dtype; or another mask.
        target: a mask in [0, 1] on the same pixels.
        name: what the second argument is called where the user passed it; used in the error.
        of: what the first is called there.

    Returns:
        Both tensors in the same floating dtype, float32 or wider.

    Raises:
        ValueError: if the logits are not (b, k, h, w), or the shapes differ.

    Example:
        >>> import torch
        >>> logits, target = aligned(torch.zeros(1, 1, 2, 2).half(), torch.ones(1, 1, 2, 2))
        >>> logits.dtype
        torch.float32
    """
    if logits.ndim != 4:
        message = (
            f"{of} must be (b, k, h, w), b images with k masks each; got shape {tuple(logits.shape)}. "
            f"Add the missing axes, for example {of}[:, None]."
        )
        raise ValueError(message)
    if logits.shape != target.shape:
        message = (
            f"{name} must have the shape of the {of}, (b, k, h, w) = {tuple(logits.shape)}; "
            f"got {tuple(target.shape)}. Resize one of them first: a loss never broadcasts or resamples. (A network "
            "with a softmax over background and lesions has a channel too many: wrap it in ForegroundLogits.)"
        )
        raise ValueError(message)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), target.to(dtype)


def reduced(per_mask: Float[Tensor, "b k"], reduction: Reduction) -> Float[Tensor, "*values"]:
    """The mean over the masks, each weighing the same whatever its size, or the masks' values themselves.

    Args:
        per_mask: one loss a mask.
        reduction: ``"mean"`` for a scalar, ``"none"`` for (b, k).

    Raises:
        ValueError: for any other reduction.

    Example:
        >>> import torch
        >>> reduced(torch.tensor([[1.0, 3.0]]), "mean").item()
        2.0
    """
    if reduction == "none":
        return per_mask
    if reduction == "mean":
        return per_mask.mean()
    message = f"reduction must be 'mean' or 'none'; got {reduction!r}. Sum the values of 'none' for a sum."
    raise ValueError(message)
