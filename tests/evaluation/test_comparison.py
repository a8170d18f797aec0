"""Coarse against refined: intervals, the paired test, and what became of each case."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.evaluation import (
    CaseMetrics,
    bootstrap_estimates,
    case_detection,
    case_outcome,
    compare,
    paired_p_value,
)

quick = settings(deadline=None, max_examples=15)


def case(dice: float, *, predicted: int = 50, target: int = 50, hd95: float = 5.0) -> CaseMetrics:
    return CaseMetrics(dice, dice / 2, dice, dice, hd95, hd95 / 2, predicted, target)


def alone(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_means_and_differences_are_over_all_cases() -> None:
    coarse, refined = [case(0.5), case(0.9), case(0.7)], [case(0.8, hd95=2.0), case(0.9), case(0.0, hd95=80.0)]
    comparison = compare(["a", "b", "c"], coarse, refined, resamples=100)
    by_name = {metric.name: metric for metric in comparison.metrics}
    assert list(by_name) == ["dice", "iou", "precision", "recall", "hd95", "assd"]
    assert by_name["dice"].coarse.mean == pytest.approx(0.7)
    assert by_name["dice"].refined.mean == pytest.approx(1.7 / 3)
    assert by_name["dice"].difference.mean == pytest.approx(-0.4 / 3)
    assert by_name["hd95"].refined.mean == pytest.approx(87 / 3)
    assert by_name["assd"].difference.mean == pytest.approx((43.5 - 7.5) / 3)


@given(seed=st.integers(0, 1000), count=st.integers(1, 30))
@quick
def test_the_interval_is_the_percentiles_of_plainly_resampled_means(seed: int, count: int) -> None:
    values = np.random.default_rng(seed).normal(size=(count, 2))
    estimates = bootstrap_estimates(values, alone(count), resamples=4000, seed=seed)
    generator = np.random.default_rng(seed + 1)
    plain = np.array([values[generator.integers(count, size=count)].mean(0) for _ in range(4000)])
    spread = values.std(0) / math.sqrt(count)
    for column, estimate in enumerate(estimates):
        assert estimate.mean == pytest.approx(values[:, column].mean())
        assert estimate.low <= estimate.mean + 1e-12
        assert estimate.high >= estimate.mean - 1e-12
        low, high = np.percentile(plain[:, column], [2.5, 97.5])
        assert estimate.low == pytest.approx(low, abs=0.25 * spread[column] + 1e-9)
        assert estimate.high == pytest.approx(high, abs=0.25 * spread[column] + 1e-9)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        (estimate,) = bootstrap_estimates(generator.normal(size=(60, 1)), alone(60), resamples=500, seed=seed)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_seed_decides_the_draws_and_the_global_state_stays() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1))
    before = np.random.get_state()[1].copy()
    first, again, other = (bootstrap_estimates(values, alone(20), resamples=300, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert np.array_equal(before, np.random.get_state()[1])


def test_groups_widen_the_interval_and_weigh_their_cases() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=(10, 1)), 8, axis=0)
    patients = [str(index // 8) for index in range(80)]
    (single,) = bootstrap_estimates(values, alone(80), resamples=2000)
    (grouped,) = bootstrap_estimates(values, patients, resamples=2000)
    assert grouped.mean == single.mean
    # Eight copies of each value carry no more than one: the interval is that of ten cases, sqrt(8) times as wide.
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(math.sqrt(8), rel=0.15)
    uneven = np.array([[0.0], [0.0], [0.0], [1.0]])
    (estimate,) = bootstrap_estimates(uneven, ["a", "a", "a", "b"], resamples=2000)
    assert (estimate.mean, estimate.low, estimate.high) == (0.25, 0.0, 1.0)


def test_a_paired_interval_is_narrower_than_the_two_it_compares() -> None:
    hard = np.random.default_rng(0).uniform(0.2, 0.95, size=40)
    comparison = compare(alone(40), [case(d) for d in hard], [case(d + 0.02) for d in hard], resamples=500)
    dice = comparison.metrics[0]
    assert dice.difference.low == pytest.approx(0.02)
    assert dice.difference.high == pytest.approx(0.02)
    assert dice.coarse.high - dice.coarse.low > 0.05


@given(st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=8, unique_by=abs))
@quick
def test_the_p_value_is_that_of_all_sign_flips(differences: list[int]) -> None:
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = abs(ranks[np.array(differences) > 0].sum() - ranks.sum() / 2)
    flips = [sum(itertools.compress(ranks, signs)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    expected = np.mean([abs(flip - ranks.sum() / 2) >= observed for flip in flips])
    values = 0.01 * np.array(differences)
    assert paired_p_value(values, alone(len(values))) == pytest.approx(expected)


@pytest.mark.parametrize(
    "differences", [[0.0], [0.0, 0.0, 0.1], [0.1, 0.1, 0.1, -0.1], [0.2] * 30, [0.0] * 40 + [0.1, -0.1]]
)
def test_zeros_and_ties_give_a_probability(differences: list[float]) -> None:
    p_value = paired_p_value(np.array(differences), alone(len(differences)))
    assert 0 < p_value <= 1


def test_no_difference_is_no_evidence_and_many_are() -> None:
    assert paired_p_value(np.zeros(10), alone(10)) == 1.0
    assert paired_p_value(0.01 * np.arange(1, 31), alone(30)) < 1e-6
    # The same cases as copies of two patients prove little.
    assert paired_p_value(0.01 * np.arange(1, 31), ["p" if i < 15 else "q" for i in range(30)]) >= 0.5


@pytest.mark.parametrize(
    ("coarse", "refined", "outcome"),
    [(0.70, 0.72, "gained"), (0.70, 0.705, "unchanged"), (0.70, 0.695, "unchanged"), (0.70, 0.68, "harmed")],
)
def test_a_dice_point_decides_the_outcome(coarse: float, refined: float, outcome: str) -> None:
    assert case_outcome(case(coarse), case(refined)) == outcome


@pytest.mark.parametrize(
    ("coarse", "refined", "detection"),
    [(0.5, 0.05, "lost"), (0.05, 0.5, "found"), (0.1, 0.1, "kept"), (0.09, 0.0, "missed")],
)
def test_a_tenth_of_dice_decides_detection(coarse: float, refined: float, detection: str) -> None:
    assert case_detection(case(coarse), case(refined)) == detection
    assert case_detection(case(coarse, target=0), case(refined, target=0)) == "no lesion"


def test_cases_and_empty_masks_are_counted() -> None:
    coarse = [case(0.5), case(0.9), case(0.8), case(0.0, predicted=0), case(1.0, predicted=0, target=0)]
    refined = [case(0.8), case(0.9), case(0.0, predicted=0), case(0.6), case(0.0, predicted=9, target=0)]
    comparison = compare(alone(5), coarse, refined, resamples=50, groups=["p", "p", "q", "q", "r"])
    assert (comparison.gained, comparison.unchanged, comparison.harmed) == (2, 1, 2)
    assert (comparison.lost, comparison.found) == (1, 1)
    assert (comparison.coarse_empty, comparison.refined_empty) == (1, 1)
    assert (comparison.groups, comparison.resamples) == (3, 50)
    assert comparison.coarse == tuple(coarse)


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one case; got 0, 0, 0 and 0"):
        compare([], [], [])
    with pytest.raises(ValueError, match=r"one entry a case.*got 2, 2, 1 and 2"):
        compare(["a", "b"], [case(0.5)] * 2, [case(0.5)])
    with pytest.raises(ValueError, match="names must name each case once; 'a' comes more than once"):
        compare(["a", "a"], [case(0.5)] * 2, [case(0.5)] * 2)
    with pytest.raises(ValueError, match="same target; that of case 'a' has 50 and 60 pixels"):
        compare(["a"], [case(0.5)], [case(0.5, target=60)])
    with pytest.raises(ValueError, match="resamples must be at least 1; got 0"):
        compare(["a"], [case(0.5)], [case(0.5)], resamples=0)
