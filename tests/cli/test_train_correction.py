"""``ultrarefiner train correction``, on the smallest things that are real."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from trained_phases import QUICK, begun, record, shrunk

from ultrarefiner.checkpoints import load_weights, read_tensors
from ultrarefiner.cli import main
from ultrarefiner.cli.phase_clicks import answer_of, chosen_rule, click_curves
from ultrarefiner.cli.phase_record import PhaseRecord
from ultrarefiner.cli.train_correction import CorrectionParts
from ultrarefiner.data import Batch, FittedCases, Folds, Phantoms
from ultrarefiner.refinement import WrittenClicks
from ultrarefiner.systems import CorrectedNetwork

SMALL = ("--points", "10", "--hidden", "8", "--clicks", "2")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch)


@pytest.mark.parametrize("after", ["coarse", "joint"])
def test_clicks_after_a_trained_network(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], after: str
) -> None:
    out, flags = begun("joint", tmp_path_factory, tmp_path)
    command = ["train", "correction", "--out", str(out), *flags, *QUICK, *SMALL, "--after", after]
    assert main([*command, "--side", "32"]) == 0
    told = capsys.readouterr().out
    assert "fold 0, 3 cases that neither trained nor chose" in told
    assert "| no click |" in told
    assert "| correction - rule (" in told
    run, folds = out / "correction_fold0", Folds.load(out / "folds.tsv")
    rows = list(csv.DictReader((run / "test.csv").read_text().splitlines()))
    assert {row["name"] for row in rows} == set(folds.validation(0))
    assert len(rows) == 9
    assert len({row["dice_0_clicks"] for row in rows}) <= 3, "all methods begin with the same mask"
    assert set(read_tensors(run / "best.pt")["learnt_from"]) == set(folds.validation(2))
    before = read_tensors(out / f"{after}_fold0" / "best.pt")["model"]
    now = read_tensors(run / "best.pt")["model"]
    assert all(torch.equal(now[f"network.{name}"], tensor) for name, tensor in before.items()), "the network stays"
    # What is written alone goes into a session.
    parts = PhaseRecord.read(run).built(CorrectionParts, run)
    correction = parts.build()
    load_weights(correction, run / "correction.pt")
    model = CorrectedNetwork(torch.nn.Conv2d(1, 1, 1), correction, correction_side=parts.side)
    assert (parts.side, correction.points, correction.radius) == (32, 10, 32 / 6)
    assert model(torch.rand(1, 32, 32)).shape == (1, 32, 32)
    assert main([*command, "--side", "32", "--frame", "48"]) == 1
    assert "frame is 48, but" in capsys.readouterr().err


def test_clicks_learnt_from_masks_of_cases_that_the_network_had_not_seen(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    flags = (*flags, *QUICK, *SMALL, "--learn-from", "predicted", "--augment", "none", "--gain", "4", "--radius", "7")
    assert main(["train", "correction", "--out", str(out), *flags]) == 0
    saved = read_tensors(out / "correction_fold0" / "best.pt")
    assert "predicted" in str(saved["settings"]["data"]["training"])
    assert not any(name.startswith("network.") for name in saved["model"])
    assert record(out / "correction_fold0")["parts"]["correction"]["gain"] == 4.0
    assert record(out / "correction_fold0")["parts"]["correction"]["radius"] == 7.0


def test_clicks_into_damaged_masks_of_phantoms_with_no_network_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--after", "failures", "--frame", "48", "--choosing-clicks", "1", "--learning-rate", "0.01")
    command = ["train", "correction", "--synthetic", "--out", str(tmp_path), *QUICK, *SMALL, *flags]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "phantoms, 2 cases that neither trained nor chose" in told
    assert "4 cases in 2 groups" in told, "two damaged masks of each"
    assert "Made-up cases" in told
    saved = read_tensors(tmp_path / "correction" / "best.pt")["settings"]
    assert (saved["recipe"]["clicks"], saved["recipe"]["learning_rate"]) == (1, 0.01)
    assert saved["recipe"]["largest_logit"] == 4.0
    assert saved["data"]["training"]["size"] == 48
    assert main(command) == 0
    assert "going on after step 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "train correction after coarse takes over what train coarse leaves in"),
        (["--after", "refiner"], "train correction after refiner takes over what train coarse leaves in"),
        (["--after", "joint"], "train correction after joint takes over what train joint leaves in"),
        (["--after", "joint", "--learn-from", "predicted"], "is about the masks of train coarse, but after is 'joint'"),
        (["--clicks", "0"], "clicks must be at least 1, but it is 0"),
        (["--choosing-clicks", "0"], "choosing_clicks must be at least 1, but it is 0"),
        (["--failure-preset", "mild"], "failure_preset is of failures, but after is 'coarse'; leave the flag out"),
        (["--weight-decay", "-1"], "weight_decay must be a finite number of at least 0, but it is -1"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["train", "correction", "--synthetic", "--out", str(tmp_path), *flags]) == 1
    assert sentence in capsys.readouterr().err


def test_curves_begin_with_the_mask_itself_and_do_not_depend_on_batches() -> None:
    cases = FittedCases(Phantoms(5, size=(48, 64)), 48)
    torch.manual_seed(0)
    first = answer_of(torch.nn.Conv2d(1, 1, 3, padding=1))
    rule = chosen_rule(first, cases, clicks=1, side=None, radius=10.0, device=CPU)
    assert rule.count in {max(1, round(share * 48**2)) for share in (0.001, 0.002, 0.004, 0.008, 0.016)}
    rules = {str(count): WrittenClicks(count=count, radius=10.0) for count in (2, 5, 9, 18, 37)}
    curves = click_curves(first, rules, cases, clicks=1, side=None, device=CPU)
    scores = {name: curve[:, -1].mean() for name, curve in curves.items()}
    assert scores[str(rule.count)] == max(scores.values())
    asked: list[int] = []

    def counted(batch: Batch) -> torch.Tensor:
        asked.append(len(batch.images))
        return first(batch)

    whole, alone = (
        click_curves(counted, {"a": rule, "b": rule}, cases, clicks=3, side=None, device=CPU, batch_size=size)
        for size in (5, 1)
    )
    assert asked == [5, 1, 1, 1, 1, 1], "the network is asked once a case, however many corrections there are"
    np.testing.assert_array_equal(whole["a"], whole["b"])
    assert whole["a"].shape == (5, 4)
    np.testing.assert_allclose(whole["a"], alone["a"], atol=1e-6)
    assert whole["a"][:, 3].mean() > whole["a"][:, 0].mean()
