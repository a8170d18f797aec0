"""``ultrarefiner train refiner``, on the smallest things that are real."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from trained_phases import QUICK, begun, change_record, record, shrunk

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.cli import main
from ultrarefiner.cli.phase_masks import TrainingMasks
from ultrarefiner.cli.phase_network import CoarseNetwork
from ultrarefiner.cli.phase_record import PhaseRecord
from ultrarefiner.cli.phase_refiner import RefinerParts, built_gate, joined
from ultrarefiner.data import Folds
from ultrarefiner.prompts import FarCorner, MeanShift


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch)


def test_the_refiner_repairs_what_phase_1_left_and_is_compared_with_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("refiner", tmp_path_factory, tmp_path)
    run, folds = out / "refiner_fold0", Folds.load(out / "folds.tsv")
    kept = record(run)
    assert (kept["frame"], kept["parts"]["sam_size"], kept["parts"]["gate"]) == (64, 64, "learned")
    assert kept["behind"] == record(out / "coarse_fold0")["parts"]
    saved = read_tensors(run / "best.pt")
    assert set(saved["learnt_from"]) == set(folds.validation(2))
    assert "predicted" in str(saved["settings"]["data"]["validation"]), "the coarse network's masks choose"
    assert saved["settings"]["data"]["training"]["size"] == 64
    assert {name.split(",")[0] for name in (run / "test.csv").read_text().splitlines()[1:]} == set(folds.validation(0))
    assert "Refined - coarse" in (run / "test.md").read_text()
    changed = ("--sam", "tiny", "--frame", "64", "--gate", "learned", "--roi-expand", "0.4")
    assert main(["train", "refiner", "--out", str(out), *flags, *QUICK, *changed]) == 1
    assert "was written by a run whose" in capsys.readouterr().err


def test_predicted_masks_need_those_of_phase_1(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    command = ["train", "refiner", "--out", str(out), *flags, *QUICK, "--sam", "tiny", "--frame", "64"]
    assert main([*command, "--failures", "predicted", "--no-roi", "--no-box", "--mask-style", "none"]) == 0
    recipe = read_tensors(out / "refiner_fold0" / "best.pt")["settings"]
    assert "predicted" in str(recipe["data"]["training"])
    prompts = recipe["parts"]["refiner"]["prompts"]
    assert (recipe["parts"]["refiner"]["cropper"], prompts["sigmas"], prompts["mask_style"]) == (None, None, None)
    assert main([*command, "--coarse-size", "64"]) == 1
    assert "coarse_size is 64, but" in capsys.readouterr().err
    shutil.rmtree(out / "coarse_fold0" / "out_of_fold")
    (out / "coarse_fold0" / "predictions.pt").unlink()
    assert main([*command, "--failures", "mixed"]) == 1
    assert "run train coarse once more, with --out_of_fold" in capsys.readouterr().err


def test_a_light_refiner_alone_on_phantoms_says_that_there_is_no_coarse_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--sam-size", "64", "--encoder", "random", "--failures", "simple", "--freeze", "[backbone.conv_stem]",
             "--quality-weight", "0", "--coarse-size", "32", "--positive", "mean_shift", "--negative", "far_corner",
             "--learning-rate", "0.002", "--iou-weight", "0.2", "--augment", "none", "--no-roi")  # fmt: skip
    assert main(["train", "refiner", "--synthetic", "--out", str(tmp_path), *QUICK, *flags]) == 0
    assert "No coarse network is in" in capsys.readouterr().out
    saved = read_tensors(tmp_path / "refiner" / "best.pt")
    recipe = saved["settings"]["recipe"]
    assert (recipe["learning_rate"], recipe["iou_weight"], recipe["augmentation"]) == (0.002, 0.2, None)
    assert (recipe["train_image_encoder"], recipe["failures"]["size"]) == (True, 32)
    assert "SimpleFailures" in str(recipe["failures"])
    assert recipe["loss"]["weight"] == 0.0
    assert "conv_stem" in str(recipe["frozen"])
    kept = record(tmp_path / "refiner")
    assert (kept["behind"], kept["frame"]) == (None, 64)
    # What phase 3 builds from the record takes the very weights.
    parts = PhaseRecord.read(tmp_path / "refiner").built(RefinerParts, tmp_path / "refiner")
    assert (type(parts.build().prompts.positive), type(parts.build().prompts.negative)) == (MeanShift, FarCorner)
    parts.build().load_state_dict(saved["model"])


def test_the_light_encoder_may_begin_with_the_coarse_networks_backbone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    command = ["train", "refiner", "--out", str(out), *flags, *QUICK, "--sam-size", "64", "--encoder", "coarse"]
    assert main(command) == 1
    assert "needs a light coarse network on tf_efficientnet_lite0, but best.pt of phase 1 is transunet tiny" in (
        capsys.readouterr().err
    )
    light = ("--network", "light", "--no-pretrained", "--size", "64")
    options = ["--synthetic", "--out", str(tmp_path / "light"), *QUICK]
    assert main(["train", "coarse", *options, *light]) == 0
    frozen = ("--learning-rate", "0", "--weight-decay", "0")
    assert main(["train", "refiner", *options, "--sam-size", "64", "--encoder", "coarse", *frozen]) == 0
    coarse = read_tensors(tmp_path / "light" / "coarse" / "best.pt")["model"]
    refiner = read_tensors(tmp_path / "light" / "refiner" / "best.pt")["model"]
    name = "conv_stem.weight"
    assert main(["train", "refiner", *options, "--sam-size", "64", "--encoder", "random", *frozen]) == 1
    assert "is of a run that began with encoder 'coarse', but now it is 'random'" in capsys.readouterr().err
    assert torch.equal(coarse[f"network.network.encoder.model.{name}"], refiner[f"sam.image_encoder.backbone.{name}"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sam-weights", "w.pth"], "sam_weights are of segment-anything's SAMs, but sam is 'light'"),
        (["--input-policy", "medsam"], "input_policy is of segment-anything's SAMs, but sam is 'light'"),
        (["--sam", "tiny", "--sam-size", "64"], "sam_size is of the light SAM, but sam is 'tiny'"),
        (["--sam", "vit_b", "--sam-backbone", "resnet18"], "sam_backbone is of the light SAM, but sam is 'vit_b'"),
        (["--sam", "tiny", "--sam-weights", "medsam.pth"], "give --input-policy medsam"),
        (["--mask-style", "none", "--positive", "none", "--negative", "none", "--no-box"], "must be told something"),
        (["--share", "1.5", "--failures", "mixed"], "share must be in (0, 1), but it is 1.5"),
        (["--share", "0.4"], "share is of mixed failures, but failures are 'simulated'; leave the flag out"),
        (["--sam", "tiny", "--encoder", "random"], "encoder is of the light SAM, but sam is 'tiny'"),
        (["--iou-weight", "-1"], "iou_weight must be a finite number of at least 0, but it is -1"),
        (["--sam-backbone", "resnet18"], "at hand for tf_efficientnet_lite0 alone, but sam_backbone is 'resnet18'"),
        (["--encoder", "coarse"], "train refiner with encoder coarse takes over what train coarse leaves"),
        (["--failures", "mixed", "--sam", "tiny"], "needs masks of the training cases in"),
        (["--sam", "tiny", "--floor", "0.5"], "floor must be at least 0 and below minimum_probability"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["train", "refiner", "--synthetic", "--out", str(tmp_path), "--no-progress", *flags]) == 1
    assert sentence in capsys.readouterr().err


def test_a_sam_of_random_weights_that_never_trains_is_refused_for_real_images(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    command = ["train", "refiner", "--out", str(out), *flags, *QUICK]
    assert main([*command, "--sam", "vit_b"]) == 1
    assert "sam_weights must name a checkpoint" in capsys.readouterr().err
    assert main([*command, "--sam-size", "64", "--encoder", "random", "--train-image-encoder", "false"]) == 1
    assert "so that SAM would never see" in capsys.readouterr().err


def test_records_that_do_not_fit_are_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    run = out / "coarse_fold0"
    kept = record(run)
    command = ["train", "refiner", "--out", str(out), *flags, *QUICK, "--sam", "tiny"]
    change_record(run, cases={**kept["cases"], "seed": 4})
    assert main(command) == 1
    assert "was trained with seed 4, but train refiner was told 0; give the same in every phase" in (
        capsys.readouterr().err
    )
    for changes, sentence in (
        ({"format": 9}, "is no whole record of a phase (it is of another version)"),
        ({"surplus": 1}, "is no whole record of a phase"),
    ):
        change_record(run, **{**kept, **changes})
        assert main(command) == 1
        assert sentence in capsys.readouterr().err
    (run / "phase.json").write_text("{")
    assert main(command) == 1
    assert "is no whole record of a phase" in capsys.readouterr().err


def test_parts_are_what_they_were_told(unhooked: None) -> None:
    with pytest.raises(ValueError, match="sam must be one of light, tiny, vit_b, vit_l, vit_h, but it is 'x'"):
        RefinerParts(sam="x", sam_size=64)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="failures must be one of simple, simulated, mixed, predicted"):
        TrainingMasks("none", 0.5, "default", 32)  # type: ignore[arg-type]  # likewise
    record_of = PhaseRecord("refiner", 64, {}, {"sam": "tiny"})
    with pytest.raises(ValueError, match="as parts, but it names sam; train that phase once more"):
        record_of.built(RefinerParts, Path("x"))


def test_gate_and_rule_are_left_out_where_they_are_not_asked_for() -> None:
    parts = RefinerParts(sam="tiny", sam_size=64, floor=0.03, roi_expand=0.3)
    refiner = parts.build()
    assert refiner.cropper is not None
    assert (refiner.cropper.expand, refiner.cropper.floor, refiner.prompts.floor) == (0.3, 0.03, 0.03)
    coarse = CoarseNetwork("transunet", "tiny", 32, 1).build()
    model = joined(coarse, refiner, built_gate("none", bias=0.0), frame=64)
    assert (model.gate, model.acceptance, model.frame) == (None, None, 64)
    model = joined(coarse, refiner, built_gate("uncertainty", bias=0.0), frame=64, accept_agreement=0.2)
    assert model.acceptance is not None
    assert model.acceptance.minimum_agreement == 0.2
    assert parts.frozen_parts() == {}
