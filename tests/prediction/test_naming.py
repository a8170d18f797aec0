"""Names of results: none is shared, and none changes from run to run."""

from __future__ import annotations

from pathlib import Path

from ultrarefiner.prediction.finding import FoundFile
from ultrarefiner.prediction.naming import file_name_of, unique_names


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


def test_a_folder_is_not_called_as_a_mask() -> None:
    given = [FoundFile(Path("/x/a.jpg"), "a"), FoundFile(Path("/x/a.png/b.png"), "a.png/b")]
    given += [FoundFile(Path("/x/v.NII.GZ/b.png"), "v.NII.GZ/b"), FoundFile(Path("/x/a.png_/b.png"), "a.png_/b")]
    found = unique_names(given, {}, several=())
    assert found == ["a", "a.png_/b", "v.NII.GZ_/b", "a.png_/b_png"]


def test_accents_are_the_same_however_they_are_stored() -> None:
    given = files("/x/\u00e9.png", "/x/e\u0301.png")
    assert unique_names(given, {}, several=()) == ["\u00e9", "e\u0301_png"]


def test_frames_of_an_earlier_run_keep_their_names() -> None:
    clip, other = Path("/x/clip.dcm"), files("/y/clip_frame001.png")
    assert unique_names(other, {clip: "clip"}, several={clip}) == ["clip_frame001_png"]


def test_a_files_name_is_found_in_those_of_its_pictures() -> None:
    for path, picture, name in (
        ("/x/clip.dcm", "in/clip_frame012", "in/clip"),
        ("/x/clip.dcm", "clip_2_frame012", "clip_2"),
        ("/x/scan.nii.gz", "scan_slice000", "scan"),
        ("/x/a_frame001.dcm", "in/a_frame001", "in/a_frame001"),
        ("/x/a_frame001.dcm", "a_frame001_frame000", "a_frame001"),
        ("/x/a.png", "a", "a"),
    ):
        assert file_name_of(Path(path), picture) == name
