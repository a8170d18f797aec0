"""What a model and its options are, in a few letters: whether results on disk are still those of this run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ultrarefiner.systems import UltraRefiner

_FORMAT = 1  # counted up when the same options come to write something else


def options_digest(model: UltraRefiner, options: Mapping[str, Any]) -> str:
    """A digest of a model's settings and weights, and of plain values.

    Args:
        model: on any device.
        options: all that decides what is written.

    Example:
        >>> from ultrarefiner import SAMRefiner, build_sam
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 1), refiner=SAMRefiner(build_sam("tiny")))
        >>> options_digest(model, {"rounds": 1}) == options_digest(model, {"rounds": 2})
        False
    """
    digest = hashlib.blake2b(digest_size=12)
    told = {"format": _FORMAT, "model": model.settings(), "options": dict(options)}
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
