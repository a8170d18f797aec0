"""Answers to the challenge's files: every object by its own prompts, in order, and folders that can be stopped."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ultrarefiner as ur
from ultrarefiner.data import foreground_crop, normalise_foreground, read_interactive_case
from ultrarefiner.evaluation import ChallengeAnswer, answer_case, answer_challenge, answer_challenge_folder
from ultrarefiner.types import Clicks

SIZE = (6, 9, 10)
BOX = {"z_min": 1, "z_max": 4, "z_mid": 2, "z_mid_x_min": 3, "z_mid_y_min": 2, "z_mid_x_max": 7, "z_mid_y_max": 6}
LATER = {"z_min": 3, "z_max": 5, "z_mid": 4, "z_mid_x_min": 5, "z_mid_y_min": 5, "z_mid_x_max": 9, "z_mid_y_max": 8}


class Last:
    """The box, then each click's own voxel, the later one over the earlier one; what it was asked is kept."""

    def __init__(self) -> None:
        self.started: list[Tensor] = []
        self.asked: list[tuple[Any, list[tuple[list[int], bool]]]] = []

    def start(self, volume: Tensor) -> Tensor:
        self.started.append(volume)
        return volume

    def segment(self, state: Tensor, box: Sequence[int] | None, clicks: Clicks) -> Tensor:
        found = torch.full_like(state, -1.0)
        if box is not None:
            z0, y0, x0, z1, y1, x1 = box
            found[0, z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = 1
        told = list(zip(clicks.positions[0].tolist(), clicks.positive[0].tolist(), strict=True))
        for (z, y, x), positive in told:
            found[0, z, y, x] = 1 if positive else -1
        self.asked.append((box, told))
        return found


class Broken(Last):
    """Has no memory left for the volumes of 7 slices."""

    def start(self, volume: Tensor) -> Tensor:
        if volume.shape[1] == 7:
            message = "out of memory"
            raise RuntimeError(message)
        return super().start(volume)


def image(size: Sequence[int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)


def save(path: Path, **members: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{"imgs": image(), "spacing": (3.0, 1.0, 1.0), **members})
    return path


def segs_of(path: Path) -> np.ndarray:
    with np.load(path) as content:
        assert content.files == ["segs"]
        assert content["segs"].dtype == np.uint8
        return content["segs"]


def test_objects_are_painted_in_their_order(tmp_path: Path) -> None:
    clicks = [{"fg": [[0, 0, 0], [2, 3, 4]], "bg": [[2, 3, 4], [1, 2, 3]]}, {"fg": [], "bg": [[5, 8, 9]]}]
    order = [["bg", "fg", "fg", "bg"], ["bg"]]
    orders = np.empty(2, object)
    orders[:] = order
    path = save(tmp_path / "case.npz", boxes=[BOX, LATER], clicks=clicks, clicks_order=orders)
    model = Last()
    segs = answer_challenge(model, path, tmp_path / "out" / "case.npz", progress=False)
    expected = np.zeros(SIZE, np.uint8)
    expected[1:5, 2:7, 3:8] = 1
    expected[0, 0, 0] = 1
    expected[2, 3, 4] = 1  # first said not to be, then to be
    expected[1, 2, 3] = 0
    expected[3:6, 5:9, 5:10] = 2  # over the first object
    expected[5, 8, 9] = 0
    assert np.array_equal(segs_of(tmp_path / "out" / "case.npz"), expected)
    assert np.array_equal(segs.numpy(), expected)
    assert len(model.started) == 1
    assert model.asked[0][1] == [([2, 3, 4], False), ([0, 0, 0], True), ([2, 3, 4], True), ([1, 2, 3], False)]


@pytest.mark.parametrize("members", [{}, {"boxes": np.empty(0, object)}, {"clicks": [{"fg": [], "bg": []}]}])
def test_nothing_asked_is_an_empty_answer(tmp_path: Path, members: Any) -> None:
    model = Last()
    answer_challenge(model, save(tmp_path / "case.npz", **members), tmp_path / "answer.npz")
    assert not segs_of(tmp_path / "answer.npz").any()
    assert segs_of(tmp_path / "answer.npz").shape == SIZE
    assert not model.started  # a volume is not encoded for nothing


def test_boxes_alone_and_clicks_alone(tmp_path: Path) -> None:
    model = Last()
    boxes = answer_challenge(model, save(tmp_path / "a.npz", boxes=[BOX]), tmp_path / "out.npz")
    assert boxes.sum() == 4 * 5 * 5
    assert model.asked[-1] == ((1, 2, 3, 4, 6, 7), []) or model.asked[-1] == ([1, 2, 3, 4, 6, 7], [])
    clicks = [{"fg": [], "bg": []}, {"fg": [[5, 1, 2]], "bg": []}]
    answer = answer_challenge(model, save(tmp_path / "b.npz", clicks=clicks), tmp_path / "out.npz")
    assert answer.nonzero().tolist() == [[5, 1, 2]]
    assert answer[5, 1, 2] == 2  # the number of the second object
    assert model.asked[-1] == (None, [([5, 1, 2], True)])


def test_numbers_of_the_truth_are_kept(tmp_path: Path) -> None:
    gts = np.zeros(SIZE, np.uint8)
    gts[0], gts[1] = 3, 7
    members = {"boxes": [BOX, LATER], "gts": gts}
    segs = answer_challenge(Last(), save(tmp_path / "case.npz", **members), tmp_path / "out.npz")
    assert segs.unique().tolist() == [0, 3, 7]
    assert segs[1, 2, 3] == 3
    gts[2] = 9  # three numbers for two boxes say nothing
    segs = answer_challenge(Last(), save(tmp_path / "case.npz", **members), tmp_path / "out.npz")
    assert segs.unique().tolist() == [0, 1, 2]


def test_the_model_sees_the_foreground_and_every_prompt(tmp_path: Path) -> None:
    voxels = np.zeros((8, 12, 14), np.uint8)
    voxels[3:6, 4:9, 5:11] = np.random.default_rng(0).integers(100, 256, (3, 5, 6))
    path = save(tmp_path / "case.npz", imgs=voxels, clicks=[{"fg": [[4, 5, 6]], "bg": [[1, 11, 6]]}])
    model = Last()
    answer = answer_challenge(model, path, tmp_path / "out.npz")
    normal = normalise_foreground(torch.from_numpy(voxels).float()[None])
    part = foreground_crop(normal)
    (z0, y0, x0), (z1, _, x1) = part.start, part.stop
    assert (z0, y0) > (1, 0)  # the click lies outside the foreground
    assert torch.equal(model.started[0], normal[:, 1:z1, y0:12, x0:x1])
    assert answer.nonzero().tolist() == [[4, 5, 6]]
    doubled = Last()
    answer_challenge(doubled, path, tmp_path / "out.npz", normalise=lambda one: normalise_foreground(one) / 2)
    assert torch.equal(doubled.started[0], model.started[0] / 2)


def test_the_segmenter_answers_each_object_as_if_it_were_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ur.build_segvol("tiny", volume_size=(8, 16, 16))
    model = ur.VolumeSegmenter(network, ur.GRUCorrection(points=10, hidden=8, dimensions=3), redecode=True, overlap=0.0)
    clicks = [{"fg": [[2, 10, 12]], "bg": [[5, 16, 9], [4, 3, 3]]}, {"fg": [[8, 14, 17]], "bg": []}]
    path = save(tmp_path / "case.npz", imgs=image((9, 17, 18)), boxes=[BOX, LATER], clicks=clicks)
    together = answer_challenge(model, path, tmp_path / "out.npz", progress=False)
    assert not model.training
    case = read_interactive_case(path)
    volume = normalise_foreground(case.image)
    expected = torch.zeros_like(together)
    for index, (box, told) in enumerate(zip(case.boxes or (), case.clicks or (), strict=True)):
        expected[model(volume, box=box.corners, clicks=told)[0] > 0] = index + 1
    assert foreground_crop(volume).size == volume.shape[1:]
    assert torch.equal(together, expected)
    assert set(together.unique().tolist()) == {0, 1, 2}


def test_where_an_answer_must_not_go(tmp_path: Path) -> None:
    path = save(tmp_path / "case.npz", boxes=[BOX])
    before = path.read_bytes()
    for out in (path, tmp_path / "x" / ".." / "case.npz", tmp_path / "segs.nii.gz"):
        with pytest.raises(ValueError, match=r"out must be an \.npz file other than the case"):
            answer_challenge(Last(), path, out)
    assert path.read_bytes() == before


def test_more_objects_than_a_byte_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "case.npz", clicks=[{"fg": [[0, 0, 0]], "bg": []}] * 256)
    with pytest.raises(ValueError, match=r"number its objects from 1 to 255, .* but it goes to 256"):
        answer_case(Last(), read_interactive_case(path))


def folder_of(path: Path) -> Path:
    for name in ("b", "a", "d"):
        save(path / f"{name}.npz", boxes=[BOX], clicks=[{"fg": [], "bg": [[1, 2, 3]]}])
    save(path / "c.npz", boxes=[BOX])
    (path / "c.npz").write_bytes((path / "c.npz").read_bytes()[:-40])
    save(path / "heavy.npz", imgs=image((7, 9, 10)), boxes=[BOX, LATER])
    (path / "notes.txt").write_text("no case")
    (path / "._a.npz").write_bytes(b"of another system")
    return path


def test_a_folder_goes_on_after_broken_files_and_tells_of_them(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path / "cases"), tmp_path / "segs"
    with pytest.warns(UserWarning, match=r"2 of 5 cases have no answer, the first is c\.npz: .*truncated or damaged"):
        answers = answer_challenge_folder(Broken(), folder, out, progress=False)
    assert [row.name for row in answers.rows] == ["a.npz", "b.npz", "c.npz", "d.npz", "heavy.npz"]
    assert [row.objects for row in answers.rows] == [1, 1, None, 1, 2]
    assert [bool(row.error) for row in answers.rows] == [False, False, True, False, True]
    assert answers.rows[4].error == "out of memory"
    assert answers.failed == (answers.rows[2], answers.rows[4])
    assert all(row.seconds is not None and row.seconds >= 0 for row in answers.rows)
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "b.npz", "d.npz"]
    assert segs_of(out / "a.npz").sum() == 4 * 5 * 5 - 1

    answers.to_csv(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "objects", "seconds", "error"]
    assert [(row["name"], row["objects"], row["error"]) for row in rows] == [
        (row.name, "" if row.objects is None else str(row.objects), row.error) for row in answers.rows
    ]
    assert float(rows[0]["seconds"]) == answers.rows[0].seconds


