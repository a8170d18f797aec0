"""Convolutions as a CPU computes them fastest in mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def quick_convolutions(module: nn.Module, *, active: bool) -> Iterator[None]:
    """Let a network's convolutions run as a CPU likes them in bfloat16, as long as the context lasts.

    Weights lie with their channels last, and depthwise convolutions leave autocast and run in float32: oneDNN has no
    fast backward pass for them in bfloat16. It saves most on networks such as EfficientNet. Weights and
    their names stay what they are; only rounding differs. Afterwards every module is as it was. A copy that is made
    meanwhile computes with its own weights.

    Data parallelism remembers how weights lie: enter the context before modules are wrapped.

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
    convolutions: list[Any] = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))]
    row_by_row = [part for part in convolutions if part.weight.is_contiguous()]
    depthwise = [(part, vars(part).get("forward")) for part in convolutions if part.groups == part.in_channels > 1]
    try:
        for part in convolutions:
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
        for part, _ in depthwise:
            part.forward = partial(_in_float32, part.forward)
        yield
    finally:
        for part, own in depthwise:
            vars(part).pop("forward", None)
            if own is not None:  # somebody had replaced it before
                part.forward = own
        for part in row_by_row:
            part.weight.data = part.weight.data.contiguous()


def _in_float32(forward: Callable[..., Tensor], features: Tensor, *others: Any, **options: Any) -> Tensor:
    """Of this module, so that copies of a convolution call their own forward, and can be pickled."""
    with torch.autocast("cpu", enabled=False):
        return forward(features.float(), *others, **options)
