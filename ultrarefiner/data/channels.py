"""Numbers of a picture as a grey image or as RGB."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def in_channels(numbers: Float32[np.ndarray, "h w c"], *, colour: bool) -> Float[Tensor, "channels h w"]:
    r"""Numbers with one channel or three as a grey image, or as RGB.

    Colours become their luminance :math:`0.299 R + 0.587 G + 0.114 B`; a grey picture that is wanted in colour has
    three equal channels. Numbers beyond [0, 1] are clipped.

    Args:
        numbers: one channel (grey) or three (RGB), in [0, 1].
        colour: whether RGB is wanted.

    Returns:
        float32, one channel, or three with ``colour``; it shares no memory with the numbers.

    Example:
        >>> in_channels(np.ones((2, 2, 3), np.float32), colour=False).shape
        torch.Size([1, 2, 2])
    """
    if colour:
        numbers = np.broadcast_to(numbers, (*numbers.shape[:2], 3))
    elif numbers.shape[2] == 3:
        numbers = (numbers @ np.asarray(_LUMINANCE, dtype=np.float32))[:, :, None]
    return torch.from_numpy(np.clip(numbers.transpose(2, 0, 1), 0.0, 1.0, dtype=np.float32, order="C"))
