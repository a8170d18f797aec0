"""Pictures and volumes as they are read, and what is said of those that cannot be."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nifti import write_volume
from PIL import Image

from ultrarefiner.data.images import read_image
from ultrarefiner.data.nifti import read_header, read_voxels, write_mask
from ultrarefiner.prediction import open_pictures, read_picture
from ultrarefiner.prediction.reading import count_pictures, kind_of, stem_of


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "jpg"])
def test_pictures_are_read_as_in_training(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a b.{ending}"
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(path)
    picture = read_picture(path)
    assert torch.equal(picture.image, read_image(path))
    assert (picture.name, picture.size, picture.spacing, picture.notes) == ("a b", (10, 20), None, ())


def test_twelve_bits_in_sixteen_are_noted_and_stretched_where_wanted(tmp_path: Path) -> None:
    stored = np.array([[0, 2048, 4095]], np.uint16)
    for ending in ("png", "tif"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(stored).save(path)
        picture = read_picture(path)
        assert picture.image.max().item() == pytest.approx(4095 / 65535)
        assert picture.notes == (
            "dark: its largest number is 0.062 of what the format can hold; stretch=True (--stretch) divides by it",
        )
        wide = read_picture(path, stretch=True)
        assert wide.image[0, 0].tolist() == pytest.approx([0, 2048 / 4095, 1], abs=1e-4)
        assert "divided by its largest number" in wide.notes[0]


def test_transparency_colours_and_exif(tmp_path: Path) -> None:
    clear = np.zeros((2, 3, 4), np.uint8)
    clear[..., 0], clear[0, :, 3] = 255, 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").image[0, :, 0].tolist() == pytest.approx([0.299, 0])
    assert read_picture(tmp_path / "clear.png", colour=True).image[:, 0, 0].tolist() == [1, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).save(tmp_path / "askew.png", exif=exif)
    assert read_picture(tmp_path / "askew.png").size == (3, 2)


def test_one_value_is_noted(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "black.png")
    assert read_picture(tmp_path / "black.png", stretch=True).notes == (
        "every pixel has the same value, 0 of the range",
    )


def test_broken_files_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((50, 50), 60).save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture .* truncated"):
        read_picture(path)
    path.write_text("patient: Smith")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
        read_picture(path)
    with pytest.raises(FileNotFoundError, match="there is no picture"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder, one file is expected"):
        read_picture(tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_read_and_a_bomb_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.linear_gradient("L").resize((20, 10)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    assert read_picture(path).size == (10, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match=r"a\.png is too large to be read as one picture .* shrink it first"):
        read_picture(path)


def test_each_slice_of_a_volume_is_a_picture(tmp_path: Path) -> None:
    voxels = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3) - 20
    opened = open_pictures(write_volume(tmp_path / "scan.nii.gz", voxels, spacing=(0.3, 0.2, 1.0)))
    assert len(opened) == 3
    pictures = list(opened)
    assert [picture.name for picture in pictures] == ["scan_slice000", "scan_slice001", "scan_slice002"]
    assert pictures[1].spacing == (0.2, 0.3)
    assert torch.allclose(pictures[1].image[0], torch.from_numpy((voxels[:, :, 1].T + 20) / np.float32(59)))
    with pytest.raises(IndexError, match="holds 3 pictures, from 0 on, but picture 3"):
        opened[3]
    assert "number 2 of the 3 pictures in the file, counted from 0" in read_picture(opened.path, index=2).notes[0]


@pytest.mark.parametrize("wrong", [0.0, -0.2, float("nan")])
def test_a_volume_whose_voxels_have_no_size_is_read_and_says_so(tmp_path: Path, wrong: float) -> None:
    path = write_volume(tmp_path / "scan.nii", np.arange(24, dtype=np.uint8).reshape(4, 3, 2))
    stored = bytearray(path.read_bytes())
    stored[80:84] = struct.pack("<f", wrong)  # pixdim[1]
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=r"scan\.nii gives its voxels the sizes .* three positive ones are expected"):
        read_header(path)
    opened = open_pictures(path)
    assert (len(opened), opened.spacing, count_pictures(path)) == (2, None, 2)
    assert opened[1].notes[0].startswith("no areas in mm²: pixdim (rows, columns) must be two sizes above 0 mm, but it")
    write_mask(tmp_path / "mask.nii.gz", np.ones((4, 3, 2), bool), like=path)
    assert read_voxels(tmp_path / "mask.nii.gz").all()


def test_a_flat_volume_and_a_plane(tmp_path: Path) -> None:
    flat = read_picture(write_volume(tmp_path / "flat.nii", np.full((4, 3, 2), 7, np.uint8)))
    assert flat.image.eq(0).all()
    plane = read_picture(write_volume(tmp_path / "plane.nii.gz", np.arange(12, dtype=np.float32).reshape(4, 3, 1)))
    assert (plane.name, plane.size, plane.notes) == ("plane", (3, 4), ())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = write_volume(tmp_path / "scan.nii.gz", np.zeros((4, 3, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ultrarefiner\[volumes\]'"):
        read_picture(scan)


def test_names_and_kinds(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(b"\0" * 128 + b"DICM")
    assert kind_of(tmp_path / "IM1") == "dicom"
    assert [kind_of(name) for name in ("a.NII.GZ", "a.nii", "a.DCM", "a.gz")] == ["nifti", "nifti", "dicom", "picture"]
    assert [stem_of(name) for name in ("a.b.nii.gz", ".png", "x/y.tar.gz")] == ["a.b", ".png", "y.tar"]