@pytest.mark.parametrize("error", [IndexError("boom"), KeyError("x"), AssertionError(), TypeError("no"), MemoryError()])
def test_whatever_a_model_raises_stops_nothing(tmp_path: Path, error: Exception) -> None:
    class Raises(Last):
        def start(self, volume: Tensor) -> Tensor:
            if volume.shape[1] == 7:
                raise error
            return super().start(volume)

    folder = folder_of(tmp_path / "cases")
    (folder / "c.npz").unlink()
    with pytest.warns(
        UserWarning, match=rf"1 of 4 cases have no answer, the first is heavy\.npz: {type(error).__name__}"
    ):
        answers = answer_challenge_folder(Raises(), folder, tmp_path / "segs", progress=False)
    assert [bool(row.error) for row in answers.rows] == [False, False, False, True]
    assert answers.failed[0].error == (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def test_a_user_who_stops_a_folder_stops_it(tmp_path: Path) -> None:
    class Stops(Last):
        def start(self, volume: Tensor) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_challenge_folder(Stops(), folder_of(tmp_path / "cases"), tmp_path / "segs", progress=False)


def test_a_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path / "cases"), tmp_path / "segs"
    (folder / "c.npz").unlink()
    answer_challenge_folder(Last(), folder, out, progress=False)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "b.npz").write_bytes((out / "b.npz").read_bytes()[:-30])  # a copy that was cut short is no answer
    (out / "d.npz").unlink()
    model = Last()
    answers = answer_challenge_folder(model, folder, out, progress=False)
    assert len(model.started) == 2
    assert answers.rows[0] == ChallengeAnswer("a.npz", None, None)
    assert [row.objects for row in answers.rows] == [None, 1, 1, None]
    assert (out / "a.npz").stat().st_mtime_ns == times["a.npz"]
    assert segs_of(out / "b.npz").sum() == segs_of(out / "d.npz").sum() == 4 * 5 * 5 - 1


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = folder_of(tmp_path / "cases")
    monkeypatch.setattr(sys.modules["ultrarefiner.evaluation.challenge_folder"], "write_challenge_result", full)
    model = Last()
    with pytest.raises(OSError, match="No space left"):
        answer_challenge_folder(model, folder, tmp_path / "segs", progress=False)
    assert len(model.started) == 1


