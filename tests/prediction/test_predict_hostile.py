"""What stops other programs: pipes, places that cannot be written to, files that change or break half way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from dicom_files import save
from nifti import write_volume
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from ultrarefiner.prediction import plan, predict_files, read_rows, run
from ultrarefiner.prediction.rows import COLUMNS


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def clip(path: Path, frames: list[bytes]) -> Path:
    """A compressed clip, of frames that may be no pictures."""
    save(path, np.zeros((len(frames), 16, 16), np.uint8))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def jpeg(tmp_path: Path) -> bytes:
    Image.linear_gradient("L").resize((16, 16)).save(tmp_path / "frame.jpg")
    return (tmp_path / "frame.jpg").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_a_failure(make_model: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "kind_of", lambda path: "picture")  # a pipe that is looked into stops all
    draw(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "b.png")
    report = predict_files(make_model(), tmp_path / "in", tmp_path / "out", progress=False)
    assert [row.name for row in report.rows] == ["a"]
    assert report.failures[0].reason.endswith(
        "b.png must be a file, but it is a pipe, a socket or a device; give a picture"
    )


def test_a_place_that_cannot_be_written_to_is_a_sentence(
    make_model: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = make_model(), draw(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"results cannot be written to .*out \(Not a directory\); make room there"):
        predict_files(model, path, path / "out", progress=False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "append_rows", full)
    with pytest.raises(OSError, match=r"out \(No space left on device\); make room .* goes on from there"):
        predict_files(model, path, tmp_path / "out", progress=False)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_damaged_frame_takes_no_other_with_it(make_model: Any, tmp_path: Path, batch_size: int) -> None:
    path = clip(tmp_path / "clip.dcm", [jpeg(tmp_path), b"\xff\xd8 no jpeg \xff\xd9", *[jpeg(tmp_path)] * 2])
    report = predict_files(make_model(), path, tmp_path / "out", batch_size=batch_size, progress=False)
    assert [row.name for row in report.rows] == ["clip_frame000", "clip_frame002", "clip_frame003"]
    (failure,) = report.failures
    assert failure.reason.endswith("(the first of its 4 frames that failed is number 1, counted from 0)")
    again = predict_files(make_model(), path, tmp_path / "out", progress=False)
    assert (again.taken_over, len(again.failures)) == (3, 1)


def test_what_a_file_no_longer_holds_is_deleted(make_model: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "clip.dcm", np.zeros((3, 20, 20), np.uint8))
    predict_files(make_model(), path, tmp_path / "out", progress=False)
    save(path, np.zeros((2, 20, 20), np.uint8))
    predict_files(make_model(), path, tmp_path / "out", progress=False)
    assert files_in(tmp_path / "out" / "masks") == ["clip_frame000.png", "clip_frame001.png"]
    assert files_in(tmp_path / "out" / "panels") == ["clip_frame000.png", "clip_frame001.png"]


def test_frames_of_an_earlier_run_are_not_written_over(make_model: Any, draw: Any, tmp_path: Path) -> None:
    out, frames = tmp_path / "out", save(tmp_path / "clip.dcm", np.zeros((3, 20, 20), np.uint8))
    predict_files(make_model(), frames, out, panels=False, progress=False)
    other = draw(tmp_path / "other" / "clip_frame001.png", (30, 40))
    report = predict_files(make_model(), other, out, panels=False, progress=False)
    assert report.rows[0].name == "clip_frame001_png"
    assert Image.open(out / "masks" / "clip_frame001.png").size == (20, 20)
    assert predict_files(make_model(), frames, out, panels=False, progress=False).taken_over == 3


def test_a_scan_that_goes_away_stops_nothing(
    make_model: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_volume(tmp_path / "in" / "a.nii.gz", np.zeros((20, 16, 3), np.uint8))
    draw(tmp_path / "in" / "b.png")
    finished = run.PredictionRun._finished

    def gone(self: Any, one: Any, *arguments: Any) -> None:
        scan.unlink(missing_ok=True)
        finished(self, one, *arguments)

    monkeypatch.setattr(run.PredictionRun, "_finished", gone)
    report = predict_files(make_model(), tmp_path / "in", tmp_path / "out", progress=False)
    assert [row.name for row in report.rows] == ["b"]
    assert "there is no volume" in report.failures[0].reason
    assert files_in(tmp_path / "out" / "panels") == ["b.png"]


def test_a_picture_too_large_to_be_drawn_stops_nothing(
    make_model: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a", (40, 60)), ("b", (400, 600)), ("c", (40, 60))):
        draw(tmp_path / f"{name}.png", size)
    restored = run.restored

    def short_of_memory(*arguments: Any, size: tuple[int, int], **options: Any) -> Any:
        if size[0] == 400:
            message = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            raise RuntimeError(message)
        return restored(*arguments, size=size, **options)

    monkeypatch.setattr(run, "restored", short_of_memory)
    report = predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    assert [row.name for row in report.rows] == ["a", "c"]
    assert report.failures[0].reason == f"{tmp_path / 'b.png'} is too large for this machine's memory; shrink it first"


def test_a_batch_that_is_too_much_is_let_go_of_before_its_images_are_tried_alone(
    make_model: Any, bright: Any, draw: Any, tmp_path: Path
) -> None:
    alive: list[bool] = []

    class Short(bright):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            held = Held()
            if len(images) > 1:
                raise torch.OutOfMemoryError
            alive.append(Held.count > 1)
            del held
            return super().forward(images)  # type: ignore[no-any-return]

    class Held:
        count = 0

        def __init__(self) -> None:
            Held.count += 1

        def __del__(self) -> None:
            Held.count -= 1

    for name in ("a", "b"):
        draw(tmp_path / f"{name}.png")
    report = predict_files(make_model(coarse=Short()), tmp_path, tmp_path / "out", progress=False)
    assert len(report.rows) == 2
    assert alive == [False, False], "what the failed batch held of the memory is free"


def test_a_file_is_compared_with_its_own_rows_alone(
    make_model: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files times rows would take minutes for ten thousand pictures."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    predict_files(make_model(), tmp_path, tmp_path / "out", progress=False)
    finished = plan._finished

    def noted(file: Any, rows: Any, *arguments: Any) -> Any:
        assert [row.file for row in rows] == [str(file.path)]
        return finished(file, rows, *arguments)

    monkeypatch.setattr(plan, "_finished", noted)
    assert predict_files(make_model(), tmp_path, tmp_path / "out", progress=False).taken_over == 3


def test_a_damaged_table_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(",".join(COLUMNS) + '\n"' + "x" * 140_000 + "\n")
    with pytest.raises(ValueError, match=r"predictions\.csv is damaged \(field larger .*\); give another folder"):
        read_rows(path)
