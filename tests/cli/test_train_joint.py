"""``ultrarefiner train joint``, on the smallest things that are real."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from trained_phases import QUICK, begun, change_record, record, shrunk

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.cli import main
from ultrarefiner.cli.phase_pair import JointParts, trained_joint
from ultrarefiner.cli.phase_refiner import RefinerParts
from ultrarefiner.cli.phase_setting import PhaseSetting
from ultrarefiner.cli.train_joint import _written
from ultrarefiner.data import Folds
from ultrarefiner.systems import UltraRefiner


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch)


def test_joint_takes_over_both_networks_and_writes_the_whole_model(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("joint", tmp_path_factory, tmp_path)
    run, folds = out / "joint_fold0", Folds.load(out / "folds.tsv")
    kept = record(run)
    assert kept["frame"] == record(out / "refiner_fold0")["frame"] == 64
    assert kept["parts"]["coarse"] == record(out / "coarse_fold0")["parts"]
    assert kept["parts"]["refiner"] == record(out / "refiner_fold0")["parts"]
    assert kept["parts"]["gate"] == "learned"
    saved = read_tensors(run / "best.pt")
    recipe = saved["settings"]["recipe"]
    assert set(saved["learnt_from"]) == set(folds.validation(2))
    assert recipe["refiner_learning_rate"] == pytest.approx(5e-5), "a tenth of phase 2's"
    assert recipe["freeze_image_encoder"] is False, "as in phase 2"
    assert {name.split(",")[0] for name in (run / "test.csv").read_text().splitlines()[1:]} == set(folds.validation(0))
    assert "Refined - coarse" in (run / "test.md").read_text()
    assert main(["train", "joint", "--out", str(out), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "1 steps, going on after step 1, the best after epoch 1 of 1" in told
    assert f"UltraRefiner.from_pretrained: {run / 'pretrained'}" in told
    # What later commands build from the record, and what is written as a whole, are the trained model.
    data = {"data": Path(flags[1]), "masks": Path(flags[3]), "dataset": "folder", "folds": 3}
    setting = PhaseSetting(out=out, **data)  # type: ignore[arg-type]  # values of several types
    split = setting.split()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        again = trained_joint(setting, split, by="test")[0].eval()(images)
        whole = UltraRefiner.from_pretrained(run / "pretrained").eval()(images)
    assert torch.equal(again.refined_probability, whole.refined_probability)
    for name, parameter in trained_joint(setting, split, by="test")[0].state_dict().items():
        assert torch.equal(parameter, saved["model"][name]), name


def test_every_number_reaches_the_run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out, flags = begun("refiner", tmp_path_factory, tmp_path)
    numbers = ("--gradient-scale", "0.3", "--accept-iou", "0.1", "--accept-agreement", "0.2", "--coarse-learning-rate",
               "0.0003", "--refiner-learning-rate", "0.0004", "--weight-decay", "0.02", "--coarse-weight", "0.6",
               "--refined-weight", "1.1", "--quality-weight", "0.4", "--iou-weight", "0.3", "--anchor-weight", "0.01",
               "--freeze-coarse-epochs", "2", "--train-image-encoder", "false", "--freeze-gate", "--augment", "none",
               "--frame", "64", "--gate", "learned")  # fmt: skip
    assert main(["train", "joint", "--out", str(out), *flags, *QUICK, *numbers]) == 0
    saved = read_tensors(out / "joint_fold0" / "best.pt")
    recipe = saved["settings"]["recipe"]
    assert recipe["model"]["gradient_scale"] == 0.3
    assert recipe["model"]["acceptance"]["minimum_iou"] == 0.1
    assert recipe["model"]["acceptance"]["minimum_agreement"] == 0.2
    assert (recipe["coarse_learning_rate"], recipe["refiner_learning_rate"]) == (3e-4, 4e-4)
    assert (recipe["coarse_weight"], recipe["refined_weight"], recipe["weight_decay"]) == (0.6, 1.1, 0.02)
    assert (recipe["loss"]["weight"], recipe["iou_weight"], recipe["anchor_weight"]) == (0.4, 0.3, 0.01)
    assert recipe["freeze_coarse_epochs"] == 2
    assert recipe["freeze_image_encoder"] is True
    assert recipe["augmentation"] is None
    # What was frozen is what phases 1 and 2 left, to the bit; the rest is not.
    before = {
        f"coarse.{name}": value for name, value in read_tensors(out / "coarse_fold0" / "best.pt")["model"].items()
    }
    before |= read_tensors(out / "refiner_fold0" / "best.pt")["model"]
    changed = {name for name, tensor in before.items() if not torch.equal(saved["model"][name], tensor)}
    assert changed
    assert all(name.startswith("refiner.sam.") and "image_encoder" not in name for name in changed)


def test_what_phases_1_and_2_left_decides(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("refiner", tmp_path_factory, tmp_path)
    command = ["train", "joint", "--out", str(out), *flags, *QUICK]

    def refused(sentence: str, *more: str) -> None:
        assert main([*command, *more]) == 1
        assert sentence in capsys.readouterr().err

    refused("frame is 128, but", "--frame", "128")
    refused("gate is 'none', but", "--gate", "none")
    refused("gate_bias is of a learned gate that is new, but train refiner had one", "--gate-bias", "1")
    refused("anchor_weight must be a finite number of at least 0, but it is -1", "--anchor-weight", "-1")
    refused("holds 3 folds of seed 0, but 4 of seed 0 were asked for", "--folds", "4")
    refused("holds 3 folds of seed 0, but 3 of seed 1 were asked for", "--seed", "1")
    refused("with the same out, fold and cases", "--fold", "1")
    kept = record(out / "refiner_fold0")
    change_record(out / "refiner_fold0", behind={**kept["behind"], "size": 64})
    refused("was trained behind another coarse network")
    change_record(out / "refiner_fold0", **kept)
    change_record(out / "refiner_fold0", parts={**kept["parts"], "floor": 0.01})
    refused("holds a refiner that was trained with")
    change_record(out / "refiner_fold0", **kept)
    # Folds that were drawn anew, by hand: a checkpoint knows what it was trained on.
    folds = Folds.load(out / "folds.tsv")
    Folds({name: (fold + 1) % 3 for name, fold in folds.assignment.items()}, 3, 0).save(out / "folds.tsv")
    refused("cases that are to be unseen, the first is")
    folds.save(out / "folds.tsv")
    shutil.rmtree(out / "refiner_fold0")
    refused("train joint takes over what train refiner leaves in")
    shutil.rmtree(out / "coarse_fold0")
    refused("train joint takes over what train coarse leaves in")


def test_a_phase_that_was_stopped_is_not_taken_over(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("refiner", tmp_path_factory, tmp_path)
    (out / "refiner_fold0" / "phase.json").unlink()
    assert main(["train", "joint", "--out", str(out), *flags, *QUICK]) == 1
    assert "but it is not finished there; run ultrarefiner train refiner first" in capsys.readouterr().err


def test_a_gate_may_be_new_where_there_was_none(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    command = ["--out", str(out), *flags, *QUICK]
    assert main(["train", "refiner", *command, "--sam", "tiny", "--frame", "64", "--failures", "simple"]) == 0
    assert main(["train", "joint", *command, "--freeze-gate"]) == 1
    assert "freeze_gate is about the gate of train refiner, but it had none" in capsys.readouterr().err

    def refuses(model: UltraRefiner, folder: Path) -> None:
        message = "a part is unknown"
        raise ValueError(message)

    monkeypatch.setattr(UltraRefiner, "save_pretrained", refuses)
    assert main(["train", "joint", *command, "--gate", "learned", "--gate-bias", "-1"]) == 0
    assert "was not written: a part is unknown" in caplog.text
    told = capsys.readouterr().out
    assert "the whole model" not in told
    assert f"the model, for ultrarefiner predict --model: {out / 'joint_fold0' / 'best.pt'}" in told
    kept = record(out / "joint_fold0")["parts"]
    assert (kept["gate"], kept["gate_bias"]) == ("learned", -1.0)
    assert any(name.startswith("gate.") for name in read_tensors(out / "joint_fold0" / "best.pt")["model"])


def test_a_pair_with_monais_network_is_named_by_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unet = {"network": "unet", "backbone": "", "size": 32, "channels": 1}
    parts = JointParts(unet, asdict(RefinerParts(sam="tiny", sam_size=64)), "none", 0.0, 0.1, 0.0, 0.0)
    model, setting = parts.build(frame=64), PhaseSetting(out=tmp_path, synthetic=True)
    best = tmp_path / "joint" / "best.pt"
    assert _written(model, parts, setting, best) == f"the model, for ultrarefiner predict --model: {best}"
    assert "its coarse network is MONAI's" in caplog.text
    assert not (tmp_path / "joint" / "pretrained").exists()
