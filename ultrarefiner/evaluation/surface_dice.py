"""Normalised surface Dice: how much of two surfaces lies close enough to the other one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor


def normalised_surface_dice(
    prediction: Bool[Tensor, 1 * sides],
    truth: Bool[Tensor, 1 * sides],
    *,
    spacing: Sequence[float],
    tolerance: float = 2.0,
) -> float:
    r"""The share of both surfaces that lies within a tolerance of the other surface.

    .. math:: \frac{|\{x \in \partial P : d(x, \partial T) \le \tau\}| + |\{x \in \partial T : d(x, \partial P) \le
       \tau\}|}{|\partial P| + |\partial T|}

    Surfaces run between voxels, and :math:`|\cdot|` is their area (length in 2-D), so that neither thick slices nor
    slanted borders count wrongly: MONAI's with ``use_subvoxels``, which equals DeepMind's ``surface-distance``, the
    one that the CVPR 2025 challenge uses with 2 mm. What lies beyond the frame is background.

    Only the block that both masks fill is measured, so time and memory do not grow with the frame around it.

    Two empty masks agree: 1. If exactly one is empty, 0. (The challenge also sets it to 0 wherever Dice is at most 0.2,
    to save time; this does not.)

    Args:
        prediction: (1, h, w) or (1, d, h, w).
        truth: of the same shape.
        spacing: size of a pixel or voxel along each axis, in the order of the axes, in mm for example.
        tolerance: :math:`\tau`, in the same unit; 0 counts what coincides.

    Returns:
        In [0, 1].

    Raises:
        ValueError: the masks are not boolean, of another rank, or differ in shape; spacing is not positive or of
            another length; tolerance is negative or not finite.
        ModuleNotFoundError: MONAI is not installed (``pip install 'ultrarefiner[evaluation]'``).

    Example:
        >>> truth = torch.zeros(1, 8, 16, 16, dtype=torch.bool)
        >>> truth[:, 2:6, 4:12, 4:12] = True
        >>> one_slice_off = truth.roll(1, 1)
        >>> [normalised_surface_dice(one_slice_off, truth, spacing=(3.0, 1.0, 1.0), tolerance=t) for t in (2.0, 3.0)]
        [0.776..., 1.0]

    References:
        Nikolov et al.: Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy. Journal of Medical
        Internet Research 23(7), 2021 (arXiv 1809.04430).
    """
    _check(prediction, truth, spacing, tolerance)
    found, there = bool(prediction.any()), bool(truth.any())
    if not (found and there):
        return float(found == there)
    # MONAI takes seconds to import, and nobody who only trains should wait for it.
    from monai.metrics import compute_surface_dice

    with warnings.catch_warnings():
        # MONAI calls a function of its own in a way that it is going to drop; nobody outside of it can change that.
        warnings.filterwarnings("ignore", message=r".*always_return_as_numpy", category=FutureWarning)
        block = _block(prediction | truth)  # MONAI puts one voxel of background around it
        share = compute_surface_dice(
            prediction[block][None].float(),
            truth[block][None].float(),
            class_thresholds=[float(tolerance)],
            include_background=True,
            spacing=[float(size) for size in spacing],
            use_subvoxels=True,
        )
    return min(float(share), 1.0)


def _block(mask: Tensor) -> tuple[slice, ...]:
    """From the first to the last slice along each axis that holds something."""
    sides = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = mask.any(others).nonzero()
        sides.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(sides)


def _check(prediction: Tensor, truth: Tensor, spacing: Sequence[float], tolerance: float) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != torch.bool or mask.ndim not in (3, 4) or mask.shape[0] != 1:
            message = (
                f"{name} must be one boolean mask, (1, h, w) or (1, d, h, w); got {mask.dtype} {tuple(mask.shape)}. "
                "Threshold it, and measure the masks of a batch one by one."
            )
            raise ValueError(message)
    if prediction.shape != truth.shape:
        message = (
            f"prediction and truth must be on the same voxels; got {tuple(prediction.shape)} and "
            f"{tuple(truth.shape)}. Resize the prediction to the truth's size, never the other way round."
        )
        raise ValueError(message)
    if len(spacing) != truth.ndim - 1 or not all(0 < size < math.inf for size in spacing):
        message = f"spacing must be {truth.ndim - 1} positive sizes, one an axis of the masks; got {tuple(spacing)}."
        raise ValueError(message)
    if not 0 <= tolerance < math.inf:
        message = f"tolerance must be at least 0 and finite, in the unit of the spacing; got {tolerance}."
        raise ValueError(message)
