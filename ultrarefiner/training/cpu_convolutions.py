"""Convolutions as a CPU computes them fastest in mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def quick_convolutions(module: nn.Module, *, active: bool) -> Iterator[None]:
    """Let a network's convolutions run as a CPU likes them in bfloat16, as long as the context lasts.

    Weights lie with their channels last, and depthwise convolutions leave autocast and run in float32: oneDNN has no
    fast backward pass for them in bfloat16. On EfficientNet-Lite0 both together halve the time of a step. Weights and
    their names stay what they are; only rounding differs.

    Args:
        module: what trains.
        active: whether to do anything: on a CPU, in mixed precision.

    Example:
        >>> convolution = nn.Conv2d(4, 4, 3, groups=4)
        >>> with quick_convolutions(convolution, active=True), torch.autocast("cpu", torch.bfloat16):
        ...     convolution(torch.rand(1, 4, 8, 8)).dtype
        torch.float32
    """
    if not active:
        yield
        return
    convolutions = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))]
    for part in convolutions:
        part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    depthwise = [part for part in convolutions if part.groups == part.in_channels > 1]
    plain: list[tuple[Any, Callable[..., Tensor]]] = [(part, part.forward) for part in depthwise]
    for part, forward in plain:
        part.forward = _in_float32(forward)
    try:
        yield
    finally:
        for part, _ in plain:
            del part.forward


def _in_float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(features: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(features.float())

    return call
