"""Random numbers that are a function of a seed and an index: the same on any worker, in any batch, on any device."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, odd
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = 23  # and a half makes 24, which float32 holds
_SCALE = 1.0 / (1 << _BITS)


def counter_uniform(seed: int, index: Int[Tensor, " n"], count: int) -> Float[Tensor, "n count"]:
    r"""Uniform numbers in (0, 1), ``count`` of them for each index.

    Number j of index i hashes the counter (seed, i, j) with the finaliser of SplitMix64, in 64-bit whole numbers, and
    keeps 23 bits and a half, which float32 holds exactly: so it is the same on a CPU and on a GPU. There is no state:
    number j of index i does not depend on what else was asked for.

    Args:
        seed: any whole number; it counts modulo :math:`2^{64}`.
        index: whole numbers, on the device where the numbers are wanted.
        count: how many for each.

    Returns:
        float32, odd multiples of :math:`2^{-24}`, so neither 0 nor 1.

    Example:
        >>> import torch
        >>> drawn = counter_uniform(7, torch.tensor([3, 11]), 2)
        >>> torch.equal(drawn[1:], counter_uniform(7, torch.tensor([11]), 2))
        True

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; Salmon et al., "Parallel
    random numbers: as easy as 1, 2, 3", SC 2011.
    """
    slots = torch.arange(1, count + 1, device=index.device)
    stream = _mixed(_mixed(index.long() * _signed(_STEP) + _signed(_mixed_number(seed))))
    bits = _mixed(stream[:, None] + slots * _signed(_STEP))
    places: Tensor = _shifted(bits, 64 - _BITS).float()
    return (places + 0.5) * _SCALE


def _mixed(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _signed(_FIRST)
    bits = (bits ^ _shifted(bits, 27)) * _signed(_SECOND)
    return bits ^ _shifted(bits, 31)


def _mixed_number(number: int) -> int:
    number = (number + _STEP) % 2**64
    number = (number ^ (number >> 30)) * _FIRST % 2**64
    number = (number ^ (number >> 27)) * _SECOND % 2**64
    return number ^ (number >> 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, zeros from the left; PyTorch's own shift repeats the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    """The same 64 bits as PyTorch counts them."""
    return number - 2**64 if number >= 2**63 else number
