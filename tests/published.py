"""Parameters drawn from their own names, with which the oracles in tests/oracles were made."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ORACLES = Path(__file__).parent / "oracles"


def shapes(name: str) -> dict[str, list[int]]:
    """The published names and shapes."""
    found: dict[str, list[int]] = json.loads((ORACLES / f"{name}.shapes.json").read_text())
    return found


def answers(name: str) -> list[Tensor]:
    """The published outputs, in order."""
    with np.load(ORACLES / f"{name}.npz") as arrays:
        return [torch.from_numpy(arrays[key]) for key in sorted(arrays.files)]


def images(*shape: int) -> Tensor:
    """The input of the oracles."""
    return torch.from_numpy(np.random.RandomState(7).rand(*shape).astype(np.float32))


def checkpoint(name: str) -> dict[str, Tensor]:
    """A state dict with the published names."""
    return {key: torch.from_numpy(_value(key, tuple(shape))) for key, shape in shapes(name).items()}


def imagenet(name: str = "r50_vit_b16_npz") -> dict[str, np.ndarray]:
    """The arrays of an ImageNet-21k file."""
    return {key: _imagenet_value(key, tuple(shape)) for key, shape in shapes(name).items()}


def _value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = _normal(key, shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_var"):
        return np.asarray(1 + 0.1 * np.abs(normal))
    if key.endswith("running_mean"):
        return 0.1 * normal
    if key.endswith("gaussian_matrix"):
        return normal
    if key.endswith("output_upscaling.1.weight"):
        return 1 + 0.1 * normal
    if any(part in key for part in ("pos_embed", "position_embedding", "rel_pos", "_token")):
        return 0.02 * normal
    if len(shape) >= 2:
        return (normal / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return 1 + 0.1 * normal if key.endswith("weight") else 0.02 * normal


def _imagenet_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = _normal(key, shape)
    if key.endswith("scale"):
        return 1 + 0.1 * normal
    if key.endswith(("bias", "pos_embedding")):
        return 0.02 * normal
    fan = 768 if "MultiHead" in key else np.prod(shape[:-1])
    return (normal / np.sqrt(fan)).astype(np.float32)


def _normal(key: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    return np.asarray(generator.standard_normal(shape), dtype=np.float32)
