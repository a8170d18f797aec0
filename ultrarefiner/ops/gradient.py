"""A tensor that passes unchanged and whose gradient does not."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, _factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], _output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(x: Float[Tensor, "*shape"], factor: float) -> Float[Tensor, "*shape"]:
    r"""Return ``x``; on the way back, multiply its gradient by ``factor``.

    .. math:: y = x, \qquad \frac{\partial L}{\partial x} := f \, \frac{\partial L}{\partial y}

    Use it on the tensor that goes from the coarse network to the prompts. There it makes the refined mask's
    share of the coarse network's gradient smaller, while the coarse network's own loss keeps its full share.
    Scaling the gradients of the coarse network's *parameters* instead does nothing under Adam or AdamW, whose
    step does not change when every gradient is multiplied by the same number; and it would scale both losses.

    Args:
        x: any floating tensor.
        factor: what the gradient is multiplied by: 1 changes nothing, 0 lets nothing pass (the gradient is
            zero, not missing).

    Returns:
        The same values, not copied. Do not change the result in place: autograd refuses it.

    Raises:
        ValueError: if the factor is negative or not finite.

    Example:
        >>> import torch
        >>> x = torch.ones(3, requires_grad=True)
        >>> scale_gradient(x, 0.1).sum().backward()
        >>> x.grad
        tensor([0.1000, 0.1000, 0.1000])
    """
    if not math.isfinite(factor) or factor < 0:
        message = f"factor must be a finite number of at least 0; got {factor}. 1 changes nothing."
        raise ValueError(message)
    scaled: Tensor = _ScaleGradient.apply(x, factor)
    return scaled
