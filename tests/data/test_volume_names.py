"""prepare_volumes: names, dates and files of every kind."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phantom_files import ORGANS, content, write_phantoms

from ultrarefiner.data import SparseVolumes, prepare_volumes
from ultrarefiner.data.sparse_files import VolumeFolder

PREPARATION = "ultrarefiner.data.volume_preparation"


def test_long_names_are_prepared_as_any_other(tmp_path: Path) -> None:
    first, second = write_phantoms(tmp_path)
    names = ["扫描" * 20, "扫描" * 20 + "2", "a" * 300]
    files = [replace(one, name=name) for one, name in zip((first, second, first), names, strict=True)]
    assert prepare_volumes(files, tmp_path / "ready", organs=ORGANS, progress=False) == 3
    assert prepare_volumes(files, tmp_path / "ready", organs=ORGANS, progress=False) == 0
    volumes = SparseVolumes(tmp_path / "ready")
    assert sorted(volumes.names) == sorted(names)
    assert {volumes[index].name for index in range(3)} == set(names)
    assert VolumeFolder.of(tmp_path, "a" * 200).path.name == "a" * 200
    assert len(VolumeFolder.of(tmp_path, "a" * 201).path.name) == 200


def test_a_volume_without_a_name_gets_a_sentence(tmp_path: Path) -> None:
    (file,) = write_phantoms(tmp_path, 1)
    with pytest.raises(ValueError, match="the names of volumes must have a letter at least, but one is ''"):
        prepare_volumes([replace(file, name="")], tmp_path / "ready", progress=False)
    assert not (tmp_path / "ready").exists()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), IndexError("no axis"), MemoryError()])
def test_whatever_one_file_raises_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    files, plain = write_phantoms(tmp_path, 3), sys.modules[PREPARATION].read_voxels

    def fails(path: Path) -> Any:
        if path.name == "p1.nii.gz":
            raise error
        return plain(path)

    monkeypatch.setattr(sys.modules[PREPARATION], "read_voxels", fails)
    told = rf"1 of 3 volumes could not be prepared; .*'p1': {type(error).__name__}: "
    with pytest.raises(ValueError, match=told):
        prepare_volumes(files, tmp_path / "ready", progress=False)
    assert SparseVolumes(tmp_path / "ready").names == ("p0", "p2")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ModuleNotFoundError("nibabel")])
def test_what_is_no_files_fault_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(path: Path) -> Any:
        raise error

    monkeypatch.setattr(sys.modules[PREPARATION], "read_voxels", fails)
    with pytest.raises(type(error)):
        prepare_volumes(write_phantoms(tmp_path), tmp_path / "ready", progress=False)


def test_files_from_before_1970(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path)
    os.utime(files[0].image, (-1, -1))
    assert prepare_volumes(files, tmp_path / "ready", progress=False) == 2
    assert prepare_volumes(files, tmp_path / "ready", progress=False) == 0
    assert SparseVolumes(tmp_path / "ready").names == ("p0", "p1")


@pytest.mark.parametrize("length", [0, 20, 130, -1])
def test_an_image_that_was_cut_short_is_made_again(tmp_path: Path, length: int) -> None:
    files = write_phantoms(tmp_path)
    prepare_volumes(files, tmp_path / "ready", progress=False)
    before = content(tmp_path / "ready")
    image = VolumeFolder.of(tmp_path / "ready", "p0").image
    image.write_bytes(image.read_bytes()[:length])
    assert prepare_volumes(files, tmp_path / "ready", progress=False) == 1
    assert content(tmp_path / "ready") == before


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("number", [1.0, True, 1.5, "1", None])
def test_numbers_that_are_none_get_a_sentence_before_anything_is_prepared(tmp_path: Path, number: Any) -> None:
    files = write_phantoms(tmp_path, 1)
    with pytest.raises(ValueError, match="organs must be names, each with a whole number of its own"):
        prepare_volumes(files, tmp_path / "ready", organs={"a": number}, progress=False)
    with pytest.raises(ValueError, match="margin a whole number, not negative"):
        prepare_volumes(files, tmp_path / "ready", margin=number, progress=False)
    assert not (tmp_path / "ready").exists()
