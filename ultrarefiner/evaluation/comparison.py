"""Coarse against refined on the same cases: what was gained, what was lost, and whether it may be chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates, paired_p_value
from ultrarefiner.evaluation.metrics import CaseMetrics

METRICS = ("dice", "iou", "precision", "recall", "hd95", "assd")
"""The metrics that are compared, fields of `CaseMetrics`. More is better, but for the two distances."""

DICE_POINT = 0.01
"""A change of Dice of at most this is no change."""

FOUND_DICE = 0.1
"""A lesion whose mask has at least this Dice is found."""

Outcome = Literal["gained", "unchanged", "harmed"]
Detection = Literal["kept", "lost", "found", "missed", "no lesion"]


@dataclass(frozen=True)
class MetricComparison:
    """One metric, coarse against refined.

    Attributes:
        name: one of `METRICS`.
        coarse: mean and 95 % interval of the coarse masks.
        refined: the same of the refined masks.
        difference: the same of refined minus coarse, case by case (paired).
        p_value: two-sided Wilcoxon signed-rank test of the differences.
    """

    name: str
    coarse: Estimate
    refined: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """All cases, what they say together, and how many went which way.

    Attributes:
        names: of the cases.
        coarse: metrics of the coarse masks, in the order of the names.
        refined: metrics of the refined masks.
        metrics: one comparison a metric, in the order of `METRICS`.
        gained: cases whose Dice rose by more than `DICE_POINT`.
        unchanged: cases whose Dice moved by at most that.
        harmed: cases whose Dice fell by more than that. Every lost case is harmed too.
        lost: lesions that the coarse mask found (Dice at least `FOUND_DICE`) and the refined mask does not: it is
            empty, nearly empty or elsewhere.
        found: lesions that the refined mask found and the coarse mask did not.
        coarse_empty: cases with a lesion whose coarse mask is empty.
        refined_empty: cases with a lesion whose refined mask is empty.
        groups: how many groups the cases form, that is, how many independent observations.
        resamples: how many times the bootstrap drew.
    """

    names: tuple[str, ...]
    coarse: tuple[CaseMetrics, ...]
    refined: tuple[CaseMetrics, ...]
    metrics: tuple[MetricComparison, ...]
    gained: int
    unchanged: int
    harmed: int
    lost: int
    found: int
    coarse_empty: int
    refined_empty: int
    groups: int
    resamples: int


def case_outcome(coarse: CaseMetrics, refined: CaseMetrics) -> Outcome:
    """Whether a case's Dice rose, fell, or stayed within one Dice point (0.01).

    Args:
        coarse: the metrics of the coarse mask.
        refined: those of the refined mask of the same case.

    Returns:
        "gained", "harmed" or "unchanged".

    Example:
        >>> worse = CaseMetrics(0.70, 0.54, 0.7, 0.7, 3.0, 1.0, 50, 50)
        >>> better = CaseMetrics(0.80, 0.67, 0.8, 0.8, 2.0, 0.7, 50, 50)
        >>> case_outcome(worse, better), case_outcome(better, worse), case_outcome(worse, worse)
        ('gained', 'harmed', 'unchanged')
    """
    change = refined.dice - coarse.dice
    if change > DICE_POINT:
        return "gained"
    return "harmed" if change < -DICE_POINT else "unchanged"


def case_detection(coarse: CaseMetrics, refined: CaseMetrics) -> Detection:
    """Whether the lesion was found (Dice at least 0.1) before and after refinement.

    Args:
        coarse: the metrics of the coarse mask.
        refined: those of the refined mask of the same case.

    Returns:
        "found", "lost", "kept" or "missed"; "no lesion" where the truth is empty.

    Example:
        >>> hit = CaseMetrics(0.70, 0.54, 0.7, 0.7, 3.0, 1.0, 50, 50)
        >>> miss = CaseMetrics(0.0, 0.0, 0.0, 0.0, 90.0, 90.0, 0, 50)
        >>> case_detection(hit, miss), case_detection(miss, hit), case_detection(hit, hit)
        ('lost', 'found', 'kept')
    """
    if coarse.target_pixels == 0:
        return "no lesion"
    before, after = coarse.dice >= FOUND_DICE, refined.dice >= FOUND_DICE
    if before:
        return "kept" if after else "lost"
    return "found" if after else "missed"


def compare(
    names: Sequence[str],
    coarse: Sequence[CaseMetrics],
    refined: Sequence[CaseMetrics],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare coarse and refined masks of the same cases. No case is left out of any mean.

    Args:
        names: of the cases, each once.
        coarse: metrics of the coarse masks, in that order.
        refined: metrics of the refined masks, in that order.
        groups: what belongs together (patient, near-duplicates); None takes every case as independent. Groups widen
            the intervals (`bootstrap_estimates`) and count once in the test (`paired_p_value`).
        resamples: how often the bootstrap draws.
        seed: of the bootstrap; it touches nobody else's randomness.

    Returns:
        The comparison.

    Raises:
        ValueError: if there is no case, the lists differ in length, a name comes twice, a pair has different
            targets, or resamples is not positive.

    Example:
        >>> coarse = [CaseMetrics(d, d, d, d, 9.0, 3.0, 50, 50) for d in (0.70, 0.80, 0.75)]
        >>> refined = [CaseMetrics(d, d, d, d, 7.0, 2.0, 50, 50) for d in (0.80, 0.805, 0.70)]
        >>> comparison = compare(["a", "b", "c"], coarse, refined, resamples=200)
        >>> comparison.gained, comparison.unchanged, comparison.harmed
        (1, 1, 1)
        >>> round(comparison.metrics[0].difference.mean, 4)
        0.0183
    """
    groups = list(names) if groups is None else list(groups)
    _check(names, coarse, refined, groups, resamples)
    before = np.array([[getattr(case, metric) for metric in METRICS] for case in coarse], dtype=np.float64)
    after = np.array([[getattr(case, metric) for metric in METRICS] for case in refined], dtype=np.float64)
    values = np.concatenate([before, after, after - before], axis=1)
    estimates = bootstrap_estimates(values, groups, resamples=resamples, seed=seed)
    count = len(METRICS)
    metrics = tuple(
        MetricComparison(
            name=metric,
            coarse=estimates[i],
            refined=estimates[count + i],
            difference=estimates[2 * count + i],
            p_value=paired_p_value(after[:, i] - before[:, i], groups),
        )
        for i, metric in enumerate(METRICS)
    )
    outcomes = Counter(map(case_outcome, coarse, refined))
    detections = Counter(map(case_detection, coarse, refined))
    return Comparison(
        names=tuple(names),
        coarse=tuple(coarse),
        refined=tuple(refined),
        metrics=metrics,
        gained=outcomes["gained"],
        unchanged=outcomes["unchanged"],
        harmed=outcomes["harmed"],
        lost=detections["lost"],
        found=detections["found"],
        coarse_empty=_empty(coarse),
        refined_empty=_empty(refined),
        groups=len(set(groups)),
        resamples=resamples,
    )