def test_a_bar_counts_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int) -> None:
            told.append(count)

    def draw(*what: Any, shown: bool) -> Bar:
        told.append((*what, shown))
        return Bar()

    monkeypatch.setattr(sys.modules["ultrarefiner.evaluation.challenge_folder"], "progress_bar", draw)
    with pytest.warns(UserWarning, match="1 of 5"):
        answer_challenge_folder(Last(), folder_of(tmp_path / "cases"), tmp_path / "segs")
    assert told == [(5, "answer", "case", True), 1, 1, 1, 1, 1]


def test_no_folder_of_cases(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        answer_challenge_folder(Last(), tmp_path / "none", tmp_path / "segs")
    with pytest.raises(ValueError, match="has 0 and out is"):
        answer_challenge_folder(Last(), tmp_path, tmp_path / "segs")
    folder = folder_of(tmp_path / "cases")
    with pytest.raises(ValueError, match=r"folder must hold \.npz files and out be another folder"):
        answer_challenge_folder(Last(), folder, folder / ".." / "cases")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_killed_run_leaves_whole_answers_only(tmp_path: Path) -> None:
    folder, out = tmp_path / "cases", tmp_path / "segs"
    for name in ("a", "b", "c"):
        save(folder / f"{name}.npz", boxes=[BOX])
    forced, count = os.fsync, []

    def killed(file: int) -> None:
        count.append(file)
        if len(count) == 3:  # a.npz and its folder, then b.npz, all of it written and not yet named
            os.kill(os.getpid(), signal.SIGKILL)
        forced(file)

    child = os.fork()
    if not child:
        os.fsync = killed
        try:
            answer_challenge_folder(Last(), folder, out, progress=False)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in sorted(out.glob("*.npz")) if not path.name.startswith(".")] == ["a.npz"]
    assert segs_of(out / "a.npz").sum() == 4 * 5 * 5
    model = Last()
    answers = answer_challenge_folder(model, folder, out, progress=False)
    assert len(model.started) == 2
    assert not answers.failed
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "b.npz", "c.npz"]
