"""How coarse masks fail, in numbers that do not depend on a lesion's size, and how alike two sets of failures are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from ultrarefiner.evaluation.metrics import segmentation_metrics

TITLES = {
    "dice": "Dice",
    "boundary_error": "Boundary error, ASSD (radii)",
    "hausdorff_error": "HD95 (radii)",
    "centroid_shift": "Shift of the centroid (radii)",
    "area_ratio": "Area, predicted / true",
    "components": "Components",
    "holes": "Holes",
    "softness": "Width of the soft border (px)",
}
"""The measures of `FailureStatistics`, in the order of tables, and what they are called there."""

_COUNTS = ("components", "holes")
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class FailureStatistics:
    r"""Measures of n masks, one value a mask; the masks of empty lesions are left out.

    One radius is that of the disc of the lesion's area, :math:`\sqrt{area / \pi}`. NaN says that a measure is not
    defined: distances and shift of an empty mask, softness of boolean masks and of those without a contour.

    Attributes:
        index: which of the masks given each is.
        dice: at 0.5.
        boundary_error: average symmetric surface distance in radii; NaN for an empty mask.
        hausdorff_error: 95th percentile of the surface distances in radii; NaN for an empty mask.
        centroid_shift: distance of the two centroids in radii; NaN for an empty mask.
        area_ratio: predicted over true area.
        components: connected parts of the mask, pixels that touch at a corner being connected; 0 for an empty mask.
        holes: parts of the background that the mask encloses; what touches the frame is none.
        softness: width in pixels of the band where 0.1 < p < 0.9, its area over the length of the contour at 0.5.
        empty: whether the mask has no pixel over 0.5.
    """

    index: Int[np.ndarray, " n"]
    dice: Float[np.ndarray, " n"]
    boundary_error: Float[np.ndarray, " n"]
    hausdorff_error: Float[np.ndarray, " n"]
    centroid_shift: Float[np.ndarray, " n"]
    area_ratio: Float[np.ndarray, " n"]
    components: Float[np.ndarray, " n"]
    holes: Float[np.ndarray, " n"]
    softness: Float[np.ndarray, " n"]
    empty: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.dice)

    def defined(self, measure: str) -> Float[np.ndarray, " m"]:
        """The values of a measure that are not NaN."""
        values: np.ndarray = getattr(self, measure)
        known: np.ndarray = values[~np.isnan(values)]
        return known


def failure_statistics(
    probability: Float[Tensor, "n h w"] | Bool[Tensor, "n h w"], target: Bool[Tensor, "n h w"]
) -> FailureStatistics:
    r"""Measure what is wrong with masks.

    Distances are those of `segmentation_metrics`, over the lesion's radius. The diagonal of the frame that stands there
    for an empty mask says nothing about a border, so that here it is NaN, and empty masks are counted apart. The length
    of a contour is Crofton's: it is crossed by rows, columns and diagonals, each :math:`\delta` apart,
    :math:`L = \frac{\pi}{8} \sum \delta N`; the frame is no contour. A logistic border, :math:`\sigma(-\phi / T)`,
    has a softness of :math:`2 \ln(9)\, T \approx 4.4\, T`.

    Args:
        probability: soft masks in [0, 1], or boolean ones; above 0.5 is lesion.
        target: the true masks. Those that are empty are left out.

    Returns:
        The measures of all others, in their order.

    Raises:
        ValueError: the two differ in shape, a value is not in [0, 1], or the true masks are not boolean.

    Example:
        >>> target = torch.zeros(1, 16, 16, dtype=torch.bool)
        >>> target[:, 4:12, 4:12] = True
        >>> found = failure_statistics(target.roll(2, 2), target)
        >>> found.dice.item(), found.components.item(), round(found.centroid_shift.item(), 2)
        (0.75, 1.0, 0.44)

    After Crofton's formula in Legland, Kieu, Devaux, "Computation of Minkowski measures on 2D and 3D binary images",
    Image Analysis & Stereology 2007.
    """
    _check(probability, target)
    index = target.flatten(1).any(1).nonzero()[:, 0].cpu()
    soft, true = (values.detach().cpu()[index] for values in (probability, target))
    rows = [_measured(one, there) for one, there in zip(soft, true, strict=True)]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(TITLES))
    columns = dict(zip(TITLES, table.T, strict=True))
    return FailureStatistics(index=index.numpy(), empty=columns["area_ratio"] == 0, **columns)


def _measured(soft: Tensor, target: Tensor) -> list[float]:
    """The measures of one mask, in the order of `TITLES`."""
    mask = soft if soft.dtype == torch.bool else soft > 0.5
    metrics = segmentation_metrics(mask[None], target[None])
    radius = math.sqrt(metrics.target_pixels / math.pi)
    found, there = mask.numpy(), target.numpy()
    empty = metrics.prediction_pixels == 0
    shift = math.nan if empty else math.dist(_centroid(found), _centroid(there))
    return [
        metrics.dice,
        math.nan if empty else metrics.assd / radius,
        math.nan if empty else metrics.hd95 / radius,
        shift / radius,
        metrics.prediction_pixels / metrics.target_pixels,
        float(ndimage.label(found, _NEIGHBOURS)[1]),
        # Around the frame everything is background, so that what touches it is one part, and no hole.
        float(ndimage.label(np.pad(~found, 1, constant_values=True))[1] - 1),
        math.nan if soft.dtype == torch.bool else _softness(soft, found),
    ]


def _centroid(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


def _softness(soft: Tensor, mask: np.ndarray) -> float:
    length = _contour_length(mask)
    return int(((soft > 0.1) & (soft < 0.9)).sum()) / length if length else math.nan


def _contour_length(mask: np.ndarray) -> float:
    """Crofton's formula in four directions; neither the frame nor what lies beyond it is crossed."""
    straight = (mask[1:] ^ mask[:-1]).sum() + (mask[:, 1:] ^ mask[:, :-1]).sum()
    slanted = (mask[1:, 1:] ^ mask[:-1, :-1]).sum() + (mask[1:, :-1] ^ mask[:-1, 1:]).sum()
    return math.pi / 8 * (float(straight) + float(slanted) / math.sqrt(2))


