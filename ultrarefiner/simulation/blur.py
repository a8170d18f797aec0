"""Gaussian blur with another sigma for every mask, however large the sigma."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_blur(mask: Float[Tensor, "b k h w"], sigma: Float[Tensor, "b k"]) -> Float[Tensor, "b k h w"]:
    r"""Convolve each mask with a Gaussian of its own width; borders are reflected.

    The mask is mirrored to twice its size and multiplied by the Gaussian's transform

    .. math:: \hat g(f_x, f_y) = e^{-2 \pi^2 \sigma^2 (f_x^2 + f_y^2)}

    in the frequency domain. The cost does not depend on sigma, which a kernel's would: sigmas here follow the
    lesion's size. The mean of each mask is kept. Below a sigma of one pixel a Gaussian is too narrow for the pixels to
    hold all of it; what they get is its part below their highest frequency, not samples of it.

    Args:
        mask: masks in [0, 1]; an empty or a full one stays as it is.
        sigma: standard deviations in pixels, at least 0; 0 changes nothing.

    Returns:
        Blurred masks in [0, 1], in float32 or wider.

    Example:
        >>> import torch
        >>> point = torch.zeros(1, 1, 9, 9)
        >>> point[..., 4, 4] = 1.0
        >>> blurred = gaussian_blur(point, torch.tensor([[1.0]]))
        >>> round(blurred[0, 0, 4, 4].item(), 3)  # 1 / (2 pi)
        0.159
    """
    mask = mask.to(torch.promote_types(mask.dtype, torch.float32))
    height, width = mask.shape[-2:]
    mirrored = torch.cat([mask, mask.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    spectrum = torch.fft.rfft2(mirrored)
    rows = torch.fft.fftfreq(2 * height, device=mask.device, dtype=mask.dtype)
    columns = torch.fft.rfftfreq(2 * width, device=mask.device, dtype=mask.dtype)
    exponent = -2 * torch.pi**2 * sigma.to(mask)[..., None].square()
    row_gain = (exponent * rows.square()).exp()[..., :, None]
    column_gain = (exponent * columns.square()).exp()[..., None, :]
    blurred: Tensor = torch.fft.irfft2(spectrum * row_gain * column_gain, s=(2 * height, 2 * width))
    return blurred[..., :height, :width].clamp(0, 1)
