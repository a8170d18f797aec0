"""The small parts: schedule, plan, settings, averages, order of batches, logs, stopping."""

from __future__ import annotations

import copy
import json
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, Subset

from ultrarefiner.checkpoints.settings import describe, first_difference
from ultrarefiner.data import Augmentation, FittedCases, Phantoms, StretchToSquare
from ultrarefiner.losses import QualityAwareLoss
from ultrarefiner.simulation import SimpleFailures
from ultrarefiner.training import Cosine, Polynomial, cosine_factor
from ultrarefiner.training.averages import Averages
from ultrarefiner.training.identity import describe_cases
from ultrarefiner.training.loading import SharedBatches
from ultrarefiner.training.logs import MetricsFile
from ultrarefiner.training.plan import Plan
from ultrarefiner.training.stopping import StopRequest


@given(total=st.integers(2, 60), warmup=st.integers(0, 10), floor=st.floats(0.001, 0.9))
@settings(deadline=None, max_examples=30)
def test_schedule_against_torch(total: int, warmup: int, floor: float) -> None:
    warmup = min(warmup, total - 2)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - 1 - warmup, eta_min=floor)
    for step in range(total):
        factor = cosine_factor(step, total, warmup=warmup, floor=floor)
        if step < warmup:
            assert factor == pytest.approx((step + 1) / (warmup + 1))
            continue
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert factor == pytest.approx(floor)


@given(total=st.integers(1, 60), power=st.floats(0.1, 3.0))
@settings(deadline=None, max_examples=30)
def test_polynomial_against_torch(total: int, power: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    polynomial = torch.optim.lr_scheduler.PolynomialLR(optimizer, total, power)
    for step in range(total):
        assert Polynomial(power=power).factor(step, total) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        polynomial.step()
    assert optimizer.param_groups[0]["lr"] == 0, "the step after the last is the first without learning"


def test_cosine_warms_up_for_a_share_of_the_run() -> None:
    factors = [Cosine(warmup=0.3, floor=0.1).factor(step, 10) for step in range(10)]
    assert factors == [cosine_factor(step, 10, warmup=3, floor=0.1) for step in range(10)]
    assert factors.index(max(factors)) == 3


@pytest.mark.parametrize(
    ("schedule", "options", "sentence"),
    [
        (Cosine, {"warmup": 1.0}, r"warmup must be the share of all steps that warms up, in \[0, 1\)"),
        (Cosine, {"floor": 0.0}, r"left at the end, in \(0, 1\]; they are 0.05 and 0.0"),
        (Polynomial, {"power": 0.0}, "power must be a positive exponent, but it is 0.0"),
    ],
)
def test_schedules_complain(schedule, options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        schedule(**options)


@given(
    cases=st.integers(1, 23), batch_size=st.integers(1, 6), accumulate=st.integers(1, 4), processes=st.integers(1, 4)
)
@settings(deadline=None, max_examples=30)
def test_every_case_comes_once_an_epoch(cases: int, batch_size: int, accumulate: int, processes: int) -> None:
    plan = Plan(epochs=1, cases=cases, batch_size=batch_size, accumulate=accumulate, processes=processes)
    shares = [SharedBatches(plan, rank=rank) for rank in range(processes)]
    seen: Counter[int] = Counter()
    lengths = set()
    for share in shares:
        share.begin(3)
        batches = list(share)
        lengths.add(tuple(map(len, batches)))
        assert len(batches) == len(share) == plan.batches_per_epoch
        seen.update(case for batch in batches for case in batch)
        for skip in range(len(batches) + 1):
            share.begin(3, skip=skip)
            assert list(share) == batches[skip:]
    assert len(lengths) == 1, "a process would wait for another"
    assert set(seen) == set(range(cases))
    assert sum(seen.values()) - cases < processes
    assert plan.steps_per_epoch == -(-plan.batches_per_epoch // accumulate)


def test_order_follows_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = SharedBatches(Plan(epochs=1, cases=30, batch_size=4, seed=seed), rank=0)
        batches.begin(epoch)
        return list(batches)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1, but it is 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"accumulate": -1}, "accumulate must be at least 1"),
        ({"cases": 0}, "dataset must hold at least one case to train on, but it is empty"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, or None for no clipping"),
        ({"precision": "16-true"}, "precision must be one of 32-true, bf16-mixed, 16-mixed, but it is '16-true'"),
    ],
)
def test_plan_complains(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan(**{"epochs": 1, "batch_size": 1, "cases": 1, **options})


def test_descriptions_of_the_parts_hold_their_options() -> None:
    @dataclass(frozen=True)
    class Point:
        power: float = 2.0
        _cache: int = 0

    class Speaking(nn.Module):
        def settings(self):
            return {"style": "direct", "sides": (1, 2)}

    assert describe(QualityAwareLoss(weight=0.1))["weight"] == 0.1
    assert describe(Speaking()) == {"class": describe(Speaking())["class"], "style": "direct", "sides": [1, 2]}
    assert describe(Point()) == {"class": describe(Point())["class"], "power": 2.0}
    assert describe(nn.Conv2d(1, 2, 3)) == {"class": "Conv2d", "parameters": 20}
    assert [type(described) for described in describe([np.float64(1), signal.SIGINT, True])] == [float, str, bool]
    assert describe(describe)["class"] == "describe"
    for one, other in (
        (SimpleFailures(), SimpleFailures(chance=0.1)),
        (Augmentation(), Augmentation(rotation=5.0)),
        (Augmentation(), Augmentation(speckle=0.0)),
        (QualityAwareLoss(), QualityAwareLoss(start=0.5)),
    ):
        assert first_difference(describe(one), describe(type(one)())) is None
        assert first_difference(describe(one), describe(other)) is not None


def scaled(images, *, by):
    return images * by


def enclosing(by):
    def damage(images):
        return images * by

    return damage


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (partial(scaled, by=1), partial(scaled, by=2)),
        (partial(scaled, 1), partial(scaled, 2)),
        (partial(scaled), partial(enclosing)),
        (enclosing(1), enclosing(2)),
        (SimpleFailures(chance=0.1).__call__, SimpleFailures(chance=0.2).__call__),
        (torch.zeros(2), torch.ones(2)),
        (np.zeros(2), np.ones(2)),
        (np.int64(1), np.int64(2)),
        ({"a": {1, 2}}, {"a": {1, 3}}),
        (SimpleNamespace(inner=SimpleNamespace(power=1)), SimpleNamespace(inner=SimpleNamespace(power=2))),
        (torch.float16, torch.float32),
        (Path("a"), Path("b")),
        (nn.ReLU, nn.GELU),
    ],
)
def test_what_differs_is_described_differently_and_only_by_plain_values(one, other) -> None:
    assert json.dumps(describe(one)) == json.dumps(describe(copy.deepcopy(one)))
    assert describe(one) != describe(other)


