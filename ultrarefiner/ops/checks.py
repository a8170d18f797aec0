"""What comes in at the front doors, checked in sentences.

Shapes and dtypes are always checked. Reading *values* would make an accelerator wait for its queue, so there they are
checked only under ``torch.autograd.set_detect_anomaly(True)``, which is what one switches on to hunt a NaN; on a CPU
they always are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_probability(probability: Tensor, name: str = "probability") -> None:
    """Raise unless a tensor is a batch of soft masks: (b, k, h, w), floating point, in [0, 1], no NaN.

    Args:
        probability: what claims to be soft masks (b, k, h, w).
        name: what the message calls it.

    Raises:
        ValueError: the rank, the dtype or a value is not that of a soft mask.

    Example:
        >>> check_probability(torch.zeros(2, 1, 8, 8))
    """
    _check_rank(
        probability,
        name,
        "(b, k, h, w): b images, k masks each",
        "add the missing dimensions with mask[None, None]",
    )
    _check_floating(probability, name, "convert it with .float() (and divide by 255 if it is 8-bit)")
    _check_range(probability, name, "apply torch.sigmoid if these are logits")


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise unless a tensor is a batch of images: (b, 1 or 3, h, w), floating point, in [0, 1], no NaN.

    Args:
        images: what claims to be images (b, c, h, w).
        name: what the message calls it.

    Raises:
        ValueError: the rank, the channels, the dtype or a value is not that of an image.

    Example:
        >>> check_images(torch.zeros(2, 3, 8, 8))
    """
    check_layout(images, name)
    _check_range(images, name, "divide by the largest value its format allows (255, 65535)")


def check_layout(images: Tensor, name: str = "images") -> None:
    """Raise unless a tensor has the shape and dtype of images: (b, 1 or 3, h, w), floating point. Any values will do.

    Raises:
        ValueError: the rank, the channels or the dtype is not that of an image.

    Example:
        >>> check_layout(torch.full((2, 3, 8, 8), -1.7))
    """
    _check_rank(images, name, "(b, 1 or 3, h, w)", "add the missing dimensions with image[None]")
    if images.shape[1] not in (1, 3):
        message = (
            f"{name} must have 1 (grey) or 3 (RGB) channels in dimension 1, but its shape is {tuple(images.shape)}; "
            "move channels first with .permute(0, 3, 1, 2) if they are last, or pick the channels to use."
        )
        raise ValueError(message)
    _check_floating(images, name, "convert it with .float() / 255 if it is 8-bit")


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise unless these are the mean and standard deviation of three channels.

    Raises:
        ValueError: not three numbers, one that is not finite, or a deviation that is not positive.

    Example:
        >>> check_statistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    """
    for name, numbers, lowest in (("mean", mean, -math.inf), ("std", std, 0.0)):
        if len(numbers) != 3 or not all(lowest < number < math.inf for number in numbers):
            above = "" if lowest else " above 0"
            message = f"{name} must be three finite numbers{above}, one for each channel, but it is {[*numbers]!r:.99}."
            raise ValueError(message)


def check_no_nan(volume: Tensor, name: str = "volume") -> None:
    """Raise if a tensor holds NaN, or numbers that are not real. Its values are read wherever it lies.

    Raises:
        ValueError: it does.

    Example:
        >>> check_no_nan(torch.zeros(1, 4, 4, 4))
    """
    if volume.is_complex():
        message = f"{name} must hold real numbers, but its dtype is {volume.dtype}; take their magnitude with .abs()."
        raise ValueError(message)
    if not volume.is_floating_point() or not volume.numel():
        return
    low, high = (value.item() for value in volume.detach().aminmax())
    if low != low or high != high:
        message = (
            f"{name} must not hold NaN, but it does; replace it by the value of the background (torch.nan_to_num)."
        )
        raise ValueError(message)


def check_answer(logits: Tensor, name: str = "the network's answer") -> None:
    """Raise if logits hold NaN or infinity; on an accelerator their values are not read (see above).

    NaN is above no threshold, so an answer of NaN would be taken for an empty mask.

    Raises:
        ValueError: they do.

    Example:
        >>> check_answer(torch.zeros(1, 1, 4, 4))
    """
    if not reads_values(logits) or not logits.numel():
        return
    low, high = (value.item() for value in logits.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        what = "NaN" if low != low or high != high else "infinity"
        message = (
            f"{name} must be finite, but it holds {what}; look for NaN in the weights, which a training that broke "
            "down leaves, and for an overflow (float16)."
        )
        raise ValueError(message)


def reads_values(tensor: Tensor) -> bool:
    """Whether a tensor's values are looked at: on a CPU, or where one hunts a NaN.

    Example:
        >>> reads_values(torch.zeros(3)), reads_values(torch.zeros(3, device="meta"))
        (True, False)
    """
    return not torch.compiler.is_compiling() and (tensor.device.type == "cpu" or torch.is_anomaly_enabled())


def without_overshoot(probability: Tensor) -> Tensor:
    """A soft mask with rounding errors beyond 0 and 1 cut off; its gradient passes as if nothing was done.

    (The gradient of ``clamp`` itself is 0 at the bounds, where most pixels of a confident mask lie.)

    Example:
        >>> without_overshoot(torch.tensor([-1e-5, 0.5, 1.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    return probability + (probability.clamp(0, 1) - probability).detach()


def _check_rank(tensor: Tensor, name: str, expected: str, remedy: str) -> None:
    if not isinstance(tensor, Tensor):
        message = f"{name} must be a tensor, but it is a {type(tensor).__name__}; convert it with torch.as_tensor."
        raise ValueError(message)
    if tensor.ndim != 4:
        message = f"{name} must be {expected}, but its shape is {tuple(tensor.shape)}; {remedy}."
        raise ValueError(message)
    if tensor.numel() == 0:
        message = f"{name} must hold at least one pixel, but its shape is {tuple(tensor.shape)}."
        raise ValueError(message)


def _check_floating(tensor: Tensor, name: str, remedy: str) -> None:
    if not tensor.is_floating_point():
        message = f"{name} must be floating point in [0, 1], but its dtype is {tensor.dtype}; {remedy}."
        raise ValueError(message)


def _check_range(tensor: Tensor, name: str, remedy: str) -> None:
    if not reads_values(tensor):
        return
    low, high = (value.item() for value in tensor.detach().aminmax())
    if low != low or high != high:
        message = (
            f"{name} must not hold NaN, but it does; look for a division by zero or an overflow (float16) in "
            "what made it."
        )
        raise ValueError(message)
    # Bilinear resizing may overshoot by a rounding error.
    if low < -1e-3 or high > 1 + 1e-3:
        message = f"{name} must lie in [0, 1], but its values span [{low:.4g}, {high:.4g}]; {remedy}."
        raise ValueError(message)
