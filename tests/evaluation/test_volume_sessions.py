"""From a NIfTI file to a mask on its voxels: a model whose answer is known, then the real one."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from torch import Tensor

import ultrarefiner as ur
from ultrarefiner.data import open_volume
from ultrarefiner.evaluation import VolumeFileSession, open_session
from ultrarefiner.evaluation.window_bar import window_bar
from ultrarefiner.systems import Interaction
from ultrarefiner.types import Clicks

SHAPE = (9, 8, 7)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


class Cubes:
    """The box, and around every click a cube of 3 voxels that is object or is not."""

    def __init__(self) -> None:
        self.started: list[Tensor] = []

    def start(self, volume: Tensor) -> Tensor:
        self.started.append(volume)
        return volume

    def segment(self, state: Tensor, box: Sequence[int] | None, clicks: Clicks) -> Tensor:
        found = torch.full_like(state, -1.0)
        if box is not None:
            z0, y0, x0, z1, y1, x1 = box
            found[0, z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = 1
        for (z, y, x), positive in zip(clicks.positions[0].tolist(), clicks.positive[0].tolist(), strict=True):
            cube = found[0, max(z - 1, 0) : z + 2, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            cube.fill_(1.0 if positive else -1.0)
        return found


def scan(path: Path, how: Any = ((0, 1, 2), (1, 1, 1)), zooms: Sequence[float] = (2.0, 0.5, 3.0)) -> Path:
    """Bright but for its first and last plane along each stored axis."""
    affine = np.zeros((4, 4))
    for stored, (axis, sign, zoom) in enumerate(zip(*how, zooms, strict=True)):
        affine[axis, stored] = sign * zoom
    affine[:, 3] = (-31.5, 12.25, 7.0, 1.0)
    voxels = np.zeros(SHAPE, np.int16)
    voxels[1:-1, 1:-1, 1:-1] = np.random.default_rng(0).integers(500, 900, [side - 2 for side in SHAPE])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def segmenter(**options: Any) -> ur.VolumeSegmenter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ur.VolumeSegmenter(ur.build_segvol("tiny", volume_size=(8, 16, 16)), **options)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 10_000), st.booleans())
def test_what_is_said_in_the_file_is_answered_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, how: Any, seed: int, cropped: bool
) -> None:
    draw = np.random.default_rng(seed)
    path = scan(tmp_path_factory.mktemp("scan") / "scan.nii.gz", how)
    model = Cubes()
    session = open_session(model, path if cropped else open_volume(path, crop=None), progress=False)
    expected = np.zeros(SHAPE, bool)
    answers = [expected]
    assert session.mask.shape == SHAPE
    assert not session.mask.any()

    corners = np.sort(draw.integers(1, [side - 1 for side in SHAPE], (2, 3)), axis=0)
    low, high = corners.tolist()
    session.box((*low, *high))
    expected = expected.copy()
    expected[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    answers.append(expected)
    for positive in (True, False, True):
        voxel = draw.integers(1, [side - 1 for side in SHAPE]).tolist()
        if positive:
            session.click(voxel)
        else:
            session.click_mm(apply_affine(nibabel.load(path).affine, voxel).tolist(), positive=False)
        near = np.abs(np.indices(SHAPE) - np.reshape(voxel, (3, 1, 1, 1))).max(0) <= 1
        expected = np.where(near, positive, expected)
        if cropped:
            expected &= nibabel.load(path).get_fdata() > 0
        answers.append(expected)
        assert session.history[-1] == Interaction("click", tuple(voxel), positive)
        assert np.array_equal(session.mask, expected)
    assert session.history[0] == Interaction("box", (*low, *high))
    assert session.object_size == pytest.approx(expected.sum() * 2.0 * 0.5 * 3.0 / 1000)
    while session.history:
        assert np.array_equal(session.mask, answers.pop())
        session.undo()
    assert len(model.started) == 1


def test_the_mask_is_written_in_the_scans_affine(tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.nii.gz", ((1, 2, 0), (-1, 1, -1)))
    session = open_session(Cubes(), path, progress=False)
    session.click((4, 5, 2))
    session.save(tmp_path / "out" / "mask.nii.gz")
    found = nibabel.load(tmp_path / "out" / "mask.nii.gz")
    assert np.array_equal(found.affine, nibabel.load(path).affine)
    assert found.header.get_zooms() == nibabel.load(path).header.get_zooms()
    expected = np.zeros(SHAPE)
    expected[3:6, 4:7, 1:4] = 1
    assert np.array_equal(found.get_fdata(), expected)
    with pytest.raises(ValueError, match="path must not be the volume itself"):
        session.save(path)
    with pytest.raises(ValueError, match=r"path must end in \.nii\.gz"):
        session.save(tmp_path / "mask.nii")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["mask.nii.gz"]


def test_a_refused_prompt_changes_nothing(tmp_path: Path) -> None:
    session = open_session(Cubes(), scan(tmp_path / "scan.nii.gz"), progress=False)
    session.click((4, 4, 4))
    before = session.mask
    for ask, message in [
        (lambda: session.click((9, 0, 0)), "voxel must be three whole numbers"),
        (lambda: session.click((0, 4, 4)), "was cut away"),
        (lambda: session.click_mm((1000.0, 0.0, 0.0)), "place must lie inside the volume"),
        (lambda: session.box((0, 0, 0, 9, 7, 6)), "box must be six whole numbers"),
        (lambda: session.box((0, 0, 0, 0, 7, 6)), "was cut away"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask()
    assert len(session.history) == 1
    assert np.array_equal(session.mask, before)
    session.undo()
    with pytest.raises(ValueError, match="the history is empty"):
        session.undo()


def test_a_session_of_the_segmenter_is_the_segmenter_in_the_files_frame(tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.nii.gz", ((1, 2, 0), (-1, 1, -1)))
    model = segmenter().train()
    session = open_session(model, path, progress=False)
    assert not model.training
    session.box((1, 2, 2, 5, 6, 4))
    session.click((4, 4, 3), positive=False)
    volume = open_volume(path)
    logits = model(
        volume.image,
        box=volume.enter_box((1, 2, 2, 5, 6, 4)),
        clicks=Clicks.at([volume.enter((4, 4, 3))], positive=[False]),
    )
    assert np.array_equal(session.mask, volume.stored(logits > 0))
    assert session.mask.any()


class Bar:
    def __init__(self, total: int) -> None:
        self.total, self.done, self.open = total, 0, False

    def __enter__(self) -> Bar:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def update(self, count: int) -> None:
        assert self.open
        self.done += count


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    made: list[Bar] = []

    def draw(total: int, what: str, unit: str, *, shown: bool) -> Bar:
        assert (what, unit, shown) == ("segment", "window", True)
        made.append(Bar(total))
        return made[-1]

    monkeypatch.setattr(sys.modules["ultrarefiner.evaluation.window_bar"], "progress_bar", draw)
    return made


def large(path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((40, 40, 12)).astype(np.float32), np.eye(4)), path)
    return path


def test_every_answer_has_a_bar_over_its_windows(tmp_path: Path, bars: list[Bar]) -> None:
    model = segmenter()
    session = open_session(model, open_volume(large(tmp_path / "scan.nii.gz"), crop=None))
    for say in (
        lambda: session.box((2, 2, 2, 37, 37, 10)),
        lambda: session.click((20, 20, 5), False),
        lambda: session.click_mm((5.0, 5.0, 5.0)),
        session.undo,
    ):
        count = len(bars)
        say()
        assert len(bars) == count + 1
        assert bars[-1].total == bars[-1].done > 1
        assert not bars[-1].open
        assert model.progress is None
    session.progress = False
    session.click((20, 20, 5))
    assert len(bars) == 4


def stopped(model: ur.VolumeSegmenter) -> None:
    with window_bar(model, shown=True):
        assert model.progress is not None
        model.progress(1, 9)
        raise KeyboardInterrupt


def test_a_bar_closes_when_the_answer_fails_and_leaves_others_alone(tmp_path: Path, bars: list[Bar]) -> None:
    counted: list[tuple[int, int]] = []
    model = segmenter(progress=lambda done, total: counted.append((done, total)))
    own = model.progress
    session = open_session(model, open_volume(large(tmp_path / "scan.nii.gz"), crop=None))
    session.box((2, 2, 2, 37, 37, 10))
    assert counted
    assert not bars
    assert model.progress is own

    model.progress = None
    with pytest.raises(KeyboardInterrupt):
        stopped(model)
    assert [(bar.total, bar.done, bar.open) for bar in bars] == [(9, 1, False)]
    assert model.progress is None
    open_session(Cubes(), scan(tmp_path / "small.nii.gz")).click((4, 4, 4))  # no windows, no bar
    assert len(bars) == 1


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no volume"):
        open_session(Cubes(), tmp_path / "none.nii.gz")
    path = tmp_path / "nan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, np.nan, np.float32), np.eye(4)), path)
    with pytest.raises(ValueError, match="NaN or infinite; replace them"):
        open_session(Cubes(), path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_kill_while_saving_leaves_the_old_mask(tmp_path: Path) -> None:
    path, out = scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz"
    session = VolumeFileSession(Cubes(), open_volume(path), progress=False)
    session.click((4, 4, 4))
    session.save(out)
    before = out.read_bytes()
    session.click((6, 6, 5))
    child = os.fork()
    if not child:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # all is written, and has no name yet
        try:
            session.save(out)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert out.read_bytes() == before
    session.save(out)
    assert np.array_equal(nibabel.load(out).get_fdata() > 0, session.mask)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mask.nii.gz", "scan.nii.gz"]
