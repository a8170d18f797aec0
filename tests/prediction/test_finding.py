"""Which files of a folder are predicted, and under which names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ultrarefiner.prediction import find_pictures
from ultrarefiner.prediction.finding import FoundFile, unique_names


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
    def refuse(_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert "cannot be read (Permission denied); check its permissions" in find_pictures(tmp_path).problems[0][1]


def test_a_file_that_is_given_twice_is_found_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    found = find_pictures([tmp_path / "b.png", tmp_path, str(tmp_path / "x" / ".." / "a.png")])
    assert names(found) == ["b", "a"]


def files(*paths: str) -> list[FoundFile]:
    return [FoundFile(Path(path), Path(path).stem) for path in paths]


def test_no_two_files_share_a_name() -> None:
    given = files("/x/a.png", "/x/a.jpg", "/y/a.jpg", "/z/A.PNG", "/q/a.png")
    found = unique_names(given, {}, several=())
    assert found == ["a", "a_jpg", "a_2", "A_png", "a_3"]


def test_names_of_an_earlier_run_are_kept() -> None:
    taken = {Path("/y/a.jpg"): "a"}
    assert unique_names(files("/x/a.png", "/y/a.jpg"), taken, several=()) == ["a_png", "a"]


def test_slices_share_their_names_with_no_picture() -> None:
    scan, single = files("/x/scan.dcm", "/x/scan_frame001.png")
    assert unique_names([scan, single], {}, several={scan.path}) == ["scan", "scan_frame001_png"]
    assert unique_names([single, scan], {}, several={scan.path}) == ["scan_frame001", "scan_dcm"]


def test_long_names_fit_a_file_system() -> None:
    given = files("/x/" + "é" * 120 + ".png", "/x/" + "é" * 121 + ".png")
    found = unique_names(given, {}, several=())
    assert len(set(found)) == 2
    assert max(len(name.encode()) for name in found) < 190
