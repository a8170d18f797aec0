"""How good one mask is, at the image's own resolution, with every case counted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

Spacing = tuple[float, float]


@dataclass(frozen=True)
class CaseMetrics:
    """The metrics of one mask. None is ever NaN or infinite.

    Attributes:
        dice: 2 |P and T| / (|P| + |T|); 1 where both are empty.
        iou: |P and T| / |P or T|; 1 where both are empty.
        precision: |P and T| / |P|; for an empty prediction 1 if the target is empty too, else 0.
        recall: |P and T| / |T|; for an empty target 1 if the prediction is empty too, else 0.
        hd95: 95th percentile of the surface distances, the larger of the two directions, in units of the spacing.
        assd: average symmetric surface distance, in units of the spacing.
        prediction_pixels: the size of the prediction.
        target_pixels: the size of the target.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    assd: float
    prediction_pixels: int
    target_pixels: int


def segmentation_metrics(
    prediction: Bool[Tensor, 1 * sides], target: Bool[Tensor, 1 * sides], *, spacing: Sequence[float] | None = None
) -> CaseMetrics:
    r"""Measure one predicted mask, of an image or of a whole volume, against the truth.

    HD95 and ASSD are MONAI's, on the masks' border pixels. They are not defined where exactly one mask is empty;
    such a case gets the *diagonal of the image*, :math:`\sqrt{(h s_y)^2 + (w s_x)^2}` (a volume's has its depth
    as a third term), more than any distance in it. Dropping it instead, as is often done, makes the mean better
    the more lesions are missed. Two empty masks
    agree: Dice, IoU, precision and recall 1, distances 0.

    Pass masks at the resolution of the image, not of the network's input: distances scale with it.

    Sources: MONAI (monai.io); on empty masks Reinke et al., "Understanding metric-related pitfalls in image analysis
    validation", Nature Methods 2024.

    Args:
        prediction: the predicted mask, (1, h, w), or (1, d, h, w) for a volume.
        target: the true mask.
        spacing: (row, column) size of a pixel, for example in mm, or (slice, row, column) size of a voxel; None is 1
            along every axis.

    Returns:
        The metrics of this case.

    Raises:
        ValueError: if a mask is not boolean or neither (1, h, w) nor (1, d, h, w), the two differ in size, or the
            spacing is not positive.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> target[:, 2:6, 2:6] = True
        >>> metrics = segmentation_metrics(target.roll(1, -1), target)
        >>> metrics.dice, metrics.hd95
        (0.75, 1.0)
        >>> segmentation_metrics(target & False, target, spacing=(3.0, 4.0)).hd95  # 8 * 5
        40.0
    """
    sizes = (1.0,) * (target.ndim - 1) if spacing is None else tuple(spacing)
    _check(prediction, target, sizes)
    both = int((prediction & target).sum())
    predicted, true = int(prediction.sum()), int(target.sum())
    hd95, assd = _surface_distances(prediction, target, sizes)
    neither = predicted + true == 0
    return CaseMetrics(
        dice=1.0 if neither else 2 * both / (predicted + true),
        iou=1.0 if neither else both / (predicted + true - both),
        precision=both / predicted if predicted else float(neither),
        recall=both / true if true else float(neither),
        hd95=hd95,
        assd=assd,
        prediction_pixels=predicted,
        target_pixels=true,
    )


def _surface_distances(prediction: Tensor, target: Tensor, spacing: tuple[float, ...]) -> tuple[float, float]:
    found, there = bool(prediction.any()), bool(target.any())
    if not found and not there:
        return 0.0, 0.0
    if not (found and there):
        diagonal = math.hypot(*(side * size for side, size in zip(target.shape[1:], spacing, strict=True)))
        return diagonal, diagonal
    # MONAI takes seconds to import, and nobody who only trains should wait for it.
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    masks = {"y_pred": prediction[None].float(), "y": target[None].float()}
    options = {"include_background": True, "spacing": [float(size) for size in spacing]}
    with warnings.catch_warnings():
        # MONAI calls a function of its own in a way that it is going to drop; nobody outside of it can change that.
        warnings.filterwarnings("ignore", message=r".*always_return_as_numpy", category=FutureWarning)
        hd95 = compute_hausdorff_distance(**masks, percentile=95, **options)
        assd = compute_average_surface_distance(**masks, symmetric=True, **options)
    return float(hd95), float(assd)


def _check(prediction: Tensor, target: Tensor, spacing: tuple[float, ...]) -> None:
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.dtype != torch.bool:
            message = (
                f"{name} must be a boolean mask; got {mask.dtype}. Threshold it first, for example "
                "probability > 0.5, after resizing it to the image's own resolution."
            )
            raise ValueError(message)
        if mask.ndim not in (3, 4) or mask.shape[0] != 1:
            message = (
                f"{name} must be (1, h, w), one mask of one image, or (1, d, h, w) of one volume; got shape "
                f"{tuple(mask.shape)}. Measure the masks of a batch one by one."
            )
            raise ValueError(message)
    if prediction.shape != target.shape:
        message = (
            f"prediction and target must be on the same pixels; got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}. Resize the prediction to the target's size, never the other way round."
        )
        raise ValueError(message)
    if len(spacing) != target.ndim - 1 or not all(size > 0 and math.isfinite(size) for size in spacing):
        axes = "(row, column) size of a pixel" if target.ndim == 3 else "(slice, row, column) size of a voxel"
        message = f"spacing must be the positive {axes}, one number an axis of the masks; got {spacing}."
        raise ValueError(message)