def _empty(cases: Sequence[CaseMetrics]) -> int:
    return sum(case.prediction_pixels == 0 and case.target_pixels > 0 for case in cases)


def _check(
    names: Sequence[str],
    coarse: Sequence[CaseMetrics],
    refined: Sequence[CaseMetrics],
    groups: Sequence[str],
    resamples: int,
) -> None:
    if not names or not len(names) == len(coarse) == len(refined) == len(groups):
        message = (
            "names, coarse, refined and groups must have one entry a case and at least one case; got "
            f"{len(names)}, {len(coarse)}, {len(refined)} and {len(groups)}. A case without a prediction is an empty "
            "mask, not a missing entry."
        )
        raise ValueError(message)
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        message = f"names must name each case once; {twice[0]!r} comes more than once. Prefix it with its data set."
        raise ValueError(message)
    for name, first, second in zip(names, coarse, refined, strict=True):
        if first.target_pixels != second.target_pixels:
            message = (
                "coarse and refined must be measured against the same target; that of case "
                f"{name!r} has {first.target_pixels} and {second.target_pixels} pixels. "
                "Are the lists in the same order and at the same resolution?"
            )
            raise ValueError(message)
    if resamples < 1:
        message = f"resamples must be at least 1; got {resamples}. 10000 is usual."
        raise ValueError(message)
