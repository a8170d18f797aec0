"""How alike a probability map and a true mask are in structure: the polyp benchmarks' measures, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class StructureMeasures:
    """The measures of one probability map, each in [0, 1]. None is ever NaN or infinite.

    Only ``mae`` is better when small. Means are over 256 thresholds, those of 8-bit pictures: at level t (0 to 255) a
    pixel is lesion where its level is at least t. At level 0 *every* pixel is, so that even a perfect mask stays a
    little under 1, at most by 1/256.

    Attributes:
        s_measure: structure measure (alpha = 0.5): likeness of object and background as wholes, and of the four parts
            around the true centroid.
        mean_e_measure: enhanced-alignment measure, mean over the thresholds.
        weighted_f_measure: F-measure (beta squared = 1) of the map itself, in which an error counts less inside of the
            object beside right pixels, and more the farther from it.
        mean_f_measure: F-measure (beta squared = 0.3), mean over the thresholds.
        sensitivity: share of the true pixels that are found, mean over the thresholds.
        mean_dice: Dice, mean over the thresholds.
        mean_iou: intersection over union, mean over the thresholds.
        mae: mean absolute error of the map.
    """

    s_measure: float
    mean_e_measure: float
    weighted_f_measure: float
    mean_f_measure: float
    sensitivity: float
    mean_dice: float
    mean_iou: float
    mae: float


def structure_measures(
    probability: Float[Tensor, "1 h w"], target: Bool[Tensor, "1 h w"], *, stretched: bool = False
) -> StructureMeasures:
    r"""Measure one probability map against the truth, on the image's own pixels, with PySODMetrics.

    The map is rounded to 8 bits, as if written to a picture and read again. Average the results over images; nothing
    is pooled over their pixels.

    **Published numbers are stretched.** The toolboxes of PraNet and SUN-SEG, and PySODMetrics by default, first map
    each prediction's smallest value to 0 and its largest to 1. A map that is nowhere above 0.02 then becomes a full
    mask, and one without a lesion always gets one. Here this happens only with ``stretched=True``.

    **To compare with tables**: PraNet's mDice and mIoU are ``mean_dice`` and ``mean_iou``, stretched. SUN-SEG's "Sen"
    is ``sensitivity``, stretched; its toolbox leaves out each video's first and last frame and averages within videos,
    then over them. AutoSAM's published code for stills measures Dice and IoU at 0.5 of the stretched map, on a resized
    square: neither these means nor `segmentation_metrics`. The benchmarks' maxima ("maxDice") are those of a whole data
    set's mean curve, at a threshold chosen on the test set; no measure of one image is that, and there is none here.

    **Degenerate masks.** *Empty truth*: S is 1 minus the mean probability, E the share of pixels left out; F,
    sensitivity, Dice and IoU are, at each threshold, 1 if nothing is predicted and else 0, as in `segmentation_metrics`
    (255/256 for a map of zeros; the benchmarks say 0, and have no such image); the weighted F is 1 for a map of zeros
    and else 0. *Full truth*: S is the mean probability, E the share of pixels found. *Empty prediction*: S still
    credits the background, with nearly 0.5 for a small lesion and up to 0.9 for a single pixel; the weighted F may be
    over 0 for a lesion within three pixels of the border, as errors are averaged with the zeros beyond. *Centroid in
    the last row or column*: a part without pixels has no weight in S (the toolboxes say NaN).

    E is divided by the number of pixels, as in its paper; the toolboxes divide by one less, and exceed 1.

    Sources: S, Fan et al., "Structure-measure", ICCV 2017; E, Fan et al., "Enhanced-alignment Measure for Binary
    Foreground Map Evaluation", IJCAI 2018; weighted F, Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014;
    F, Achanta et al., "Frequency-tuned Salient Region Detection", CVPR 2009; PraNet, Fan et al., MICCAI 2020; SUN-SEG,
    Ji et al., "Video Polyp Segmentation", Machine Intelligence Research 2022 (github.com/GewelsJI/VPS); code,
    github.com/lartpang/PySODMetrics.

    Args:
        probability: the soft mask in [0, 1].
        target: the true mask.
        stretched: the benchmarks' convention: stretch the map to 0 to 1 first. A constant map stays as it is.

    Returns:
        The measures of this image.

    Raises:
        ValueError: a mask is not (1, h, w), the two differ in size, the probability is not in [0, 1], or the target is
            not boolean.
        ModuleNotFoundError: PySODMetrics is not installed.

    Example:
        >>> target = torch.zeros(1, 16, 16, dtype=torch.bool)
        >>> target[:, 4:10, 3:12] = True
        >>> found = structure_measures(target.float(), target)
        >>> round(found.s_measure, 3), round(found.weighted_f_measure, 3), found.sensitivity, found.mae
        (1.0, 1.0, 1.0, 0.0)
        >>> faint = 0.02 * target.float()
        >>> sensitivities = [structure_measures(faint, target, stretched=way).sensitivity for way in (False, True)]
        >>> [round(value, 3) for value in sensitivities]
        [0.023, 1.0]
    """
    _check(probability, target)
    toolbox = _toolbox()
    levels = (probability[0].detach().double() * 255).round().to(torch.uint8).cpu().numpy()
    truth = target[0].cpu().numpy()
    values = levels / 255
    if stretched and levels.min() != levels.max():
        values = (values - values.min()) / (values.max() - values.min())
    curves = _curves(toolbox, values, truth)
    if truth.any():
        weighted = toolbox.WeightedFmeasure()
        weighted.step(values, truth, normalize=False)
        weighted_f = float(weighted.get_results()["wfm"])
    else:
        peak = int((values * 255).astype(np.uint8).max())
        agreement = (255 - peak) / 256
        curves |= dict.fromkeys(("mean_f_measure", "sensitivity", "mean_dice", "mean_iou"), agreement)
        weighted_f = float(peak == 0)
    return StructureMeasures(
        s_measure=_s_measure(toolbox, values, truth),
        weighted_f_measure=weighted_f,
        mae=float(np.abs(values - truth).mean()),
        **curves,
    )


def _curves(toolbox: Any, values: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Means over the thresholds."""
    handlers = {
        "mean_f_measure": toolbox.FmeasureHandler(True, False, beta=0.3),
        "sensitivity": toolbox.SensitivityHandler(True, False),
        "mean_dice": toolbox.DICEHandler(True, False),
        "mean_iou": toolbox.IOUHandler(True, False),
    }
    overlap, alignment = toolbox.FmeasureV2(handlers), toolbox.Emeasure()
    overlap.step(values, truth, normalize=False)
    alignment.step(values, truth, normalize=False)
    found = {name: float(result["dynamic"].mean()) for name, result in overlap.get_results().items()}
    # The toolbox has divided by the number of pixels minus one (plus an epsilon, all that is left of a single pixel).
    mean = alignment.get_results()["em"]["curve"].mean() * ((truth.size - 1 + np.spacing(1)) / truth.size)
    return {**found, "mean_e_measure": float(mean)}


