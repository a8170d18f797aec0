"""``ultrarefiner evaluate``: a tiny pair of random weights, and masks that are there, against true masks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

import ultrarefiner as ur
from ultrarefiner.cli import main
from ultrarefiner.cli.evaluate import _counted
from ultrarefiner.data import BUSI, CaseDataset, ImageFolder, Phantoms, group_folds
from ultrarefiner.evaluation import CaseMetrics, evaluate, markdown_table, segmentation_metrics, write_csv
from ultrarefiner.prediction import segment

QUIET = ["--no-progress", "--panels", "0"]


def save(values: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((values * 255).byte().numpy()).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms as pictures with masks."""
    root = tmp_path_factory.mktemp("data")
    for index, case in enumerate(Phantoms(4, size=(48, 64))):
        save(case.image[0], root / "images" / f"case {index}.png")
        save(case.mask[0], root / "masks" / f"case {index}.png")
    return root


@pytest.fixture(scope="module")
def busi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lesions and three images without one, one of them black."""
    root = tmp_path_factory.mktemp("busi")
    for index, case in enumerate(Phantoms(4, size=(48, 64))):
        label = ("benign", "malignant", "normal", "normal")[index]
        name = f"{label} ({index})"
        save(case.image[0], root / label / f"{name}.png")
        save(case.mask[0] * (label != "normal"), root / label / f"{name}_mask.png")
    save(torch.zeros(48, 64), root / "normal" / "normal (9).png")
    save(torch.zeros(48, 64), root / "normal" / "normal (9)_mask.png")
    return root


def data(folder: Path) -> list[str]:
    return ["--data", str(folder / "images"), "--masks", str(folder / "masks"), "--dataset", "folder"]


def rows(out: Path, name: str = "cases.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_model_is_measured_as_the_library_measures_it(
    pair: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", *data(folder), "--model", str(pair), "--out", str(out), "--batch-size", "3", "--panels", "2"]
    assert main([*words, "--no-progress"]) == 0
    told = capsys.readouterr().out
    found = evaluate(
        ur.UltraRefiner.from_pretrained(pair),
        ImageFolder(folder / "images", folder / "masks"),
        size=64,
        batch_size=3,
        progress=False,
    )
    assert markdown_table(found.comparison) in told
    assert "Whether it was trained on them is not known here." in told
    assert markdown_table(found.comparison) in (out / "table.md").read_text()
    write_csv(tmp_path / "expected.csv", found.comparison)
    assert (out / "cases.csv").read_text() == (tmp_path / "expected.csv").read_text()
    assert Image.open(out / "panels.png").size > (300, 100)
    assert told.endswith(f"table.md, cases.csv, panels.png in {out}.\n")


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--flips"], {"flips": True}),
        (["--rounds", "3"], {"rounds": 3}),
        (["--threshold", "0.4"], {"threshold": 0.4}),
        (["--frame", "96"], {"frame": 96}),
        (["--precision", "bf16"], {"precision": "bf16"}),
    ],
)
def test_masks_are_those_of_predict_with_the_same_flags(
    pair: Path, folder: Path, tmp_path: Path, flags: list[str], options: dict[str, object]
) -> None:
    out = ["--out", str(tmp_path), "--batch-size", "1", *QUIET]
    assert main(["evaluate", *data(folder), "--model", str(pair), *out, *flags]) == 0
    model, cases = ur.UltraRefiner.from_pretrained(pair), ImageFolder(folder / "images", folder / "masks")
    plain, changed = [], []
    for row, case in zip(rows(tmp_path), cases, strict=True):
        masks = segment(model, case.image, **options)
        for which, mask in (("coarse", masks.coarse_mask), ("refined", masks.mask)):
            expected = segmentation_metrics(mask, case.mask >= 0.5)
            assert float(row[f"{which}_dice"]) == pytest.approx(expected.dice, abs=1e-6)
            assert int(row[f"{which}_pixels"]) == expected.prediction_pixels
        changed.append(masks.refined_probability if "threshold" not in options else masks.mask)
        once = segment(model, case.image)
        plain.append(once.refined_probability if "threshold" not in options else once.mask)
    assert any((one != other).any() for one, other in zip(plain, changed, strict=True)), "the flag changes nothing"


def test_only_a_folds_cases_are_measured(
    pair: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = ImageFolder(folder / "images", folder / "masks")
    folds = group_folds(cases, folds=3, seed=7)
    folds.save(tmp_path / "folds.tsv")
    words = ["evaluate", *data(folder), "--model", str(pair), *QUIET, "--out", str(tmp_path / "out")]
    assert main([*words, "--fold", "2", "--folds-file", str(tmp_path / "folds.tsv")]) == 0
    assert [row["name"] for row in rows(tmp_path / "out")] == list(folds.validation(2))
    assert main([*words, "--fold", "1", "--folds", "3", "--seed", "7"]) == 0
    assert [row["name"] for row in rows(tmp_path / "out")] == list(folds.validation(1))
    capsys.readouterr()
    assert main([*words, "--fold", "3", "--folds", "3"]) == 1
    assert "fold must be one of 0 to 2" in capsys.readouterr().err
    assert main([*words, "--folds-file", str(tmp_path / "folds.tsv")]) == 1
    assert "no fold was asked for; give fold, from 0" in capsys.readouterr().err
    (tmp_path / "other.tsv").write_text((tmp_path / "folds.tsv").read_text().replace("case 0", "case 9"))
    assert main([*words, "--fold", "1", "--folds-file", str(tmp_path / "other.tsv")]) == 1
    assert "cases of the data set have no fold" in capsys.readouterr().err


def test_images_without_a_lesion_are_counted(
    pair: Path, busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--data", str(busi), "--model", str(pair), "--normal", "--out", str(tmp_path), *QUIET]
    assert main(words) == 0
    told = capsys.readouterr().out
    model = ur.UltraRefiner.from_pretrained(pair)
    everything = BUSI(busi, normal=True)
    assert len(rows(tmp_path)) == 2, "no mean is over images without a lesion"
    counts = {"coarse": 0, "refined": 0}
    for row in rows(tmp_path, "normal.csv"):
        case = everything[everything.names.index(row["name"])]
        masks = segment(model, case.image)
        for which, mask in (("coarse", masks.coarse_mask), ("refined", masks.mask)):
            assert int(row[f"{which}_pixels"]) == int(mask.sum())
            counts[which] += bool(mask.any())
    sentence = "Of 3 images without a lesion, " + ", ".join(
        f"{count} ({100 * count / 3:.1f} %) get a {which} mask" for which, count in counts.items()
    )
    assert f"{sentence}.\n" in told
    assert sentence in (tmp_path / "table.md").read_text()


def test_nothing_of_an_earlier_evaluation_stays(
    pair: Path, busi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "measured"
    words = ["evaluate", "--data", str(busi), "--model", str(pair), "--out=~/measured", "--no-progress"]
    assert main([*words, "--normal", "--panels", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"table.md, cases.csv, normal.csv, panels.png in {out}.\n")
    assert main([*words, "--panels", "0"]) == 0
    assert capsys.readouterr().out.endswith(f"table.md, cases.csv in {out}.\n")
    assert sorted(path.name for path in out.iterdir()) == ["cases.csv", "table.md"]


def test_names_with_commas_stay_whole(tmp_path: Path) -> None:
    _counted(('a, "b"',), {"refined": (CaseMetrics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7, 0),)}, tmp_path)
    assert rows(tmp_path, "normal.csv") == [{"name": 'a, "b"', "refined_pixels": "7"}]


def test_masks_that_are_there_are_measured(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ImageFolder(folder / "images", folder / "masks")
    made, words = tmp_path / "made", ["evaluate", *data(folder), "--out", str(tmp_path / "out"), "--no-progress"]
    for index, case in enumerate(cases):
        save(case.mask[0].roll(index, -1), made / f"case {index}_seg.png")
    assert main([*words, "--predictions", str(made), "--prediction-suffix", "_seg"]) == 0
    assert "| predictions | " in capsys.readouterr().out
    for index, (row, case) in enumerate(zip(rows(tmp_path / "out"), cases, strict=True)):
        true = case.mask >= 0.5
        assert float(row["dice"]) == pytest.approx(segmentation_metrics(true.roll(index, -1), true).dice)
    assert float(rows(tmp_path / "out")[0]["dice"]) == 1.0
    assert (tmp_path / "out" / "panels.png").exists()
    assert main([*words, "--predictions", str(made)]) == 1
    assert "4 of 4 cases have no predicted mask" in (told := capsys.readouterr().err)
    assert "'case 0.png'" in told
    assert main([*words, "--predictions", str(tmp_path / "nowhere")]) == 1
    assert "predictions must be a folder of masks" in capsys.readouterr().err
    save(torch.zeros(5, 5), made / "case 3_seg.png")
    assert main([*words, "--predictions", str(made), "--prediction-suffix", "_seg"]) == 1
    assert "must lie on the pixels of its image, (height, width) (48, 64), but has (5, 5)" in capsys.readouterr().err


def test_what_predict_wrote_is_measured(
    pair: Path, busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    predict = ["predict", str(busi), "--recursive", "--model", str(pair), "--out", str(made), "--no-progress"]
    assert main([*predict, "--batch-size", "1", "--probabilities", "--no-panels"]) == 0
    words = ["evaluate", "--data", str(busi), "--predictions", str(made), *QUIET]
    assert main([*words, "--normal", "--out", str(tmp_path / "masks")]) == 0
    told = capsys.readouterr().out
    model = ["--model", str(pair), "--batch-size", "1", "--out", str(tmp_path / "model")]
    assert main(["evaluate", "--data", str(busi), *QUIET, *model]) == 0
    dices = [
        [float(row[key]) for row in rows(tmp_path / out)] for out, key in (("masks", "dice"), ("model", "refined_dice"))
    ]
    assert dices[0] == pytest.approx(dices[1])
    assert "get a predicted mask" in told
    assert len(rows(tmp_path / "masks", "normal.csv")) == 3
    sizes = []
    for threshold in ("0.3", "0.5", "0.7"):
        out = ["--out", str(tmp_path / "maps"), "--threshold", threshold]
        assert main([*words, "--probabilities", *out]) == 0
        sizes.append(sum(int(row["prediction_pixels"]) for row in rows(tmp_path / "maps")))
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] > sizes[2]
    (made / "predictions.csv").unlink()
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "several")]) == 1
    assert "are called 'benign (0)'; give the folder that has each case once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "give either data, the folder of a data set, or phantoms"),
        (["--data", "x", "--phantoms", "2"], "give either data, the folder of a data set, or phantoms"),
        (["--data", "x", "--dataset", "images"], "the dataset images has none"),
        (["--data", "x", "--dataset", "folder", "--boxes", "b.csv"], "boxes are none"),
        (["--phantoms", "2", "--model", "x", "--predictions", "y"], "give model or predictions, not both"),
        (["--phantoms", "2", "--prediction-suffix", "_seg"], "prediction_suffix is about predictions"),
        (["--phantoms", "2", "--probabilities"], "probabilities is about predictions"),
        (["--phantoms", "2", "--normal"], "normal is about BUSI's images without a lesion"),
        (["--data", "x", "--dataset", "folder", "--normal"], "normal is about BUSI's images without a lesion"),
        (["--phantoms", "2", "--model", "no-such-model"], "name must be one of the models that come with the package"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert main(["evaluate", "--out", str(tmp_path / "out"), *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_numbers_out_of_range_are_refused(
    pair: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", *data(folder), "--model", str(pair), "--out", str(tmp_path / "out"), "--no-progress"]
    for flags, sentence in (
        (["--threshold", "1"], "threshold must be a probability between 0 and 1"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--panels", "-1"], "panels at least 0"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--frame", "0"], "frame must be the side of the square"),
    ):
        assert main([*words, *flags]) == 1
        assert sentence in capsys.readouterr().err
    assert isinstance(ImageFolder(folder / "images", folder / "masks"), CaseDataset)
