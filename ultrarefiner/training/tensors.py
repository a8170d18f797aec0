"""Weights that do not fit are refused before any of them is copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn


def refuse_other_tensors(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Raise unless a module takes a state as it is.

    Args:
        module: what the state is for.
        state: tensors by name.
        path: where they are from.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> refuse_other_tensors(layer, layer.state_dict(), Path("last.pt"))
    """
    target = module.state_dict()
    wrong = sorted(target.keys() ^ state.keys())
    wrong += sorted(name for name in target.keys() & state.keys() if target[name].shape != state[name].shape)
    if wrong:
        message = (
            f"{path} does not fit this {type(module).__name__}: {len(wrong)} tensors are missing, unknown or "
            f"of another shape, first {wrong[0]}. Build the network as it was for training."
        )
        raise ValueError(message)