def _s_measure(toolbox: Any, values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    measure = toolbox.Smeasure(alpha=0.5)
    likeness = measure.ssim
    # A centroid in the last row or column leaves parts without pixels, whose likeness would be NaN; their weight is 0.
    measure.ssim = lambda part, true_part: likeness(part, true_part) if part.size else 0.0
    measure.step(values, truth, normalize=False)
    return float(measure.get_results()["sm"])


def _toolbox() -> Any:
    # An extra, and it takes seconds to import.
    try:
        import py_sod_metrics
    except ModuleNotFoundError as error:
        message = (
            "structure measures need PySODMetrics, which is not installed; run pip install 'ultrarefiner[measures]', "
            "or measure without them."
        )
        raise ModuleNotFoundError(message, name=error.name) from error
    return py_sod_metrics


def _check(probability: Tensor, target: Tensor) -> None:
    for name, mask in (("probability", probability), ("target", target)):
        if mask.ndim != 3 or mask.shape[0] != 1 or not mask.numel():
            message = (
                f"{name} must be (1, h, w), one mask of one image; got shape {tuple(mask.shape)}. "
                "Measure the masks of a batch one by one."
            )
            raise ValueError(message)
    if probability.shape != target.shape:
        message = (
            f"probability and target must be on the same pixels; got {tuple(probability.shape)} and "
            f"{tuple(target.shape)}. Resize the probability to the target's size, never the other way round."
        )
        raise ValueError(message)
    if not probability.is_floating_point() or not bool(((probability >= 0) & (probability <= 1)).all()):
        message = (
            f"probability must be floating point in [0, 1], without NaN; got {probability.dtype} from "
            f"{probability.min().item()} to {probability.max().item()}. Apply torch.sigmoid if these are logits."
        )
        raise ValueError(message)
    if target.dtype != torch.bool:
        message = f"target must be a boolean mask; got {target.dtype}. Threshold it first, for example mask >= 0.5."
        raise ValueError(message)
