"""How sure a mean over cases is: bootstrap intervals and a paired test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_CHUNK = 500  # resamples at a time: the counts of 500 x 2000 cases are 8 MB


@dataclass(frozen=True)
class Estimate:
    """A mean and how far it may be off.

    Attributes:
        mean: the mean over the cases.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    mean: float
    low: float
    high: float


def bootstrap_estimates(
    values: Values, groups: Sequence[str], *, resamples: int = 10_000, seed: int = 0
) -> tuple[Estimate, ...]:
    """Mean of each column with its 95 % percentile bootstrap interval.

    Whole groups are drawn with replacement, as many as there are, and the mean is over the cases drawn:
    images of one patient are not independent, and drawing them one by one would make the interval too narrow.
    All columns share the draws, so a column of differences gives a *paired* interval.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.

    Args:
        values: one row a case, one column a quantity.
        groups: the group of each case; names of its own for each where cases are independent.
        resamples: how often to draw.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        One estimate a column. With a single group the interval is the mean itself.

    Example:
        >>> values = np.array([[0.0], [1.0], [1.0], [2.0]])
        >>> (estimate,) = bootstrap_estimates(values, ["a", "b", "c", "d"], resamples=5000)
        >>> estimate.mean, estimate.low, estimate.high
        (1.0, 0.25, 1.75)
    """
    _, member, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = np.zeros((len(size), values.shape[1]))
    np.add.at(sums, member, values)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            _resampled_means(sums, size, min(_CHUNK, resamples - start), generator)
            for start in range(0, resamples, _CHUNK)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return tuple(
        Estimate(float(mean), float(lower), float(upper))
        for mean, lower, upper in zip(values.mean(0), low, high, strict=True)
    )


def _resampled_means(sums: Values, size: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Values:
    count = len(size)
    drawn = generator.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    means: Values = (times @ sums) / (times @ size)[:, None]
    return means


def paired_p_value(differences: Values, groups: Sequence[str]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test that the differences lie around zero.

    Each group counts once, with its mean difference. Differences are rounded to 12 decimals, so that equal ones are
    ties. Zeros are ranked and then left out (Pratt), which is right for masks that were passed through unchanged.

    Source: Pratt, "Remarks on Zeros and Ties in the Wilcoxon Signed Rank Procedures", JASA 1959; scipy's code.

    Args:
        differences: refined minus coarse, one value a case.
        groups: the group of each case.

    Returns:
        A probability; 1 where every difference is zero. Never NaN.

    Example:
        >>> paired_p_value(np.zeros(5), list("abcde"))
        1.0
        >>> paired_p_value(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), list("abcde"))
        0.0625
    """
    _, member, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    means = np.round(np.bincount(member, weights=differences) / size, 12)
    if not means.any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(means, zero_method="pratt").pvalue)
