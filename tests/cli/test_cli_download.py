"""``ultrarefiner download``: what is known, what is there, what could not be had. Nothing here touches the network."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from ultrarefiner.checkpoints import KNOWN_FILES, KnownFile
from ultrarefiner.cli import main


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small files that are known, one of them there, the other nowhere."""
    (tmp_path / "sam_vit_there.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for name, checked in (("sam_vit_there.pth", f"sha256:{digest}"), ("sam_vit_away.pth", None)):
        known = KnownFile(name, f"http://127.0.0.1:9/{name}", None, checked, "sam", "For the test.")
        monkeypatch.setitem(KNOWN_FILES, name, known)
    monkeypatch.setenv("ULTRAREFINER_CACHE", str(tmp_path))
    return tmp_path


def test_the_list_says_name_size_licence_and_use_of_every_file(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--list"]) == 0
    entries = capsys.readouterr().out.strip().split("\n\n")
    assert len(entries) == len(KNOWN_FILES)
    for entry, known in zip(entries, KNOWN_FILES.values(), strict=True):
        head, note, use = entry.split("\n  ")
        assert head.startswith(f"{known.name} (")
        assert "licence Apache-2.0" in head
        assert (" MB;" in head or " GB;" in head) == (known.size is not None)
        assert ("downloaded" in head) == (known.name == "sam_vit_there.pth")
        assert note == known.note
        assert use.startswith("For ")
    assert "375 MB" in entries[0]
    told = dict(zip(KNOWN_FILES, entries, strict=True))
    assert "licence Apache-2.0)" in told["sam_vit_h_4b8939.pth"]
    assert "this copy's page on Zenodo may name another" in told["medsam_vit_b.pth"]
    for name in ("R50+ViT-B_16.npz", "ViT-B_16.npz"):
        assert "of the vision_transformer repository; for the weights none was found" in told[name]


def test_a_file_that_is_there_is_checked(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "sam_vit_there.pth", "sam_vit_there.pth"]) == 0
    told = capsys.readouterr().out
    assert f"{shelf / 'sam_vit_there.pth'} (1 kB; sha256 is right)" in told
    assert "1 of 1 files are there." in told
    (shelf / "sam_vit_there.pth").write_bytes(b"other weights")
    assert main(["download", "sam_vit_there.pth"]) == 1
    assert "is not the published sam_vit_there.pth" in capsys.readouterr().err


def test_some_that_cannot_be_had_exit_with_3_and_all_with_1(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "sam_vit_away.pth", "sam_vit_there.pth", "--no-progress"]) == 3
    told = capsys.readouterr()
    assert "1 of 2 files are there." in told.out
    assert "could not be downloaded" in told.err
    assert main(["download", "sam_vit_away.pth", "--no-progress"]) == 1
    assert main(["download", "sam_vit_there.pth", "--folder", str(shelf / "other"), "--no-progress"]) == 1
    assert sorted(path.name for path in shelf.rglob("*.p*")) == ["sam_vit_there.pth"], "no parts are left"


def test_no_name_and_names_that_are_not_known_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download"]) == 1
    assert "give the names of files to download, or --list" in capsys.readouterr().err
    assert main(["download", "sam.pth"]) == 1
    assert "but 'sam.pth' is none of them; see --list" in capsys.readouterr().err


def test_the_list_needs_no_package_but_downloads_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ULTRAREFINER_CACHE", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert main(["download", "--list"]) == 0
    assert main(["download", "sam_vit_b_01ec64.pth"]) == 1
    assert "download needs the package pooch: pip install 'ultrarefiner[weights]'." in capsys.readouterr().err
