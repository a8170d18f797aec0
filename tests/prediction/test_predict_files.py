"""Folders of pictures: what is written, and that nothing hostile loses anything."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nifti import write_volume
from PIL import Image

from ultrarefiner.prediction import predict_files, read_rows, segment
from ultrarefiner.refinement import AcceptanceRule


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_results_are_those_of_segment_on_the_images_own_pixels(make_model: Any, draw: Any, tmp_path: Path) -> None:
    model = make_model(acceptance=AcceptanceRule())
    for name, size in (("a", (40, 60)), ("b", (90, 30)), ("c", (64, 64))):
        draw(tmp_path / f"{name}.png", size)
    out = tmp_path / "out"
    report = predict_files(model, tmp_path, out, batch_size=2, probabilities=True, progress=False)
    assert [row.name for row in report.rows] == ["a", "b", "c"]
    for row in report.rows:
        found = segment(model, row.file)
        stored = mask(out / "masks" / f"{row.name}.png")
        assert stored.dtype == np.uint8
        assert set(np.unique(stored)) <= {0, 255}
        assert np.array_equal(stored > 0, found.mask[0].numpy())
        assert np.array_equal(mask(out / "coarse" / f"{row.name}.png") > 0, found.coarse_mask[0].numpy())
        probability = mask(out / "probabilities" / f"{row.name}.png")
        assert probability.dtype == np.uint16
        assert np.allclose(probability / 65535, found.refined_probability[0], atol=1e-4)
        assert (row.height, row.width) == stored.shape
        assert row.refined_pixels == int((stored > 0).sum())
        assert row.refined_share == pytest.approx(row.refined_pixels / stored.size, rel=1e-5)
        assert row.soft_dice_confidence == pytest.approx(found.confidence.item(), abs=1e-4)
        both = 2 * (found.mask & found.coarse_mask).sum() / (found.mask.sum() + found.coarse_mask.sum())
        assert row.coarse_refined_dice == pytest.approx(both.item(), abs=1e-4)
        assert Image.open(out / "panels" / f"{row.name}.png").size[0] == 1128
    assert read_rows(out / "predictions.csv") == list(report.rows)
    assert table(out / "predictions.csv")[0]["coarse_mm2"] == ""
    assert (out / "failures.csv").read_text() == "file,reason\n"
    assert report.seconds_per_image is not None
    assert "3 pictures in" in str(report)


@pytest.mark.filterwarnings("error")
def test_a_hostile_folder_loses_nothing(make_model: Any, draw: Any, tmp_path: Path) -> None:
    root = tmp_path / "in"
    draw(root / "fine.png")
    draw(root / "cut.png").write_bytes((root / "fine.png").read_bytes()[:60])
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 300).save(root / "sixteen.tif")
    Image.new("RGBA", (30, 20), (250, 250, 250, 255)).save(root / "clear.png")
    Image.new("L", (1, 1), 200).save(root / "one.png")
    (root / "text.png").write_text("no picture")
    (root / "scan.nii.gz").write_bytes(b"\x1f\x8b broken")
    (root / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM broken")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    Image.new("L", (6000, 4000), 3).save(root / "huge.png")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    given = [root, tmp_path / "empty", tmp_path / "missing.png"]
    report = predict_files(make_model(), given, out, panels=False, progress=False)
    assert [row.name for row in report.rows] == ["clear", "fine", "huge", "one", "sixteen"]
    assert [mask(out / "masks" / f"{name}.png").shape for name in ("huge", "one", "sixteen")] == [
        (4000, 6000),
        (1, 1),
        (3, 4),
    ]
    assert report.rows[2].refined_empty
    assert "dark" in report.rows[4].note
    failed = {Path(one.file).name: one.reason for one in report.failures}
    assert set(failed) == {"cut.png", "text.png", "scan.nii.gz", "scan.dcm", "gone.png", "empty", "missing.png"}
    assert all(len(reason.split()) > 5 and "\n" not in reason for reason in failed.values())
    assert [row["file"] for row in table(out / "failures.csv")] == [one.file for one in report.failures]
    assert not list(out.rglob("*.part"))
    said = str(report)
    assert "7 files failed:" in said
    assert "| failed | 7 |" in report.markdown()


def test_a_second_run_takes_over_what_is_finished(make_model: Any, draw: Any, tmp_path: Path) -> None:
    model, out = make_model(), tmp_path / "out"
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    first = predict_files(model, tmp_path, out, progress=False)
    again = predict_files(model, tmp_path, out, progress=False)
    assert again.rows == first.rows
    assert (again.taken_over, again.seconds_per_image) == (2, None)

    def computed(**options: Any) -> int:
        report = predict_files(model, tmp_path, out, **{"progress": False, **options})
        return len(report.rows) - report.taken_over

    draw(tmp_path / "c.png")
    assert computed(batch_size=1) == 1
    (out / "masks" / "a.png").unlink()
    assert computed() == 1
    draw(tmp_path / "b.png", level=240)
    os.utime(tmp_path / "b.png", ns=(1, 1))
    assert computed() == 1
    assert computed(resume=False) == 3
    for options in ({"rounds": 2}, {"flips": True}, {"threshold": 0.4}, {"probabilities": True}, {"frame": 32}):
        assert computed(**options) == 3
    with torch.no_grad():
        model.coarse.gain.add_(1)
    assert computed(frame=32) == 3
    assert len(table(out / "predictions.csv")) == 3


def test_an_interrupted_run_keeps_what_was_finished(
    make_model: Any, draw: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from ultrarefiner.prediction import run

    for number in range(4):
        draw(tmp_path / f"{number}.png")
    drawn = []

    def draw_two(drawing: Any) -> Image.Image:
        drawn.append(drawing)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return Image.new("L", (1, 1))

    monkeypatch.setattr(run, "draw_panel", draw_two)
    with pytest.raises(KeyboardInterrupt):
        predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    assert [row["name"] for row in table(tmp_path / "out" / "predictions.csv")] == ["0", "1"]
    # A kill in the middle of a row leaves half of it.
    with (tmp_path / "out" / "predictions.csv").open("a") as file:
        file.write("2,/x/2.png,40,6")
    report = predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    assert report.taken_over == 2
    assert [row["name"] for row in table(tmp_path / "out" / "predictions.csv")] == ["0", "1", "2", "3"]


def test_a_kill_leaves_whole_rows(draw: Any, tmp_path: Path) -> None:
    """Ended without any goodbye, in another process."""
    for number in range(3):
        draw(tmp_path / f"{number}.png")
    code = (
        "import os, sys, torch; from ultrarefiner import SAMRefiner, UltraRefiner, build_sam\n"
        "from ultrarefiner.prediction import predict_files, run\n"
        "for name in ('matplotlib', 'monai', 'sklearn', 'scipy', 'lightning_fabric', 'nibabel', 'pydicom', 'pooch'):\n"
        "    assert name not in sys.modules, name\n"
        "    sys.modules[name] = None\n"
        "class Slow(torch.nn.Conv2d):\n"
        "    def forward(self, images):\n"
        "        if len(seen) == 2: os.kill(os.getpid(), 9)\n"
        "        seen.append(1); return super().forward(images)\n"
        "seen = []\n"
        "model = UltraRefiner(coarse=Slow(1, 1, 1), refiner=SAMRefiner(build_sam('tiny', image_size=64)), frame=64)\n"
        f"predict_files(model, {str(tmp_path)!r}, {str(tmp_path / 'out')!r}, batch_size=1, progress=False)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -9, ended.stderr
    assert [row.name for row in read_rows(tmp_path / "out" / "predictions.csv")] == ["0", "1"]


def test_names_never_meet(make_model: Any, draw: Any, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "a.jpg", level=20)
    draw(tmp_path / "inner" / "a.png", (30, 30))
    draw(tmp_path / "other" / "a.png", (20, 20))
    out = tmp_path / "out"
    given = [tmp_path, tmp_path / "other" / "a.png"]
    report = predict_files(make_model(), given, out, recursive=True, panels=False, progress=False)
    assert len({row.name for row in report.rows}) == len(report.rows) == 4
    sizes = {row.file: mask(out / row.mask_file).shape for row in report.rows}
    assert sizes[str(tmp_path / "inner" / "a.png")] == (30, 30)
    assert sizes[str(tmp_path / "other" / "a.png")] == (20, 20)
    # Its results lie in the folder that is searched, and are no pictures.
    again = predict_files(make_model(), given, out, recursive=True, panels=False, progress=False)
    assert again.taken_over == 4
    alone = predict_files(make_model(), tmp_path / "inner" / "a.png", out, panels=False, progress=False)
    assert alone.taken_over == 1
    assert len(table(out / "predictions.csv")) == 4


def test_a_volume_has_one_mask_with_its_geometry(make_model: Any, tmp_path: Path) -> None:
    voxels = np.zeros((24, 16, 5), np.int16)
    voxels[6:18, 4:12, 1:4] = 300
    affine = np.array([[-0.5, 0, 0, 7], [0, 0.25, 0, 8], [0, 0, 2.0, 9], [0, 0, 0, 1]])
    path = write_volume(tmp_path / "in" / "scan.nii.gz", voxels, affine=affine)
    out = tmp_path / "out"
    report = predict_files(make_model(), tmp_path / "in", out, batch_size=2, progress=False)
    coarse, refined = nibabel.load(out / "coarse" / "scan.nii.gz"), nibabel.load(out / "masks" / "scan.nii.gz")
    assert np.allclose(refined.affine, affine)
    assert refined.shape == voxels.shape
    numbers = np.asarray(coarse.dataobj)
    assert 2 * (numbers * (voxels > 0)).sum() / (numbers.sum() + (voxels > 0).sum()) > 0.9
    assert [row.name for row in report.rows] == [f"scan_slice00{number}" for number in range(5)]
    assert {row.mask_file for row in report.rows} == {"masks/scan.nii.gz"}
    assert report.rows[2].coarse_mm2 == pytest.approx(numbers[:, :, 2].sum() * 0.125)
    assert report.rows[2].coarse_pixels == numbers[:, :, 2].sum()
    assert len(list((out / "panels").glob("scan_slice*.png"))) == 5
    assert predict_files(make_model(), path, out, progress=False).taken_over == 5
    (out / "panels" / "scan_slice003.png").unlink()
    assert predict_files(make_model(), path, out, progress=False).taken_over == 0


def test_a_file_that_broke_since_leaves_no_stale_mask(make_model: Any, draw: Any, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    (tmp_path / "a.png").write_text("overwritten")
    report = predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    assert (len(report.rows), len(report.failures)) == (0, 1)
    assert not (tmp_path / "out" / "masks" / "a.png").exists()
    assert "No picture was predicted." in str(report)


def test_a_picture_that_the_model_cannot_bear_fails_alone(
    make_model: Any, bright: Any, draw: Any, tmp_path: Path
) -> None:
    class Touchy(bright):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if (images == 1).any():
                message = "out of memory"
                raise RuntimeError(message)
            return super().forward(images)  # type: ignore[no-any-return]

    for name, level in (("a.png", 200), ("b.png", 255), ("c.png", 201)):
        draw(tmp_path / name, level=level)
    report = predict_files(make_model(coarse=Touchy()), tmp_path, tmp_path / "out", progress=False)
    assert [row.name for row in report.rows] == ["a", "c"]
    assert report.failures[0].reason == f"{tmp_path / 'b.png'}: RuntimeError: out of memory"


def test_rejected_masks_are_counted(make_model: Any, draw: Any, tmp_path: Path) -> None:
    model = make_model(acceptance=AcceptanceRule(minimum_iou=1.0))
    report = predict_files(model, draw(tmp_path / "a.png"), tmp_path / "out", progress=False)
    assert report.rows[0].accepted is False
    assert np.array_equal(mask(tmp_path / "out/masks/a.png"), mask(tmp_path / "out/coarse/a.png"))
    assert "kept the coarse mask of 1." in str(report)
    assert "| coarse mask kept by the acceptance rule | 1 |" in report.markdown()


def test_names_may_be_any_bytes(make_model: Any, draw: Any, tmp_path: Path) -> None:
    odd = ['ümlaut 乳腺, "quoted".png', "line\nbreak.png", os.fsdecode(b"\xff\xfe.png")]
    for name in odd:
        draw(tmp_path / "in" / name)
    out = tmp_path / "out"
    report = predict_files(make_model(), tmp_path / "in", out, progress=False)
    assert {Path(row.file).name for row in report.rows} == set(odd)
    assert predict_files(make_model(), tmp_path / "in", out, progress=False).taken_over == 3


def test_what_is_not_ours_is_not_written_over(make_model: Any, bright: Any, draw: Any, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    truth = draw(tmp_path / "masks" / "a.png").read_bytes()
    with pytest.raises(
        ValueError, match=r"has a folder 'masks' and no predictions\.csv: its files would be written over"
    ):
        predict_files(make_model(), tmp_path / "images", tmp_path, progress=False)
    assert (tmp_path / "masks" / "a.png").read_bytes() == truth
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out must be a folder, but .* is a file"):
        predict_files(make_model(), tmp_path / "images", tmp_path / "file", progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.csv").write_text("case,dice\n")
    with pytest.raises(ValueError, match="is no table of predictions of this version: its columns are case, dice"):
        predict_files(make_model(), tmp_path / "images", tmp_path / "other", progress=False)


def test_options_out_of_range_are_refused(make_model: Any, bright: Any, draw: Any, tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    with pytest.raises(ValueError, match="batch_size must be at least 1, but it is 0"):
        predict_files(make_model(), path, tmp_path / "out", batch_size=0)
    with pytest.raises(ValueError, match="threshold must lie between"):
        predict_files(make_model(), path, tmp_path / "out", threshold=0.0)
    with pytest.raises(ValueError, match=r"must answer one mask an image .* but it answers 2; call segment"):
        predict_files(make_model(coarse=bright(masks=2)), path, tmp_path / "out", progress=False)