def test_what_cannot_be_described_is_refused() -> None:
    ring: dict = {}
    ring["again"] = ring

    class Addressed(nn.Module):
        def __repr__(self):
            return object.__repr__(self)

    for value, reason in (
        (lambda images: images, "all lambdas have the same name"),
        (torch.Generator(), "it has no attributes that say what it is"),
        (object(), "it has no attributes"),
        (iter([1]), "it has no attributes"),
        (ring, "nested more than 30 deep, or holds itself"),
        (Addressed(), "what it prints holds an address"),
    ):
        with pytest.raises(ValueError, match=rf"recipe.part\S* must be something that .*{reason}.*a method settings"):
            describe(value, "recipe.part")


def test_cases_are_known_by_their_names_order_and_size(cases) -> None:
    whole = Phantoms(6, size=(32, 32))

    def fold(*numbers, size=32):
        return FittedCases(whole.subset([f"phantom {number}" for number in numbers]), size)

    base = describe_cases(fold(0, 1))
    assert base == describe_cases(fold(0, 1)) == describe_cases(Subset(FittedCases(whole, 32), [0, 1]))
    assert base["cases"] == 2
    assert base["size"] == 32
    listed = describe_cases(cases[:2])
    digests = [
        each["digest"] for each in (base, describe_cases(fold(0, 2)), describe_cases(fold(0, 1, size=48)), listed)
    ]
    digests.append(describe_cases(Subset(FittedCases(whole, 32), [1, 0]))["digest"])
    assert len(set(digests)) == 5
    assert describe_cases(cases[:2]) == listed == describe_cases(tuple(cases[:2]))

    class Nameless(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise NotImplementedError

    assert describe_cases(Nameless())["size"] is None
    stretched = FittedCases(whole, StretchToSquare(32))
    assert describe_cases(stretched) != describe_cases(FittedCases(whole, 32))
    assert describe_cases(Subset(stretched, [0]))["fit"] == "StretchToSquare"
    assert describe_cases(Nameless())["digest"] not in digests


@pytest.mark.parametrize(
    ("saved", "current", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}, None),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ("a.c", 2, 3)),
        ({"a": 1}, {"a": 1, "b": 2}, ("b", "absent", 2)),
        ({"a": 1, "b": 2}, {"a": 1}, ("b", 2, "absent")),
        ({"a": None}, {"a": {"b": 1}}, ("a", None, {"b": 1})),
        ({"a": float("nan")}, {"a": float("nan")}, None),
    ],
)
def test_first_difference(saved, current, expected) -> None:
    assert first_difference(saved, current) == expected


def test_averages_weigh_by_images_and_survive_a_checkpoint() -> None:
    averages = Averages()
    assert averages.means() == {}
    averages.add({"loss": torch.tensor(2.0, requires_grad=True)}, images=3)
    resumed = Averages()
    resumed.restore(averages.state(), torch.device("cpu"))
    for each in (averages, resumed):
        each.add({"loss": torch.tensor(4.0)}, images=1)
        assert each.means() == {"loss": 2.5}
    averages.clear()
    assert averages.means() == {}


def test_metrics_file_is_cut_back_and_goes_on(tmp_path: Path) -> None:
    whole, cut = MetricsFile(tmp_path / "whole.csv"), tmp_path / "cut.csv"
    for step in range(6):
        whole.append({"step": step, "loss": 1 / (step + 1), "dice": None})
    cut.write_text((tmp_path / "whole.csv").read_text()[:-5])
    resumed = MetricsFile(cut)
    assert [row["step"] for row in resumed.rows()] == [0, 1, 2, 3, 4], "a half-written row counts as none"
    resumed.keep(lambda row: row["step"] <= 3)
    for step in (4, 5):
        resumed.append({"step": step, "loss": 1 / (step + 1), "dice": None})
    assert cut.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    resumed.append({"step": 6, "lr": 0.5})
    assert resumed.rows()[-2:] == [{"step": 5.0, "loss": 1 / 6}, {"step": 6.0, "lr": 0.5}]
    assert cut.read_text().splitlines()[0] == "step,loss,dice,lr"


def test_metrics_file_killed_in_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("epoch,lo")
    metrics = MetricsFile(tmp_path / "a.csv")
    metrics.keep(lambda row: True)
    metrics.append({"epoch": 0, "loss": 0.5})
    assert metrics.rows() == [{"epoch": 0.0, "loss": 0.5}]


def test_second_signal_interrupts_at_once_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_handler_outside_the_main_thread_or_when_inactive() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def elsewhere() -> None:
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    with StopRequest(active=False):
        seen.append(signal.getsignal(signal.SIGINT))
    assert seen == [before, before]
