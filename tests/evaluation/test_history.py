"""A run's numbers as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_moments import Moment

from ultrarefiner.evaluation import History, write_history

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


def strict(path: Path) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def write(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([[repr(value) for value in row.values()] for row in rows])


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_every_number_comes_back_exactly(tmp_path: Path, values: list[tuple[float, float]]) -> None:
    rows = [
        {"epoch": epoch, "step": 3 * epoch + 3, "epoch/loss": loss, "validation/dice": dice}
        for epoch, (loss, dice) in enumerate(values)
    ]
    write(tmp_path / "metrics.csv", rows)
    history = strict(write_history(tmp_path))
    assert list(history) == ["epochs", "steps", "best", "score_name"]
    assert history["steps"] == []

    def plain(value: float) -> float | None:
        return value if value - value == 0 else None

    assert history["epochs"] == [{name: plain(value) for name, value in row.items()} for row in rows]
    best, reached = None, -float("inf")
    for epoch, (_, dice) in enumerate(values):
        if reached < dice < float("inf"):
            best, reached = epoch, dice
    assert (None if history["best"] is None else history["best"]["epoch"]) == best


def test_counts_are_whole_numbers_and_a_row_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,epoch/loss,validation/dice\n0,2,1.0,0.5\n1,4,1.0,0.75\n2,6,1")
    (tmp_path / "steps.csv").write_text("step,epoch,train/loss\n2,0,1.0\n4,1,\n")
    path = write_history(tmp_path)
    assert path == tmp_path / "history.json"
    assert path.read_text().splitlines() == [
        "{",
        '"epochs": [',
        '{"epoch": 0, "step": 2, "epoch/loss": 1.0, "validation/dice": 0.5},',
        '{"epoch": 1, "step": 4, "epoch/loss": 1.0, "validation/dice": 0.75}',
        "],",
        '"steps": [',
        '{"step": 2, "epoch": 0, "train/loss": 1.0},',
        '{"step": 4, "epoch": 1}',
        "],",
        '"best": {"epoch": 1, "dice": 0.75},',
        '"score_name": "Dice"',
        "}",
    ]
    (tmp_path / "run.json").write_text('{"score_name": "Dice of boxes"}')
    assert strict(write_history(tmp_path))["score_name"] == "Dice of boxes"


def test_a_resumed_run_repeats_nothing(tmp_path: Path) -> None:
    table = "epoch,step,epoch/loss\n0,2,1.0\n1,4,0.5\n"
    (tmp_path / "metrics.csv").write_text(table)
    first = write_history(tmp_path).read_bytes()
    assert write_history(tmp_path).read_bytes() == first
    (tmp_path / "metrics.csv").write_text(table + "1,4,0.4\n2,6,0.3\n")
    history = strict(write_history(tmp_path))
    assert [(row["epoch"], row["epoch/loss"]) for row in history["epochs"]] == [(0, 1.0), (1, 0.4), (2, 0.3)]
    assert history["best"] is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.json", "metrics.csv"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,epoch/loss\n0,1.0\n")
    (tmp_path / "history.json").write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_history(tmp_path)
    assert (tmp_path / "history.json").read_text() == "old"


def test_the_watcher_writes_when_it_is_time(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,epoch/loss\n0,1.0\n")
    for epoch, written in ((0, False), (1, True), (2, False), (4, True)):
        (tmp_path / "history.json").unlink(missing_ok=True)
        History(every=2)(Moment(tmp_path, epoch, 5))
        assert (tmp_path / "history.json").exists() == written, epoch
    with pytest.raises(ValueError, match="every must be at least 1 epoch, but it is -1"):
        History(every=-1)
    with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
        History()(Moment(tmp_path / "nowhere", 0, 1))
