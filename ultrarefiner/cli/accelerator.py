"""Where a command computes."""

from __future__ import annotations

import os

import torch


def device_of(accelerator: str) -> torch.device:
    """Where this process computes outside of the loop, which places what it trains itself.

    Args:
        accelerator: the flag: auto, cpu, cuda, mps.

    Returns:
        This process's own GPU, or the CPU; Apple's GPU is left to the loop.

    Raises:
        ValueError: there is no such device.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    cuda = torch.cuda.is_available()
    if accelerator in ("cuda", "gpu") and not cuda:
        message = f"accelerator is {accelerator!r}, but PyTorch finds no GPU here; give cpu, or auto."
        raise ValueError(message)
    if accelerator == "mps" and not torch.backends.mps.is_available():
        message = "accelerator is 'mps', but PyTorch finds no Apple GPU here; give cpu, or auto."
        raise ValueError(message)
    if accelerator in ("auto", "cuda", "gpu") and cuda:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
