"""DICOM frames as a viewer shows them; files written here, numbers worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import save
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from ultrarefiner.prediction import open_pictures, read_picture

GREY = np.array([[0, 51], [102, 255]], np.uint8)


def values(path: Path, **options: Any) -> list[float]:
    return [float(value) for value in read_picture(path, **options).image.flatten()]


def test_eight_bits_and_turned_over(tmp_path: Path) -> None:
    assert values(save(tmp_path / "a.dcm", GREY)) == pytest.approx([0, 0.2, 0.4, 1])
    path = save(tmp_path / "b.dcm", GREY, PhotometricInterpretation="MONOCHROME1")
    assert values(path) == pytest.approx([1, 0.8, 0.6, 0])


def test_twelve_bits_are_divided_by_twelve_bits(tmp_path: Path) -> None:
    stored = np.array([[0], [1024], [4095]], np.uint16)
    assert values(save(tmp_path / "a.dcm", stored, bits=12)) == pytest.approx([0, 1024 / 4095, 1])
    signed = np.array([[-2048], [0], [2047]], np.int16)
    assert values(save(tmp_path / "b.dcm", signed, bits=12)) == pytest.approx([0, 2048 / 4095, 1])


def test_windows_act_on_rescaled_values(tmp_path: Path) -> None:
    stored = np.array([[0, 100, 150, 200, 1000]], np.uint16)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": [200, 5], "WindowWidth": [200, 5]}
    # Values are -100, 100, 200, 300, 1900.
    linear = values(save(tmp_path / "a.dcm", stored, bits=12, **tags))
    assert linear == pytest.approx([0, (100 - 199.5) / 199 + 0.5, 0.5 / 199 + 0.5, 1, 1], abs=1e-5)
    exact = values(save(tmp_path / "b.dcm", stored, bits=12, VOILUTFunction="LINEAR_EXACT", **tags))
    assert exact == pytest.approx([0, 0, 0.5, 1, 1])
    curved = values(save(tmp_path / "c.dcm", stored, bits=12, VOILUTFunction="SIGMOID", **tags))
    assert curved == pytest.approx([1 / (1 + np.exp(-4 * (v - 200) / 200)) for v in (-100, 100, 200, 300, 1900)])
    step = values(save(tmp_path / "d.dcm", stored, bits=12, WindowCenter=150, WindowWidth=1))
    assert step == [0, 0, 1, 1, 1]


def test_windows_agree_with_pydicom(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (8, 9)).astype(np.uint16)
    path = save(tmp_path / "a.dcm", stored, bits=12, WindowCenter=1500, WindowWidth=700)
    expected = pydicom.pixels.apply_windowing(stored, pydicom.dcmread(path)) / 4095
    assert np.allclose(read_picture(path).image[0].numpy(), expected, atol=1e-5)


def test_tables_are_looked_up(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], np.array([0, 255, 51, 102], np.uint16).tobytes()
    path = save(tmp_path / "a.dcm", np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=[table])
    assert values(path) == pytest.approx([0, 1, 0.2, 0.4])


def test_colours(tmp_path: Path) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    path = save(tmp_path / "a.dcm", red)
    assert values(path) == pytest.approx([0.299] * 4)
    assert values(path, colour=True) == [1] * 4 + [0] * 8
    ybr = pydicom.pixels.convert_color_space(red, "RGB", "YBR_FULL")
    path = save(tmp_path / "b.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    assert values(path, colour=True) == pytest.approx([1] * 4 + [0] * 8, abs=0.01)


def test_frames_are_pictures(tmp_path: Path) -> None:
    clip = np.stack([GREY, 255 - GREY, GREY // 2])
    opened = open_pictures(save(tmp_path / "clip.dcm", clip))
    assert [picture.name for picture in opened] == ["clip_frame000", "clip_frame001", "clip_frame002"]
    assert opened[1].image.flatten().tolist() == pytest.approx([1, 0.8, 0.6, 0])
    assert "number 0 of the 3 pictures" in read_picture(opened.path).notes[0]


def region(x: float = 0.005, y: float = 0.01, unit: int = 3, kind: int = 1) -> Dataset:
    one = Dataset()
    one.RegionSpatialFormat, one.PhysicalUnitsXDirection, one.PhysicalUnitsYDirection = kind, unit, unit
    one.PhysicalDeltaX, one.PhysicalDeltaY = x, -y
    return one


def test_the_size_of_a_pixel_comes_from_where_it_is_said(tmp_path: Path) -> None:
    assert read_picture(save(tmp_path / "a.dcm", GREY)).spacing is None
    assert read_picture(save(tmp_path / "b.dcm", GREY, PixelSpacing=[0.2, 0.3])).spacing == (0.2, 0.3)
    tissue = save(tmp_path / "c.dcm", GREY, SequenceOfUltrasoundRegions=[region(), region(7.0, 8.0, unit=4, kind=3)])
    assert read_picture(tissue).spacing == pytest.approx((0.1, 0.05))
    two = save(tmp_path / "d.dcm", GREY, SequenceOfUltrasoundRegions=[region(), region(x=0.02)])
    assert read_picture(two).spacing is None
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    groups.PixelMeasuresSequence = [measures]
    shared = save(tmp_path / "e.dcm", GREY, SharedFunctionalGroupsSequence=[groups])
    assert read_picture(shared).spacing == (0.5, 0.25)
    assert not any("mm²" in note for path in tmp_path.iterdir() for note in read_picture(path).notes)


@pytest.mark.parametrize("wrong", [[0, 0.3], [-0.2, 0.3], ["1e400", 0.3], [0.2], [0.2, 0.3, 1.0]])
def test_what_can_be_no_size_of_a_pixel_is_left_out_and_noted(tmp_path: Path, wrong: list[Any]) -> None:
    picture = read_picture(save(tmp_path / "a.dcm", GREY, PixelSpacing=wrong))
    assert picture.spacing is None
    assert picture.notes[0].startswith("no areas in mm²: PixelSpacing must be two sizes above 0 mm, but it is ")
    assert picture.notes[0].endswith("; export it again with its spacing")
    assert picture.image.max() == 1, "the picture is read all the same"


def test_regions_without_a_size_are_noted(tmp_path: Path) -> None:
    picture = read_picture(save(tmp_path / "a.dcm", GREY, SequenceOfUltrasoundRegions=[region(x=0.0)]))
    assert picture.spacing is None
    assert "the region's physical delta must be two sizes above 0 mm, but it is (0.1, 0.0)" in picture.notes[0]
    without = region()
    del without.PhysicalDeltaX
    picture = read_picture(save(tmp_path / "b.dcm", GREY, SequenceOfUltrasoundRegions=[without]))
    assert picture.spacing is None
    assert "the size of its pixels must be two sizes above 0 mm, but it is unreadable" in picture.notes[0]


def test_broken_files_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = save(tmp_path / "short.dcm", np.zeros((40, 40), np.uint8))
    short.write_bytes(short.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"short\.dcm cannot be read as DICOM"):
        read_picture(short)
    (tmp_path / "text.dcm").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.dcm cannot be read as DICOM .* export it again, uncompressed"):
        read_picture(tmp_path / "text.dcm")
    bare = save(tmp_path / "bare.dcm", GREY, Modality="SR")
    dataset = pydicom.dcmread(bare)
    del dataset.PixelData
    dataset.save_as(bare)
    with pytest.raises(ValueError, match=r"bare\.dcm is a DICOM file without pixels \(SR\); leave it out"):
        read_picture(bare)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ModuleNotFoundError, match=r"short\.dcm needs the package pydicom: .*ultrarefiner\[dicom\]"):
        read_picture(short)


def test_damaged_compression_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    save(path, GREY)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no jpeg \xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"a\.dcm cannot be read as DICOM"):
        read_picture(path)
