"""``ultrarefiner train autosam | automedsam`` and ``ultrarefiner cache``, on the smallest things that are real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from ultrarefiner.checkpoints import read_tensors, write_tensors
from ultrarefiner.cli import main
from ultrarefiner.cli.cases import CaseFlags
from ultrarefiner.cli.split import split_cases, synthetic_split
from ultrarefiner.data import Phantoms
from ultrarefiner.sam import build_sam

QUICK = ["--epochs", "2", "--no-progress", "--snapshot-every", "1", "--keep-every", "2"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrarefiner.cli.frozen_sam._TINY", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantoms as pictures with masks, and their boxes as a table; a tiny SAM's weights."""
    root = tmp_path_factory.mktemp("data")
    rows = ["case,x0,y0,x1,y1"]
    for case in (Phantoms(6, size=(48, 64))[index] for index in range(6)):
        name = case.name.replace(" ", "_")
        (root / "images").mkdir(exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        for kind, values in (("images", case.image), ("masks", case.mask)):
            Image.fromarray((values[0] * 255).byte().numpy()).save(root / kind / f"{name}.png")
        there = case.mask[0].nonzero()
        (y0, x0), (y1, x1) = there.amin(0).tolist(), (there.amax(0) + 1).tolist()
        rows.append(f"{name},{x0},{y0},{x1},{y1}")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        write_tensors(root / "sam.pt", build_sam("tiny", image_size=64).state_dict())
    return root


def data(folder: Path) -> list[str]:
    return ["--data", str(folder / "images"), "--dataset", "folder", "--folds", "3", "--sam", "tiny", "--sam-weights",
            str(folder / "sam.pt")]  # fmt: skip


def test_automedsam_from_boxes_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*data(folder), "--boxes", str(folder / "boxes.csv"), "--hidden", "8", "--jitter", "0.05"]
    assert main(["train", "automedsam", "--out", str(tmp_path), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "Boxes, against the given ones: there are no masks to measure" in told
    assert "the mean box of the training cases" in told
    assert "Every case is a group of its own" in told
    assert "random weights" not in told
    run = tmp_path / "automedsam_fold0"
    assert read_tensors(run / "best.pt")["settings"]["recipe"]["jitter"] == 0.05
    for name in ("best.pt", "last.pt", "epoch0001.pt", "curves.png", "history.json", "test.csv", "test.md", "test.png"):
        assert (run / name).stat().st_size > 100, name
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["epoch0000.png", "epoch0001.png"]
    assert len(json.loads((run / "history.json").read_text())["epochs"]) == 2
    assert len((run / "test.csv").read_text().splitlines()) == 3
    assert (tmp_path / "embeddings" / "settings.json").exists()
    assert main(["train", "automedsam", "--out", str(tmp_path), *flags, *QUICK]) == 0
    assert "going on after step 2" in capsys.readouterr().out
    assert main(["train", "automedsam", "--out", str(tmp_path), *flags, *QUICK, "--lambda-size", "0.5"]) == 1
    assert "was written by a run whose" in capsys.readouterr().err
    flags[flags.index("--sam-weights") + 1] = str((folder / "sam.pt").rename(folder / "other.pt"))
    try:
        assert main(["train", "automedsam", "--out", str(tmp_path), *flags, *QUICK]) == 1
        assert "began with sam_weights 'sam.pt', but now it is 'other.pt'" in capsys.readouterr().err
    finally:
        (folder / "other.pt").rename(folder / "sam.pt")


def test_automedsam_as_the_paper_has_it_is_measured_by_masks(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*data(folder), "--masks", str(folder / "masks"), "--preset", "paper", "--hidden", "8"]
    assert main(["train", "automedsam", "--out", str(tmp_path), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "the true box, filled" in told
    saved = read_tensors(tmp_path / "automedsam_fold0" / "best.pt")
    recipe = saved["settings"]["recipe"]
    assert "BandTightBoxLoss" in str(recipe)
    assert "Token" in str([name for name in saved["model"] if "prompt_module" in name]) or "tokens" in str(
        saved["settings"]
    )


@pytest.mark.parametrize("augment", ["ultrasound", "none"])
def test_autosam(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], augment: str) -> None:
    flags = [*data(folder), "--masks", str(folder / "masks"), "--input-size", "64", "--augment", augment]
    assert main(["train", "autosam", "--out", str(tmp_path), *flags, *QUICK]) == 0
    assert "fold 0, 2 cases that neither trained nor chose" in capsys.readouterr().out
    assert (tmp_path / "embeddings").exists() == (augment == "none")
    assert (tmp_path / "autosam_fold0" / "best.pt").exists()


def test_synthetic_needs_no_data_and_says_what_it_is_worth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ultrarefiner.cli.split._PHANTOMS", (4, 2, 2))
    assert main(["train", "automedsam", "--out", str(tmp_path), "--synthetic", "--hidden", "8", *QUICK]) == 0
    assert "a SAM of random weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "give either data, the folder of a data set, or synthetic"),
        (["--synthetic", "--data", "somewhere"], "give either data, the folder of a data set, or synthetic"),
        (["--data", "somewhere", "--boxes", "boxes.csv"], "boxes belong to a folder of images or volumes; leave"),
        (["--data", "somewhere", "--dataset", "folder", "--boxes", "b.csv"], "autosam learns from masks"),
        (["--data", "somewhere", "--groups", "g.csv", "--dataset", "bus"], "groups belong to busi, polyps, folder"),
        (["--data", "somewhere", "--colour"], "colour belongs to a folder of images"),
        (["--data", "somewhere", "--dataset", "images"], "images has none"),
        (["--data", "somewhere"], "sam_weights must name a checkpoint"),
        (["--data", "somewhere", "--sam-weights", "medsam_vit_b.pth"], "give --input-policy medsam"),
        (["--synthetic", "--accelerator", "cuda"], "PyTorch finds no GPU"),
        (["--synthetic", "--accelerator", "mps"], "PyTorch finds no Apple GPU"),
        (["--data", "somewhere", "--sam-weights", "sam_vit_b_01ec64.pth", "--input-policy", "medsam"], "SAM's own"),
        (["--data", "x", "--dataset", "folder", "--boxes", "b.csv", "--measures"], "measures are of masks"),
        (["--synthetic", "--sam-weights", "nowhere.pt"], "nowhere.pt"),
        (["--synthetic", "--devices", "0"], "devices must be"),
        (["--synthetic", "--out", __file__], "out must be a folder, but"),
        (["--synthetic", "--weight-decay=-1"], "weight_decay must be a finite number of at least 0, but it is -1.0"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["train", "autosam", "--out", str(tmp_path), *flags]) == 1
    assert sentence in capsys.readouterr().err


def test_folds_stay_and_are_not_mixed_up(tmp_path: Path) -> None:
    cases = Phantoms(12, size=(48, 64))
    parts = split_cases(cases, tmp_path, fold=1, folds=4, seed=0)
    test = parts.tests["fold 1"]
    names = [set(part.names) for part in (parts.training, parts.validation, test)]
    assert set.union(*names) == set(cases.names)
    assert sum(map(len, names)) == 12
    again = split_cases(cases, tmp_path, fold=1, folds=4, seed=0)
    assert again.tests["fold 1"].names == test.names
    following = split_cases(cases, tmp_path, fold=2, folds=4, seed=0)
    assert following.tests["fold 2"].names == parts.validation.names
    published = split_cases(cases, tmp_path, fold=1, folds=4, seed=0, tests={"part": Phantoms(2, seed=9)})
    assert len(published.training) == 9
    assert published.validation.names == test.names
    assert list(published.tests) == ["part"]
    with pytest.raises(ValueError, match="holds 4 folds of seed 0, but 5 of seed 0 were asked for"):
        split_cases(cases, tmp_path, fold=1, folds=5, seed=0)
    with pytest.raises(ValueError, match="folds must be at least 3 and fold one of them"):
        split_cases(cases, tmp_path, fold=4, folds=4, seed=0)
    one, other = synthetic_split(0), synthetic_split(1)
    assert (
        len({*one.training.names, *one.validation.names, *one.tests["phantoms"].names, *other.training.names})
        == 64 + 32 + 64
    )


def test_the_cache_is_filled_in_parts_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--phantoms", "5", "--sam", "tiny", "--no-progress", "--out", str(tmp_path)]
    assert main(["cache", *flags, "--parts", "2", "--part", "1"]) == 0
    assert f"2 embeddings computed; {tmp_path} holds 2, of 5 cases that were asked for." in capsys.readouterr().out
    assert main(["cache", *flags]) == 0
    assert "3 embeddings computed" in capsys.readouterr().out
    assert main(["cache", *flags]) == 0
    assert "0 embeddings computed" in capsys.readouterr().out
    assert main(["cache", *flags, "--seed", "1"]) == 1
    assert "encoder" in capsys.readouterr().err


def pictures(root: Path, count: int, *, seed: int = 0) -> None:
    """Phantoms as red pictures with masks, in PraNet's folders."""
    for index in range(count):
        case = Phantoms(count, size=(48, 64), seed=seed)[index]
        for kind, values in (("image", case.image), ("masks", case.mask)):
            (root / kind).mkdir(exist_ok=True, parents=True)
            grey = Image.fromarray((values[0] * 255).byte().numpy())
            black = Image.new("L", grey.size)
            shown = Image.merge("RGB", (grey, black, black)) if kind == "image" else grey
            shown.save(root / kind / f"{seed}{index}.png")


def test_polyps_are_reported_on_their_published_test_parts_in_colour(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "data" / "TrainDataset", 6)
    for seed, name in ((1, "Kvasir"), (2, "ETIS-LaribPolypDB")):
        pictures(tmp_path / "data" / "TestDataset" / name, 2, seed=seed)
    flags = ["--data", str(tmp_path / "data"), "--dataset", "polyps", "--folds", "3", "--sam", "tiny", "--sam-weights",
             str(folder / "sam.pt"), "--input-size", "64", "--measures"]  # fmt: skip
    assert main(["train", "autosam", "--out", str(tmp_path / "out"), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    for name in ("Kvasir", "ETIS-LaribPolypDB"):
        assert f"{name}, 2 cases that neither trained nor chose" in told
        assert (tmp_path / "out" / "autosam_fold0" / f"test_{name}.csv").exists()
    assert "| S ↑" in told
    saved = read_tensors(tmp_path / "out" / "autosam_fold0" / "best.pt")["settings"]
    assert saved["data"]["training"]["cases"] == 4
    assert "RandomVerticalFlip(p=0.5" in str(saved["recipe"]), "the polyps' own augmentation"


def test_slices_of_volumes_with_boxes_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["case,x0,y0,x1,y1"]
    (tmp_path / "data").mkdir()
    for patient in range(3):
        voxels = np.random.default_rng(patient).integers(0, 200, (20, 16, 3)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "data" / f"p{patient}.nii.gz")
        rows += [f"p{patient}/slice_001,4,3,12,11", f"p{patient}/slice_002,5,3,12,11"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    flags = ["--data", str(tmp_path / "data"), "--dataset", "volumes", "--folds", "3", "--sam", "tiny", "--sam-weights",
             str(folder / "sam.pt"), "--boxes", str(tmp_path / "boxes.csv"), "--hidden", "8"]  # fmt: skip
    command_line = ["train", "automedsam", "--out", str(tmp_path / "out"), *flags, *QUICK]
    assert main(command_line) == 1
    assert "3 of 9 images have no box" in capsys.readouterr().err
    assert main([*command_line, "--unboxed", "skip"]) == 0
    told = capsys.readouterr().out
    assert "fold 0, 2 cases that neither trained nor chose" in told, "the two slices of one patient"
    assert "Every case is a group of its own" not in told


def test_groups_stay_together_and_colour_is_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pictures(tmp_path / "data", 6)
    groups = "\n".join(f"0{index},g{index // 2}" for index in range(6))
    (tmp_path / "groups.csv").write_text(f"case,group\n{groups}\n")
    flags = ["--data", str(tmp_path / "data" / "image"), "--masks", str(tmp_path / "data" / "masks"), "--dataset",
             "folder", "--groups", str(tmp_path / "groups.csv"), "--colour", "--folds", "3", "--sam", "tiny",
             "--sam-weights", str(folder / "sam.pt"), "--hidden", "8"]  # fmt: skip
    assert main(["train", "automedsam", "--out", str(tmp_path / "out"), *flags, *QUICK]) == 0
    assert "Every case is a group of its own" not in capsys.readouterr().out
    flags_of_grey = CaseFlags(data=tmp_path / "data" / "image", dataset="folder", masks=tmp_path / "data" / "masks")
    assert flags_of_grey.open()[0].image.shape[0] == 1
    in_colour = CaseFlags(
        data=tmp_path / "data" / "image", dataset="folder", masks=tmp_path / "data" / "masks", colour=True
    )
    assert in_colour.open()[0].image[1:].abs().max() == 0, "the pictures are red"
    assert "is in colour and is read as grey" in caplog.text
    # The same folder, with the groups forgotten, would report on folds that were drawn with them.
    without = [flag for flag in flags if flag not in ("--groups", str(tmp_path / "groups.csv"))]
    assert main(["train", "automedsam", "--out", str(tmp_path / "out"), *without, *QUICK]) == 1
    assert "was drawn with other groups" in capsys.readouterr().err


def test_glas_is_reported_on_both_parts_and_says_that_they_share_patients(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["name,patient ID,grade (GlaS)"]
    root = tmp_path / "Warwick"
    root.mkdir()
    for part, count in (("train", 6), ("testA", 2), ("testB", 1)):
        for index in range(count):
            case = Phantoms(count, size=(48, 64))[index]
            grey = Image.fromarray((case.image[0] * 255).byte().numpy())
            Image.merge("RGB", (grey, grey, grey)).save(root / f"{part}_{index + 1}.bmp")
            Image.fromarray((case.mask[0] * 3).byte().numpy()).save(root / f"{part}_{index + 1}_anno.bmp")
            rows.append(f"{part}_{index + 1},{index // 2},benign")
    (root / "Grade.csv").write_text("\n".join(rows) + "\n")
    flags = ["--data", str(root), "--dataset", "glas", "--folds", "3", "--sam", "tiny", "--sam-weights",
             str(folder / "sam.pt"), "--input-size", "64"]  # fmt: skip
    assert main(["train", "autosam", "--out", str(tmp_path / "out"), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "groups (patients) of testB are trained on, too" in told or "of testA are trained on, too" in told
    run = tmp_path / "out" / "autosam_fold0"
    assert len((run / "test_testA.csv").read_text().splitlines()) == 3
    assert len((run / "test_testB.csv").read_text().splitlines()) == 2


def test_two_processes_report_once(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from ultrarefiner.cli import frozen_sam, main; frozen_sam._TINY = 64; sys.exit(main(sys.argv[1:]))"
    )
    flags = [*data(folder), "--masks", str(folder / "masks"), "--hidden", "8", "--devices", "2", "--accelerator", "cpu"]
    (tmp_path / "run.py").write_text(code)
    command_line = [sys.executable, str(tmp_path / "run.py"), "train", "automedsam", "--out", str(tmp_path / "out")]
    ran = subprocess.run([*command_line, *flags, *QUICK], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("the true box, filled |") == 1