@dataclass(frozen=True)
class Spread:
    """How a measure is spread over masks; all but the count are NaN where it is defined for none.

    Attributes:
        low: 5 % of the values are smaller.
        first_quartile: 25 % are.
        median: half of them are.
        third_quartile: 75 % are.
        high: 95 % are.
        count: how many values there are.
    """

    low: float
    first_quartile: float
    median: float
    third_quartile: float
    high: float
    count: int


@dataclass(frozen=True)
class MeasureComparison:
    """One measure in two sets of masks.

    Attributes:
        measure: a field of `FailureStatistics`.
        real: its spread in the real masks.
        simulated: its spread in the simulated ones.
        distance: the largest difference of the two cumulative distributions (two-sample Kolmogorov-Smirnov), 0 to 1;
            NaN where the measure is defined for no mask of a set.
    """

    measure: str
    real: Spread
    simulated: Spread
    distance: float


@dataclass(frozen=True)
class FailureComparison:
    """Real and simulated failures side by side.

    Attributes:
        measures: one entry a measure, in the order of `TITLES`.
        real_masks: how many there are.
        simulated_masks: how many there are.
        real_empty: share of empty masks among the real ones.
        simulated_empty: share of empty masks among the simulated ones.
    """

    measures: tuple[MeasureComparison, ...]
    real_masks: int
    simulated_masks: int
    real_empty: float
    simulated_empty: float


def compare_failures(real: FailureStatistics, simulated: FailureStatistics) -> FailureComparison:
    """Compare the distributions of all measures.

    Args:
        real: of a coarse network's masks, predicted out of fold.
        simulated: of masks that were made from the same lesions, several for each if you like.

    Returns:
        Spreads and distances. A mask for which a measure is not defined is left out of that measure.

    Raises:
        ValueError: a set has no mask.

    Example:
        >>> target = torch.zeros(2, 16, 16, dtype=torch.bool)
        >>> target[:, 4:12, 4:12] = True
        >>> one = failure_statistics(target.roll(1, 2), target)
        >>> two = failure_statistics(target.roll(2, 2), target)
        >>> compare_failures(one, two).measures[0].distance
        1.0
    """
    for name, one in (("real", real), ("simulated", simulated)):
        if len(one) == 0:
            message = f"{name} must hold at least one mask of a lesion; got none. Give cases whose true mask is filled."
            raise ValueError(message)
    return FailureComparison(
        measures=tuple(_compared(name, real.defined(name), simulated.defined(name)) for name in TITLES),
        real_masks=len(real),
        simulated_masks=len(simulated),
        real_empty=float(real.empty.mean()),
        simulated_empty=float(simulated.empty.mean()),
    )


