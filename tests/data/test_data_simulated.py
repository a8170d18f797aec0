"""A data set of failures that is a seed and a number: the same samples whoever asks, each case as often as the next."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from ultrarefiner.data import (
    Batch,
    Case,
    CoarsePredictions,
    FittedCase,
    FittedCases,
    Mixed,
    Phantoms,
    PredictedCases,
    SeededSampler,
    SimulatedFailures,
    StretchToSquare,
    collate,
)
from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.simulation import DEFAULT_BINS, FailureSimulator
from ultrarefiner.simulation.resolution import mask_at_size, probability_at_size
from ultrarefiner.training.identity import describe_cases


@pytest.fixture(scope="module")
def fitted() -> FittedCases:
    # Odd sides: what is computed for a batch at once has ends at odd places.
    return FittedCases(Phantoms(7, size=(40, 52)), 33)


def predicted(fitted: FittedCases, *, seed: int = 0) -> PredictedCases:
    logits = 4 * torch.randn(len(fitted), 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    names = fitted.names
    return PredictedCases(fitted, CoarsePredictions(names, logits, (0,) * len(names), ((),), type(fitted.fit).__name__))


def make(kind: str, fitted: FittedCases, samples: int = 100) -> SimulatedFailures | Mixed:
    """A data set as a fresh process has it: nothing is known yet."""
    fresh = FittedCases(fitted.dataset, 21)
    if kind == "simulated":
        return SimulatedFailures(fresh, FailureSimulator(), samples=samples, seed=3, size=19)
    simulated = SimulatedFailures(fresh, FailureSimulator(), samples=round(0.7 * samples), seed=3, size=19)
    return Mixed(simulated, predicted(fresh), share=0.3)


def loaded(
    dataset: Any, *, batch_size: int, workers: int = 0, skip: int = 0
) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    sampler = SeededSampler(len(dataset), seed=5)
    sampler.begin(1, skip=skip)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, collate_fn=collate)
    found: list[tuple[str, Tensor, Tensor, Tensor]] = []
    batch: Batch
    for batch in loader:
        assert batch.coarse_probability is not None
        found += zip(batch.names, batch.images, batch.masks, batch.coarse_probability, strict=True)
    return found


def same(one: list[tuple[str, Tensor, Tensor, Tensor]], other: list[tuple[str, Tensor, Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a[0] == b[0] and all(map(torch.equal, a[1:], b[1:])) for a, b in pairs)


@pytest.mark.parametrize("kind", ["simulated", "mixed"])
def test_workers_batches_and_a_resumed_run_have_the_same_100_samples(kind: str, fitted: FittedCases) -> None:
    whole = loaded(make(kind, fitted), batch_size=10)
    assert len(whole) == 100
    assert len({tuple(sample[3].flatten().tolist()) for sample in whole}) >= (100 if kind == "simulated" else 77)
    assert same(loaded(make(kind, fitted), batch_size=10, workers=1), whole)
    assert same(loaded(make(kind, fitted), batch_size=7, workers=2), whole)
    assert same(loaded(make(kind, fitted), batch_size=33), whole)
    assert same(loaded(make(kind, fitted), batch_size=9, workers=2, skip=41), whole[41:])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # a worker has one
        assert same(loaded(make(kind, fitted), batch_size=100), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["simulated", "mixed"])
def test_a_batch_is_its_samples_in_any_order(kind: str, fitted: FittedCases) -> None:
    dataset = make(kind, fitted, 40)
    chosen = [31, 4, 4, 39, 0]
    for index, case in zip(chosen, dataset.__getitems__(chosen), strict=True):
        alone = make(kind, fitted, 40)[index]
        assert case.name == alone.name == dataset.names[index]
        assert torch.equal(case.coarse_probability, alone.coarse_probability)  # type: ignore[arg-type] # they have one
    assert dataset.__getitems__([]) == []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    dataset[3]
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_are_the_simulators_on_the_cases_masks(fitted: FittedCases) -> None:
    dataset = SimulatedFailures(fitted, FailureSimulator(), samples=20, seed=8, size=24)
    for index in (0, 6, 7, 19):
        case = fitted[dataset.case_of(index)]
        small = mask_at_size(case.mask[None], (24, 24))[:, 0]
        made = FailureSimulator().simulate(small, seed=8, index=torch.tensor([index]))
        expected = probability_at_size(made.probability[:, None], (33, 33))[0]
        got = dataset[index]
        assert torch.equal(got.coarse_probability, expected)  # type: ignore[arg-type] # it has one
        assert torch.equal(got.image, case.image)
        assert torch.equal(got.mask, case.mask)
        assert dataset.simulated([index]).dice.item() == made.dice.item()
    whole = SimulatedFailures(fitted, FailureSimulator(), samples=5)
    assert whole.simulated_size == 33
    soft, true = whole[2].coarse_probability, whole[2].mask
    assert soft is not None
    dice = dice_coefficient((soft > 0.5).float()[None], true[None])
    torch.testing.assert_close(dice[0, 0], whole.simulated([2]).dice[0])
    assert dice < 1


def test_the_wanted_bins_are_met_over_cases_and_rounds(fitted: FittedCases) -> None:
    dataset = SimulatedFailures(fitted, FailureSimulator(), samples=400)
    made = dataset.simulated(range(400))
    for number, one in enumerate(DEFAULT_BINS):
        assert (made.bin == number).float().mean().item() == pytest.approx(one.share, abs=0.01)
    assert made.reached.float().mean() > 0.95


def test_seed_number_size_and_simulator_change_the_samples(fitted: FittedCases) -> None:
    def first(**options: Any) -> FittedCase:
        chosen = {"samples": 10, "seed": 0, "size": 24, "simulator": FailureSimulator(), **options}
        return SimulatedFailures(fitted, chosen.pop("simulator"), **chosen)[4]

    plain = first()
    assert plain.coarse_probability is not None
    assert torch.equal(plain.coarse_probability, first(samples=11).coarse_probability)  # type: ignore[arg-type] # has one
    for options in ({"seed": 1}, {"size": 48}, {"simulator": FailureSimulator.preset("severe")}):
        other = first(**options)
        assert not torch.equal(plain.coarse_probability, other.coarse_probability)  # type: ignore[arg-type] # has one


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 60), rounds=st.integers(1, 6), rest=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_cases_come_equally_often_in_orders_of_their_own(count: int, rounds: int, rest: int, seed: int) -> None:
    samples = count * rounds + rest % count
    fitted = FittedCases(Phantoms(count, size=(32, 32)), 32)
    dataset = SimulatedFailures(fitted, FailureSimulator(), samples=samples, seed=seed)
    order = [dataset.case_of(index) for index in range(samples)]
    turns = [order[start : start + count] for start in range(0, samples, count)]
    assert all(len(set(turn)) == len(turn) for turn in turns)
    assert (
        max(Counter(order).values()) - min(Counter({case: 0 for case in range(count)} | Counter(order)).values()) <= 1
    )
    if count > 8:
        assert len({tuple(turn) for turn in turns[:rounds]}) == rounds
    assert dataset.names == tuple(fitted.names[case] for case in order)


class _Discs(Phantoms):
    """The same disc each time, for only the bins matter."""

    def __getitem__(self, position: int) -> Case:
        axis = torch.arange(32) - 15.5
        mask = (axis.square() + axis.square()[:, None] < 120).float()[None]
        return Case(name=self.names[position], image=mask, mask=mask, label="benign", group=self.names[position])


@pytest.mark.parametrize("count", [8, 13, 34, 50, 55])
def test_no_case_always_gets_the_same_bin(count: int) -> None:
    """Bins follow the golden ratio: unshuffled, rounds of a Fibonacci number of cases would repeat them."""

    rounds = 14
    dataset = SimulatedFailures(
        FittedCases(_Discs(count, size=(32, 32)), 16), FailureSimulator(), samples=rounds * count
    )
    bins = dataset.simulated(range(len(dataset))).bin.tolist()
    of_case: dict[int, Counter[int]] = {}
    for index, number in enumerate(bins):
        of_case.setdefault(dataset.case_of(index), Counter())[number] += 1
    assert len(of_case) == count
    assert all(len(counts) > 1 for counts in of_case.values())
    assert all(max(counts.values()) <= 0.9 * rounds for counts in of_case.values())


class _Healthy(Phantoms):
    """Phantom 1 has no lesion."""

    def __getitem__(self, position: int) -> Any:
        case = super().__getitem__(position)
        return dataclasses.replace(case, mask=torch.zeros_like(case.mask)) if position == 1 else case


@pytest.mark.parametrize("size", [24, 32])
def test_a_case_without_a_lesion_keeps_an_empty_mask(size: int) -> None:
    dataset = SimulatedFailures(FittedCases(_Healthy(3, size=(32, 32)), 32), FailureSimulator(), samples=12, size=size)
    for index in range(12):
        soft = dataset[index].coarse_probability
        assert soft is not None
        assert bool(soft.max() < 2e-6) is (dataset.names[index] == "phantom 1")


def test_distances_are_kept_or_not(fitted: FittedCases) -> None:
    kept = SimulatedFailures(fitted, FailureSimulator(), samples=30)
    anew = SimulatedFailures(fitted, FailureSimulator(), samples=30, keep_in_memory=False)
    assert same_masks(kept.__getitems__(range(30)), anew.__getitems__(range(30)))
    assert len(kept._known or ()) == 7
    assert anew._known is None


def same_masks(one: list[FittedCase], other: list[FittedCase]) -> bool:
    return all(torch.equal(a.coarse_probability, b.coarse_probability) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type] # they have one


def test_numbers_out_of_range(fitted: FittedCases) -> None:
    with pytest.raises(ValueError, match=r"samples and size must be at least 1, but they are 0 and 33"):
        SimulatedFailures(fitted, FailureSimulator(), samples=0)
    with pytest.raises(ValueError, match=r"samples and size must be at least 1, but they are 5 and -1"):
        SimulatedFailures(fitted, FailureSimulator(), samples=5, size=-1)
    dataset = SimulatedFailures(fitted, FailureSimulator(), samples=5)
    for index in (5, -1):
        with pytest.raises(IndexError, match=rf"index must be in 0 to 4, got {index}; there are 5 samples"):
            dataset[index]
    mixed = Mixed(dataset, predicted(fitted), share=0.5)
    for index in (len(mixed), -1):
        with pytest.raises(IndexError, match=rf"index must be in 0 to {len(mixed) - 1}, got {index}"):
            mixed[index]
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match=rf"share must be in \(0, 1\), but it is {share}; without one of the two"):
            Mixed(dataset, predicted(fitted), share=share)
    with pytest.raises(ValueError, match=r"fitted alike, but they are by FitToSquare\(33\) and FitToSquare\(24\)"):
        Mixed(dataset, predicted(FittedCases(fitted.dataset, 24)), share=0.5)
    with pytest.raises(ValueError, match=r"share 0\.01 beside 5 simulated samples is less than one predicted mask"):
        Mixed(dataset, predicted(fitted), share=0.01)


def test_two_kinds_of_squares_are_not_mixed(fitted: FittedCases) -> None:
    stretched = FittedCases(fitted.dataset, StretchToSquare(33))
    with pytest.raises(ValueError, match=r"by StretchToSquare\(33\) and FitToSquare\(33\)"):
        Mixed(SimulatedFailures(stretched, FailureSimulator(), samples=5), predicted(fitted), share=0.5)


@settings(deadline=None, max_examples=25)
@given(samples=st.integers(100, 400), percent=st.integers(1, 95))
@example(samples=300, percent=29)
@example(samples=300, percent=58)
def test_the_share_is_met_over_any_beginning(samples: int, percent: int) -> None:
    share = percent / 100
    fitted = FittedCases(Phantoms(5, size=(32, 32)), 32)
    simulated = SimulatedFailures(fitted, FailureSimulator(), samples=samples)
    mixed = Mixed(simulated, predicted(fitted), share=share)
    places = [mixed._place(index) for index in range(len(mixed))]
    count = 0
    for index, (is_predicted, _) in enumerate(places):
        assert mixed.is_predicted(index) is is_predicted
        count += is_predicted
        assert count == (index + 1) * percent // 100
    assert [place for is_predicted, place in places if not is_predicted] == list(range(samples))
    turns = [place for is_predicted, place in places if is_predicted]
    assert turns == [number % 5 for number in range(len(turns))]


def test_mixed_samples_are_those_of_the_two(fitted: FittedCases) -> None:
    simulated = SimulatedFailures(fitted, FailureSimulator(), samples=30, seed=1, size=24)
    stored = predicted(fitted)
    mixed = Mixed(simulated, stored, share=0.25)
    assert len(mixed) == 40
    assert mixed.size == 33
    assert not mixed.unseen
    made, kept = iter(range(30)), 0
    for index in range(40):
        case = mixed[index]
        if mixed.is_predicted(index):
            expected, kept = stored[kept % 7], kept + 1
        else:
            expected = simulated[next(made)]
        assert case.name == expected.name == mixed.names[index]
        assert torch.equal(case.coarse_probability, expected.coarse_probability)  # type: ignore[arg-type] # has one
    assert kept == 10


def test_a_checkpoint_knows_how_the_masks_are_made(fitted: FittedCases) -> None:
    def simulated(fitted: FittedCases = fitted, **options: Any) -> SimulatedFailures:
        chosen = {"samples": 10, "size": 24, "simulator": FailureSimulator(), **options}
        return SimulatedFailures(fitted, chosen.pop("simulator"), **chosen)

    def mixed(share: float = 0.5, seed: int = 0, fitted: FittedCases = fitted, **options: Any) -> Mixed:
        return Mixed(simulated(fitted, **options), predicted(fitted, seed=seed), share=share)

    stretched = FittedCases(fitted.dataset, StretchToSquare(33))
    larger = FittedCases(fitted.dataset, 40)
    different = [
        describe_cases(one)
        for one in (
            fitted,
            predicted(fitted),
            predicted(fitted, seed=1),
            simulated(),
            simulated(stretched),
            simulated(larger),
            simulated(seed=1),
            simulated(size=25),
            simulated(samples=11),
            simulated(simulator=FailureSimulator.preset("mild")),
            mixed(),
            mixed(share=0.4),
            mixed(seed=1),
            mixed(fitted=stretched),
            mixed(fitted=larger),
            mixed(simulator=FailureSimulator(complete_share=0.1)),
        )
    ]
    for number, one in enumerate(different):
        assert [other for other in different if other == one] == [one], number
    assert describe_cases(mixed()) == describe_cases(mixed())
    assert describe_cases(simulated()) == describe_cases(simulated())
    assert describe_cases(mixed())["size"] == 33
