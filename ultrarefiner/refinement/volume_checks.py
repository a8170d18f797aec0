"""What comes in at the doors of the correction, checked in sentences: volumes or images of one mask, and clicks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ultrarefiner.types import Clicks


def check_volume(volume: Tensor, name: str) -> None:
    """Raise unless a tensor is (b, 1, d, h, w) or (b, 1, h, w), floating point and finite.

    Values are read on a CPU only (and elsewhere under ``torch.autograd.set_detect_anomaly(True)``), as in `ops.checks`.

    Raises:
        ValueError: the rank, the channels, the dtype or a value is wrong.

    Example:
        >>> check_volume(torch.zeros(2, 1, 4, 5, 6), "logits")
    """
    if volume.ndim not in (4, 5) or volume.shape[1] != 1 or not volume.numel():
        message = (
            f"{name} must be (b, 1, d, h, w) or (b, 1, h, w) with at least one voxel, but its shape is "
            f"{tuple(volume.shape)}; give several masks of one volume as several of the batch: .flatten(0, 1)[:, None]."
        )
        raise ValueError(message)
    if not volume.is_floating_point():
        message = f"{name} must be floating point, but its dtype is {volume.dtype}; convert it with .float()."
        raise ValueError(message)
    if not readable(volume):
        return
    low, high = (value.item() for value in volume.detach().aminmax())
    if not (low > float("-inf") and high < float("inf")):
        message = (
            f"{name} must be finite, but its values span [{low}, {high}]; make logits of a mask with "
            "finite_logit, and look for a division by zero where there is NaN."
        )
        raise ValueError(message)


def check_clicks(clicks: Clicks, batch: int, size: Sequence[int]) -> None:
    """Raise unless clicks belong to a batch of volumes and lie inside them; positions are read on a CPU only.

    Raises:
        ValueError: another batch or number of axes, or a valid click outside the volume.

    Example:
        >>> check_clicks(Clicks.at([(3, 4)], positive=[True]), 1, (8, 8))
    """
    if clicks.positions.shape[0] != batch or clicks.positions.shape[-1] != len(size):
        message = (
            f"clicks must have positions (b, n, d) with b = {batch} and d = {len(size)} as the logits have, but their "
            f"shape is {tuple(clicks.positions.shape)}; give each its indices in the order of the array's axes."
        )
        raise ValueError(message)
    if not readable(clicks.positions):
        return
    end = clicks.positions.new_tensor(tuple(size))
    outside = ((clicks.positions < 0) | (clicks.positions >= end)).any(-1) & clicks.valid
    if bool(outside.any()):
        first = clicks.positions[outside][0].tolist()
        message = (
            f"clicks must lie inside the volume, 0 to size - 1 with size {tuple(size)}, but one is at {tuple(first)}; "
            "positions are voxel indices in the order of the array's axes: (z, y, x) or (y, x)."
        )
        raise ValueError(message)


def check_points(positions: Tensor, values: Tensor, valid: Tensor) -> None:
    """Raise unless what is to be written, and where, is finite; read on a CPU only. Padding may hold anything.

    Raises:
        ValueError: a valid point's position or value is not finite.

    Example:
        >>> check_points(torch.zeros(1, 1, 2), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    """
    if not readable(positions):
        return
    wrong = ~(positions.isfinite().all(-1) & values.isfinite()) & valid
    if bool(wrong.any()):
        message = (
            f"positions and values of valid points must be finite, but {int(wrong.sum())} are not, the first at "
            f"{tuple(positions[wrong][0].tolist())} with {values[wrong][0].item()}; look for NaN in the weights that "
            "made them, or mark them as not valid."
        )
        raise ValueError(message)


def readable(tensor: Tensor) -> bool:
    """Whether values may be read without making an accelerator wait.

    Example:
        >>> readable(torch.zeros(1))
        True
    """
    return not torch.compiler.is_compiling() and (tensor.device.type == "cpu" or torch.is_anomaly_enabled())
