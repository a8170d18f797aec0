"""Flags that make no sense are refused before anything is read, and a run goes on only from where it began."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.cli.flag_checks import refuse_devices, refuse_idle, refuse_negative, refuse_no_folder
from ultrarefiner.cli.phase_click_report import _write_curves
from ultrarefiner.cli.phase_record import PhaseRecord
from ultrarefiner.cli.phase_refiner import RefinerParts
from ultrarefiner.cli.phase_start import same_start
from ultrarefiner.cli.setting import RunFlags
from ultrarefiner.cli.train_correction import _refuse_wrong
from ultrarefiner.cli.train_joint import _gate
from ultrarefiner.cli.train_refiner import _refuse_foreign, _refuse_idle


@settings(deadline=None, max_examples=20)
@given(number=st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_below_zero_or_not_finite_are_refused(number: float) -> None:
    if 0 <= number < float("inf"):
        refuse_negative(weight_decay=None, learning_rate=number)
    else:
        with pytest.raises(ValueError, match="learning_rate must be a finite number of at least 0, but it is"):
            refuse_negative(weight_decay=None, learning_rate=number)


@pytest.mark.parametrize(
    ("devices", "on_cpu", "fits"),
    [
        (1, True, True),
        (2, True, True),
        ("auto", True, True),
        ("0,1", True, False),
        (-1, True, False),
        (0, True, False),
        ("cuda", True, False),
        (-1, False, True),
        ("0,1", False, True),
        ("auto", False, True),
        (0, False, False),
        ("cuda", False, False),
        ("0,", False, False),
    ],
)
def test_devices_are_how_many_or_which(devices: int | str, on_cpu: bool, fits: bool) -> None:
    if fits:
        refuse_devices(devices, on_cpu=on_cpu)
    else:
        with pytest.raises(ValueError, match=r"devices must be .*the kind of device is named by --accelerator"):
            refuse_devices(devices, on_cpu=on_cpu)


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    refuse_no_folder(tmp_path / "a" / "b")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"out must be a folder, but .*file is a file; give another out"):
            RunFlags(out=out, synthetic=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="this user may not write to"):
        refuse_no_folder(tmp_path / "a")


def test_a_run_goes_on_only_from_what_it_began_with(tmp_path: Path) -> None:
    same_start(tmp_path, encoder="imagenet", sam_weights=None)
    same_start(tmp_path, encoder="random", sam_weights=None)  # nothing was trained yet
    (tmp_path / "last.pt").write_bytes(b"x")
    same_start(tmp_path, encoder="random", sam_weights=None)
    with pytest.raises(ValueError, match="began with encoder 'random', but now it is 'coarse'"):
        same_start(tmp_path, encoder="coarse", sam_weights=None)
    with pytest.raises(ValueError, match=r"began with sam_weights None, but now it is 'a\.pth'"):
        same_start(tmp_path, encoder="random", sam_weights="a.pth")
    assert json.loads((tmp_path / "start.json").read_text())["encoder"] == "random", "a refusal changes nothing"
    (tmp_path / "start.json").write_text("{")
    with pytest.raises(ValueError, match=r"start.json is damaged"):
        same_start(tmp_path, encoder="random", sam_weights=None)
    (tmp_path / "start.json").unlink()
    same_start(tmp_path, encoder="coarse")  # a run from before there was such a file


def test_flags_without_effect_are_told() -> None:
    refuse_idle({"a": False})
    with pytest.raises(ValueError, match="b is of c; leave the flag out, or change the other one"):
        refuse_idle({"a": False, "b is of c": True, "d": True})
    parts = RefinerParts(sam="tiny", sam_size=64)
    _refuse_idle(parts, "simulated", 0.5, "severe")
    _refuse_idle(parts, "mixed", 0.3, "mild")
    for wrong, failures, share, preset, sentence in (
        ({"freeze": ("neck",), "trained_encoder": False}, "simple", 0.5, "default", "freeze is of an image encoder"),
        ({"roi": False, "roi_expand": 0.3}, "simple", 0.5, "default", "roi_expand is of the region"),
        ({"gate": "uncertainty", "gate_bias": 1.0}, "simple", 0.5, "default", "but gate is 'uncertainty'"),
        ({}, "simulated", 0.3, "default", "share is of mixed failures, but failures are 'simulated'"),
        ({}, "predicted", 0.5, "mild", "failure_preset is of simulated failures, but failures are 'predicted'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _refuse_idle(RefinerParts(sam="tiny", sam_size=64, **wrong), failures, share, preset)  # type: ignore[arg-type]  # values of several types
    with pytest.raises(ValueError, match="encoder is of the light SAM, but sam is 'tiny'"):
        _refuse_foreign(parts, "random", sam_weights=None, sam_size=None, sam_backbone=None)
    with pytest.raises(ValueError, match="failure_preset is of failures, but after is 'coarse'"):
        _refuse_wrong("coarse", "network", clicks=1, choosing_clicks=1, preset="mild")
    with pytest.raises(ValueError, match="choosing_clicks must be at least 1, but it is 0"):
        _refuse_wrong("coarse", "network", clicks=1, choosing_clicks=0, preset="default")


def test_the_gate_of_phase_3_is_that_of_phase_2_or_a_new_one(tmp_path: Path) -> None:
    without = RefinerParts(sam="tiny", sam_size=64)
    learned = RefinerParts(sam="tiny", sam_size=64, gate="learned", gate_bias=-1.0)
    assert _gate(without, None, 0.0, freeze_gate=False, folder=tmp_path) == ("none", 0.0)
    assert _gate(without, "learned", 2.0, freeze_gate=False, folder=tmp_path) == ("learned", 2.0)
    assert _gate(learned, None, 0.0, freeze_gate=True, folder=tmp_path) == ("learned", -1.0)
    with pytest.raises(ValueError, match=r"gate is 'uncertainty', but .* was trained with 'learned'"):
        _gate(learned, "uncertainty", 0.0, freeze_gate=False, folder=tmp_path)
    with pytest.raises(ValueError, match="gate_bias is of a learned gate that is new, but train refiner had one"):
        _gate(learned, None, 2.0, freeze_gate=False, folder=tmp_path)
    with pytest.raises(ValueError, match="gate_bias is of a learned gate, but gate is 'none'"):
        _gate(without, None, 2.0, freeze_gate=False, folder=tmp_path)


def test_a_record_with_parts_of_the_wrong_kind_is_refused(tmp_path: Path, unhooked: None) -> None:
    kept = PhaseRecord("refiner", 64, {}, {**vars(RefinerParts(sam="tiny", sam_size=64)), "freeze": 3})
    with pytest.raises(ValueError, match="has parts of the wrong kind"):
        kept.built(RefinerParts, tmp_path)


def test_a_table_of_clicks_keeps_names_with_quotes_and_commas(tmp_path: Path) -> None:
    names = ('a "b", c', "plain")
    _write_curves(str(tmp_path / "test.csv"), {"rule (5 pixels)": np.array([[0.1, 0.2], [0.3, 0.4]])}, names)
    with (tmp_path / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(names)
    assert torch.tensor([float(row["dice_1_clicks"]) for row in rows]).tolist() == pytest.approx([0.2, 0.4])