def _compared(measure: str, real: np.ndarray, simulated: np.ndarray) -> MeasureComparison:
    return MeasureComparison(measure, _spread(real), _spread(simulated), _distance(real, simulated))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The statistic of scipy.stats.ks_2samp, without its p-values, which fail for a single mask."""
    if not len(one) or not len(other):
        return math.nan
    steps = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(values), steps, side="right") / len(values) for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _spread(values: np.ndarray) -> Spread:
    points = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist() if len(values) else [math.nan] * 5
    low, first, median, third, high = points
    return Spread(low, first, median, third, high, len(values))


def failures_table(comparison: FailureComparison) -> str:
    """The spreads of both, and how far apart they are.

    Args:
        comparison: what `compare_failures` returned.

    Returns:
        Markdown, ending in a newline: median (quartiles) [5 %, 95 %] of each measure, and the distance.

    Example:
        >>> target = torch.zeros(2, 16, 16, dtype=torch.bool)
        >>> target[:, 4:12, 4:12] = True
        >>> one = failure_statistics(target.roll(2, 2), target)
        >>> print(failures_table(compare_failures(one, one)).splitlines()[2])
        | Dice | 0.75 (0.75 to 0.75) [0.75, 0.75] | 0.75 (0.75 to 0.75) [0.75, 0.75] | 0.00 |
    """
    lines = ["| Measure | Real | Simulated | Distance |", "|:--|--:|--:|--:|"]
    lines += [_row(one) for one in comparison.measures]
    lines += [
        f"| Empty masks | {comparison.real_empty:.1%} | {comparison.simulated_empty:.1%} | "
        f"{abs(comparison.real_empty - comparison.simulated_empty):.2f} |",
        "",
        f"{comparison.real_masks} real and {comparison.simulated_masks} simulated masks: median (quartiles) "
        "[5 %, 95 %]. Distance: Kolmogorov-Smirnov's, the largest difference of the two cumulative distributions, "
        "0 to 1. A radius is that of the disc of the lesion's area. Empty masks have no distances and no shift.",
        "",
    ]
    return "\n".join(lines)


def _row(one: MeasureComparison) -> str:
    form = ".0f" if one.measure in _COUNTS else ".2f"
    distance = "-" if math.isnan(one.distance) else f"{one.distance:.2f}"
    return f"| {TITLES[one.measure]} | {_cell(one.real, form)} | {_cell(one.simulated, form)} | {distance} |"


def _cell(spread: Spread, form: str) -> str:
    if spread.count == 0:
        return "-"
    middle = f"{spread.median:{form}} ({spread.first_quartile:{form}} to {spread.third_quartile:{form}})"
    return f"{middle} [{spread.low:{form}}, {spread.high:{form}}]"


def _check(probability: Tensor, target: Tensor) -> None:
    if probability.ndim != 3 or probability.shape != target.shape:
        message = (
            f"probability and target must be (n, h, w) on the same pixels; got {tuple(probability.shape)} and "
            f"{tuple(target.shape)}. Take the channel of size 1 out, and bring both to one size first."
        )
        raise ValueError(message)
    if target.dtype != torch.bool:
        message = f"target must be boolean masks; got {target.dtype}. Threshold them, for example mask > 0.5."
        raise ValueError(message)
    if probability.dtype != torch.bool and not bool(((probability >= 0) & (probability <= 1)).all()):
        message = (
            f"probability must be boolean or in [0, 1]; got {probability.dtype} from {probability.min().item():g} to "
            f"{probability.max().item():g}. Send logits through a sigmoid first."
        )
        raise ValueError(message)
