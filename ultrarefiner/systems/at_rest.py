"""Answers that are the prompts' alone: no dropout, no statistics of a batch, whatever mode a module is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Have a module and its parts in evaluation mode for a while; then each is in the mode that it was in before.

    Args:
        module: of any parts. Those that are no `torch.nn.Module` have no mode.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout().eval())
        >>> with at_rest(network):
        ...     network.training, network[0].training
        (False, False)
        >>> network.training, network[0].training, network[1].training
        (True, True, False)
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
