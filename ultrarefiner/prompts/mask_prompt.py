"""A soft mask as SAM's mask prompt: logits at a quarter of the frame, direct or blurred first."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ultrarefiner.ops.coordinates import Frame
from ultrarefiner.ops.resample import apply_weights, linear_weights

MaskStyle = Literal["direct", "gaussian"]
"""How a soft mask becomes SAM's mask prompt: its logits, or a Gaussian of its place and extent."""

MASK_PROMPT_STRIDE = 4
"""SAM's frame pixels a mask-prompt pixel, on each axis."""


def mask_prompt_logits(
    probability: Float[Tensor, "b k h w"], frame: Frame, *, logit_scale: float = 10.0
) -> Float[Tensor, "b k low_h low_w"]:
    r"""SAM's mask prompt: :math:`(2P - 1) \cdot s`, resampled to a quarter of the frame.

    The mask is resampled in one antialiased linear step from its own pixels; what the frame pads has P = 0.

    Args:
        probability: the soft mask, in [0, 1].
        frame: where the mask lies in SAM's frame; its source is the mask's size.
        logit_scale: s; P = 1 becomes +s, P = 0 becomes -s. SAM's own logits span about -20 to 8.

    Returns:
        Logits in [-s, s].

    Example:
        >>> import torch
        >>> from ultrarefiner.ops import squash_frame
        >>> mask_prompt_logits(torch.ones(1, 1, 4, 4), squash_frame((4, 4), 32))[0, 0, 0, :3]
        tensor([10., 10., 10.])
    """
    low = tuple(side // MASK_PROMPT_STRIDE for side in frame.size)
    rows, columns = (
        linear_weights(source, outputs, scale=scale / MASK_PROMPT_STRIDE, like=probability, antialias=True)
        for source, outputs, scale in zip(frame.source, low, frame.scale, strict=True)
    )
    return (2 * apply_weights(probability, rows, columns) - 1) * logit_scale


def blur_in_frame(probability: Float[Tensor, "b k h w"], frame: Frame, *, sigma: float) -> Float[Tensor, "b k h w"]:
    """Blur a mask with a Gaussian that is round in SAM's frame, borders reflected.

    Args:
        probability: the soft mask.
        frame: where it lies in SAM's frame.
        sigma: standard deviation as a share of the frame's side; on the mask's pixels it is divided by the frame's
            scale.

    Returns:
        The blurred mask, the same shape, still in [0, 1].

    Example:
        >>> import torch
        >>> from ultrarefiner.ops import squash_frame
        >>> blur_in_frame(torch.ones(1, 1, 32, 32), squash_frame((32, 32), 64), sigma=0.02).min() > 0.999
        tensor(True)
    """
    deviations = [sigma * frame.size[0] / scale for scale in frame.scale]
    # Reflection needs more pixels than it mirrors.
    kernel = [
        max(1, min(2 * round(3 * deviation) + 1, 2 * ((length - 1) // 2) + 1))
        for deviation, length in zip(deviations, probability.shape[-2:], strict=True)
    ]
    blurred: Tensor = gaussian_blur2d(probability, (kernel[0], kernel[1]), (deviations[0], deviations[1]), "reflect")
    return blurred
