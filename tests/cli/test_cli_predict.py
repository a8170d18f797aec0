"""``ultrarefiner predict``, on a tiny pair of random weights that was saved whole."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import ultrarefiner as ur
from ultrarefiner.checkpoints import write_tensors
from ultrarefiner.checkpoints.settings import describe
from ultrarefiner.cli import main
from ultrarefiner.cli.models import DEFAULT_MODEL, open_device, open_model
from ultrarefiner.cli.phase_network import CoarseNetwork
from ultrarefiner.cli.phase_pair import JointParts
from ultrarefiner.cli.phase_record import PhaseRecord
from ultrarefiner.cli.phase_refiner import RefinerParts
from ultrarefiner.data import Phantoms
from ultrarefiner.data.images import read_image, read_mask
from ultrarefiner.prediction import PredictionReport, segment

NO_BAR = "--no-progress"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images in a folder, one in a folder inside, one broken elsewhere."""
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    cases = Phantoms(3, size=(50, 70))
    for index, name in enumerate(("a [1].png", "b.png", "inside/c.png")):
        Image.fromarray((cases[index].image[0] * 255).byte().numpy()).save(folder / name)
    (tmp_path / "broken.png").write_bytes((folder / "b.png").read_bytes()[:200])
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_files_and_folders_become_masks_at_their_own_resolution(
    pair: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["predict", str(images / "inside"), "--model", str(pair), str(images / "a [1].png"), "--out", str(out)]
    assert main([*words, NO_BAR]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"2 pictures in {out}; ")
    assert told.err == ""
    assert names(out / "masks") == ["a [1].png", "c.png"]
    assert names(out / "panels") == ["a [1].png", "c.png"]
    assert not (out / "probabilities").exists()
    model = ur.UltraRefiner.from_pretrained(pair)
    for name, path in (("a [1]", images / "a [1].png"), ("c", images / "inside" / "c.png")):
        expected = segment(model, path).mask
        found = read_mask(out / "masks" / f"{name}.png")
        assert found.shape == (1, 50, 70)
        assert (found.bool() == expected).all()
        assert int(table(out)[name]["refined_pixels"]) == int(expected.sum()) > 0


def test_a_broken_file_stops_nothing_and_is_said_last(
    pair: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, broken, away = tmp_path / "out", tmp_path / "broken.png", tmp_path / "away.png"
    assert main(["predict", str(broken), str(images), str(away), "--model", str(pair), "--out", str(out), NO_BAR]) == 3
    told = capsys.readouterr()
    assert told.out.startswith("2 pictures in")
    sentences = told.err.splitlines()
    assert len(sentences) == 2, "one sentence for each"
    assert any("broken.png" in sentence for sentence in sentences)
    assert any("away.png" in sentence for sentence in sentences)
    assert names(out / "masks") == ["a [1].png", "b.png"]


def test_nothing_that_could_be_done_exits_with_1(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ["--out", str(tmp_path / "out"), NO_BAR]
    assert main(["predict", str(empty), "--model", str(pair), *out]) == 1
    assert "has no pictures" in capsys.readouterr().err
    assert main(["predict", str(empty), "--model", str(tmp_path / "no.pt"), *out]) == 1
    assert "model must be a folder, a checkpoint of train joint, a name" in capsys.readouterr().err
    assert main(["predict", str(empty), "--model", "no-such-model", *out]) == 1
    assert "name must be one of the models that come with the package" in capsys.readouterr().err
    assert main(["predict", "--paths=[]", "--model", str(pair), *out]) == 1
    assert "give images, or folders of images" in capsys.readouterr().err
    assert main(["predict", str(empty), "--model", str(pair), "--threshold", "1.5", *out]) == 1
    assert "threshold must lie between 0 and 1, but it is 1.5" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["predict", str(empty), "--model", str(pair), "--device", "cuda", *out]) == 1
        assert "device is 'cuda', but PyTorch finds none here" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--model", str(pair)])
    assert stopped.value.code == 2


def test_every_flag_reaches_the_prediction(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def noted(model: ur.UltraRefiner, paths: list[Path], out: Path, **options: Any) -> PredictionReport:
        seen.append({"paths": paths, "out": out, **options})
        return PredictionReport(out, (), (), (), 0, 1.0)

    monkeypatch.setattr("ultrarefiner.prediction.predict_files", noted)
    base = ["predict", "a", "--model", str(pair)]
    assert main(base) == 1, "nothing was found"
    changes = {
        "out": "there",
        "batch_size": "3",
        "flips": "true",
        "rounds": "2",
        "precision": "bf16",
        "probabilities": "true",
        "panels": "false",
        "threshold": "0.25",
        "recursive": "true",
        "resume": "false",
        "frame": "96",
        "colour": "true",
        "stretch": "true",
        "progress": "false",
    }
    for name, value in changes.items():
        main([*base, f"--{name}", value])
        changed = {key for key in seen[0] if seen[-1][key] != seen[0][key]}
        assert changed == {name}
        assert str(seen[-1][name]).lower() == value
    assert set(seen[0]) == {*changes, "paths", "device"}
    assert seen[0]["out"] == Path("predictions")
    main(["predict", "~/a", "--model", str(pair), "--device", "cpu", "--out=~/b"])
    assert seen[-1]["paths"] == [Path.home() / "a"]
    assert seen[-1]["out"] == Path.home() / "b"
    assert seen[-1]["device"] == torch.device("cpu")


def test_an_earlier_run_is_taken_over_unless_it_is_not_to_be(
    pair: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(images), "--recursive", "--model", str(pair), "--out", str(tmp_path / "out"), NO_BAR,
             "--no-panels", "--probabilities"]  # fmt: skip
    assert main(words) == 0
    assert "by an earlier run" not in capsys.readouterr().out
    assert names(tmp_path / "out" / "probabilities") == ["a [1].png", "b.png", "inside/c.png"]
    soft = read_image(tmp_path / "out" / "probabilities" / "b.png")
    assert ((soft >= 0.5) == read_mask(tmp_path / "out" / "masks" / "b.png").bool()).float().mean() > 0.99
    assert main(words) == 0
    assert "3 pictures" in (told := capsys.readouterr().out)
    assert "3 of them by an earlier run" in told
    assert main([*words, "--no-resume"]) == 0
    assert "by an earlier run" not in capsys.readouterr().out


def test_ctrl_c_says_that_the_same_command_goes_on(
    pair: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ultrarefiner.prediction.files.PredictionRun.predict", interrupted)
    assert main(["predict", str(images), "--model", str(pair), "--out", str(tmp_path / "out"), NO_BAR]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err


def test_a_pair_that_was_tampered_with_is_refused(
    pair: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes((pair / name).read_bytes())
    weights = tmp_path / "other" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert main(["predict", str(images), "--model", str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("ultrarefiner: ")
    assert not (tmp_path / "out" / "masks").exists()


def same(first: ur.UltraRefiner, second: ur.UltraRefiner) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_is_a_folder_a_name_or_on_the_hub(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ur.UltraRefiner.from_pretrained(pair)
    assert same(open_model(str(pair)), expected)
    run = tmp_path / "joint_fold0"
    expected.save_pretrained(run / "pretrained")
    assert same(open_model(str(run)), expected), "the folder of a run of train joint"
    expected.save_pretrained(tmp_path / "shelf" / DEFAULT_MODEL)
    monkeypatch.setattr("ultrarefiner.systems.packaged._shelf", lambda: tmp_path / "shelf")
    assert same(open_model(DEFAULT_MODEL), expected), "one that comes with the package"
    asked: list[object] = []
    monkeypatch.setattr(ur.UltraRefiner, "from_pretrained", lambda name: asked.append(name) or expected)
    open_model("someone/some-model.v2")
    assert asked == ["someone/some-model.v2"]
    for wrong in ("weights.pt", "a/b/c", "folder/model.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"there is no {wrong}; model must be"):
            open_model(wrong)
    assert open_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_model_is_a_checkpoint_of_train_joint(tmp_path: Path) -> None:
    network = CoarseNetwork("transunet", "tiny", 32, 1)
    refiner = RefinerParts(sam="tiny", sam_size=64, gate="learned")
    parts = JointParts(asdict(network), asdict(refiner), "learned", 0.5, 0.1, 0.2, 0.3)
    trained = parts.build(frame=96)
    checkpoint = {
        "format": 1,
        "model": trained.state_dict(),
        "parts": {"coarse": "coarse", "refiner": "refiner", "gate": "gate"},
        "settings": {"parts": {name: describe(getattr(trained, name), name) for name in ("coarse", "refiner", "gate")}},
    }
    write_tensors(tmp_path / "epoch0009.pt", checkpoint)
    with pytest.raises(ValueError, match=r"there is no phase\.json of that phase beside it"):
        open_model(str(tmp_path / "epoch0009.pt"))
    PhaseRecord("joint", 96, {}, asdict(parts), parts.coarse).write(tmp_path)
    opened = open_model(str(tmp_path / "epoch0009.pt"))
    assert same(opened, trained.eval())
    assert opened.frame == 96
    assert opened.acceptance is not None
    assert opened.acceptance.settings() == {"minimum_iou": 0.2, "minimum_agreement": 0.3}
    PhaseRecord("coarse", 96, {}, asdict(network)).write(tmp_path)
    with pytest.raises(ValueError, match="must be a checkpoint of train joint"):
        open_model(str(tmp_path / "epoch0009.pt"))
