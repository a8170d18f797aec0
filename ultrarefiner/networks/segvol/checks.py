"""What `SegVol` is given, checked in sentences; values only on a CPU, as `ultrarefiner.ops.checks` explains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_volume(volume: Any, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Raise unless a volume is what the network was built for."""
    if not isinstance(volume, Tensor) or volume.ndim != 5 or volume.shape[0] == 0 or volume.shape[1:] != (1, *size):
        message = (
            f"volume must be (b, 1, D, H, W) with D x H x W = {_by(size)}, which the weights fit, but it is "
            f"{_shape(volume)}; crop, pad or resize it, and put slices first."
        )
        raise ValueError(message)
    if volume.dtype != dtype and not (volume.is_floating_point() and torch.is_autocast_enabled(volume.device.type)):
        message = (
            f"volume must have the dtype of the network's weights, {dtype}, but its own is {volume.dtype}; convert it "
            "with .to(), or work under torch.autocast."
        )
        raise ValueError(message)
    _check_finite(volume, "volume", "replace NaN and infinity, with torch.nan_to_num for instance")


def check_embedding(embedding: Any, shape: tuple[int, int, int, int]) -> None:
    """Raise unless an embedding is one of `SegVol.encode`."""
    if not isinstance(embedding, Tensor) or embedding.ndim != 5 or tuple(embedding.shape[1:]) != shape:
        message = (
            f"embedding must be (b, {', '.join(map(str, shape))}), as this network's encode() returns it, but it is "
            f"{_shape(embedding)}."
        )
        raise ValueError(message)


def check_prompts(points: Any, boxes: Any, text: Any, *, volumes: int, width: int, size: tuple[int, int, int]) -> int:
    """How many prompts there are; raise unless all kinds have as many, and there is one volume or one for each."""
    counts: dict[str, int] = {}
    if points is not None:
        counts["points"] = _check_points(points, size)
    if boxes is not None:
        counts["boxes"] = _check_boxes(boxes, size)
    if text is not None:
        fits = isinstance(text, Tensor) and text.ndim == 2 and text.shape[1] == width and text.is_floating_point()
        _check_shape(text, "text", f"a floating-point embedding (b, {width})", fits)
        _check_finite(text, "text", "look for NaN in the words' encoder")
        counts["text"] = text.shape[0]
    if not counts:
        message = "decode must be given points, boxes or text, but all of them are None; say what to segment."
        raise ValueError(message)
    count = next(iter(counts.values()))
    if set(counts.values()) != {count} or volumes not in (1, count) or count == 0:
        told = ", ".join(f"{number} for {name}" for name, number in counts.items())
        message = (
            f"prompts must have one batch size, and the embedding the same or 1, but it is {told} and {volumes} for "
            f"the embedding; prompt every volume, or one volume at a time."
        )
        raise ValueError(message)
    return count


def _check_boxes(boxes: Any, size: tuple[int, int, int]) -> int:
    fits = isinstance(boxes, Tensor) and boxes.ndim == 2 and boxes.shape[1] == 6
    _check_shape(boxes, "boxes", "(b, 6): z0, y0, x0, z1, y1, x1", fits)
    _check_finite(boxes, "boxes", "leave out volumes without an object")
    if _readable(boxes):
        corners = boxes.detach().unflatten(1, (2, 3))
        wrong = (corners[:, 0] > corners[:, 1]).any(1) | _outside(corners, size).flatten(1).any(1)
        if bool(wrong.any()):
            message = (
                f"boxes must be the first and then the last voxel inside the network's input of {_by(size)}, but one "
                f"is {boxes[wrong][0].tolist()}; put the smaller index first, cut boxes at the volume's border, and "
                "bring those of a larger volume into the input's frame."
            )
            raise ValueError(message)
    return int(boxes.shape[0])


def _check_points(points: Any, size: tuple[int, int, int]) -> int:
    if not isinstance(points, tuple) or len(points) != 2 or not all(isinstance(part, Tensor) for part in points):
        message = (
            f"points must be (coordinates, labels), a tuple of two tensors, but it is a {type(points).__name__}; "
            "every point needs a label: 1 object, 0 background, -1 no point."
        )
        raise ValueError(message)
    coordinates, labels = points
    fits = coordinates.ndim == 3 and coordinates.shape[-1] == 3 and coordinates.shape[:-1] == labels.shape
    if not fits or labels.is_floating_point():
        message = (
            "points must be coordinates (b, n, 3), each z, y, x, and whole-number labels (b, n), but they are "
            f"{tuple(coordinates.shape)} and {tuple(labels.shape)} of {labels.dtype}; fill up with points of label -1."
        )
        raise ValueError(message)
    if coordinates.shape[0] and not coordinates.shape[1]:
        message = f"points must be at least one a volume, but they are {tuple(coordinates.shape)}; pass None for none."
        raise ValueError(message)
    _check_finite(coordinates, "coordinates", "give points that are none the label -1 and any number")
    if _readable(labels) and bool(((labels < -1) | (labels > 1)).any()):
        message = (
            "labels must be 1 (object), 0 (background) or -1 (no point), but they span "
            f"[{int(labels.min())}, {int(labels.max())}]."
        )
        raise ValueError(message)
    if _readable(coordinates) and _readable(labels):
        outside = _outside(coordinates.detach(), size).any(-1) & (labels != -1)
        if bool(outside.any()):
            message = (
                f"points must lie inside the network's input of {_by(size)}, each (z, y, x) from 0 to the size less 1, "
                f"but one is at {coordinates[outside][0].tolist()}; bring points of a larger volume into the input's "
                "frame."
            )
            raise ValueError(message)
    return int(coordinates.shape[0])


def _check_shape(tensor: Any, name: str, expected: str, fits: bool) -> None:
    if not fits:
        message = f"{name} must be {expected}, but it is {_shape(tensor)}."
        raise ValueError(message)


def _check_finite(tensor: Tensor, name: str, remedy: str) -> None:
    if _readable(tensor) and not bool(torch.isfinite(tensor).all()):
        message = f"{name} must hold numbers, but it holds NaN or infinity; {remedy}."
        raise ValueError(message)


def _outside(indices: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Of indices (…, 3), which lie beyond the first or the last voxel's outer edge."""
    return (indices < -0.5) | (indices > indices.new_tensor(size, dtype=torch.float32) - 0.5)


def _readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() > 0 and not torch.compiler.is_compiling()


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _shape(value: Any) -> str:
    return f"of the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
