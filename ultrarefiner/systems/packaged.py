"""Trained systems that come with the package."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ultrarefiner.checkpoints.pretrained import CONFIG, WEIGHTS
from ultrarefiner.systems.ultrarefiner import UltraRefiner


def packaged_models() -> tuple[str, ...]:
    """The names that `load_pretrained` knows, in alphabetical order.

    Returns:
        The names; none where the package was built without weights.

    Example:
        >>> all(isinstance(name, str) for name in packaged_models())
        True
    """
    shelf = _shelf()
    if not shelf.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in shelf.iterdir() if entry.is_dir() and entry.joinpath(CONFIG).is_file()))


def load_pretrained(name: str, *, device: torch.device | str = "cpu") -> UltraRefiner:
    """Load a trained pair of coarse network and refiner that comes with the package.

    Nothing is downloaded. On the disk the weights are float16, in memory float32.

    Args:
        name: one of `packaged_models`; its model card is README.md beside the weights, in the package's folder
            ``pretrained``.
        device: where the model is put.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: no model of this name comes with the package.

    Example:
        >>> any(load_pretrained(name).training for name in packaged_models())
        False
        >>> load_pretrained("moon-ultrasound")
        Traceback (most recent call last):
        ValueError: name must be one of ..., but it is 'moon-ultrasound'. ...
    """
    names = packaged_models()
    if name not in names:
        known = ", ".join(names) or "of which there are none"
        message = (
            f"name must be one of the models that come with the package, {known}, but it is {name!r:.80}. Other "
            "models are loaded with UltraRefiner.from_pretrained(folder or hub id)."
        )
        raise ValueError(message)
    folder = _shelf().joinpath(name)
    if isinstance(folder, Path):
        return UltraRefiner.from_pretrained(folder, device=device)
    with tempfile.TemporaryDirectory() as place:  # the package lies in a zip archive
        for file in (CONFIG, WEIGHTS):
            Path(place, file).write_bytes(folder.joinpath(file).read_bytes())
        return UltraRefiner.from_pretrained(place, device=device)


def _shelf() -> Any:
    """The package's folder of trained models."""
    return files("ultrarefiner").joinpath("pretrained")
