"""Which files of a folder are predicted, and under which names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ultrarefiner.prediction import find_pictures, read_picture


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(found: object) -> list[str]:
    return [file.name for file in found.files]  # type: ignore[attr-defined]


def test_masks_beside_their_images_are_left_out_and_said(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "benign (1).png",
        "benign (1)_mask.png",
        "benign (1)_mask_1.png",
        "lone_mask.png",
        "s.nii.gz",
        "s_mask.nii.gz",
    )
    found = find_pictures(tmp_path)
    assert names(found) == ["benign (1)", "lone_mask", "s"]
    assert found.notes == (
        "3 mask files were left out (benign (1)_mask.png, benign (1)_mask_1.png, s_mask.nii.gz); give them by name to "
        "predict them.",
    )
    assert names(find_pictures(tmp_path / "benign (1)_mask.png")) == ["benign (1)_mask"]


def test_folders_inside_are_searched_on_request(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "inner/a.tif", ".hidden/c.png", ".d.png", "inner/scan.dcm")
    assert names(find_pictures(tmp_path)) == ["b"]
    assert names(find_pictures(tmp_path, recursive=True)) == ["b", "inner/a", "inner/scan"]


def test_dicom_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "1.2.840.113").write_bytes(b"\0" * 128 + b"DICM")
    touch(tmp_path, "notes.txt", "README")
    found = find_pictures(tmp_path)
    assert names(found) == ["1.2.840.113"]
    assert found.notes[0].startswith("2 files without a picture's ending were left out (README, notes.txt)")


def test_earlier_results_are_no_pictures(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.png",
        "old/predictions.csv",
        "old/masks/a.png",
        "old/panels/a.png",
        "out/masks/a.png",
        "x/masks/b.png",
    )
    found = find_pictures(tmp_path, recursive=True, results=tmp_path / "out")
    assert names(found) == ["a", "x/masks/b"]
    assert found.notes == ()
    assert names(find_pictures(tmp_path / "out", recursive=True, results=tmp_path / "out")) == []


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "full/a.png")
    (tmp_path / "empty").mkdir()
    found = find_pictures([tmp_path / "none", tmp_path / "empty", tmp_path])
    assert not found.files
    reasons = [reason for _, reason in found.problems]
    assert "there is no file or folder" in reasons[0]
    assert f"the folder {tmp_path / 'empty'} has no pictures (.png" in reasons[1]
    assert reasons[1].endswith("or files by name.")
    assert reasons[2].endswith("recursive=True (--recursive) searches them.")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_locked_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    assert "cannot be read (Permission denied)" in find_pictures(tmp_path / "locked").problems[0][1]


def test_a_folder_that_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "inner/b.png", "other/c.png")
    allowed = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder) in locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return allowed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    locked = {tmp_path / "inner"}
    found = find_pictures(tmp_path, recursive=True)
    assert names(found) == ["a", "other/c"], "the rest is searched"
    sentence = f"the folder {tmp_path / 'inner'} cannot be read (Permission denied); check its permissions"
    assert found.problems == ((str(tmp_path / "inner"), sentence),)
    locked = {tmp_path}
    assert [str(tmp_path)] == [problem for problem, _ in find_pictures(tmp_path).problems]


def test_folders_that_are_not_searched_and_empty_ones_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "inner/b.png", "predictions/predictions.csv", "predictions/masks/a.png", ".git/c.png")
    (tmp_path / "empty").mkdir()
    found = find_pictures(tmp_path, results=tmp_path / "out")
    assert found.notes == (
        "2 folders inside were left out (empty, inner); recursive=True (--recursive) searches them.",
    )
    (tmp_path / "out").mkdir()
    assert find_pictures(tmp_path, results=tmp_path / "out").notes == found.notes
    found = find_pictures(tmp_path, recursive=True)
    assert names(found) == ["a", "inner/b"]
    assert found.notes == ("2 empty folders were left out (empty, out); nothing is in them.",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    opened = Path.open

    def noted(path: Path, *arguments: object) -> object:
        assert path.name != "pipe", "this would wait for ever"
        return opened(path, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", noted)
    assert "1 file without a picture's ending was left out (pipe)" in find_pictures(tmp_path).notes[0]
    with pytest.raises(ValueError, match=r"pipe must be a file, but it is a pipe, a socket or a device"):
        read_picture(tmp_path / "pipe")


def test_a_file_that_is_given_twice_is_found_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    found = find_pictures([tmp_path / "b.png", tmp_path, str(tmp_path / "x" / ".." / "a.png")])
    assert names(found) == ["b", "a"]
