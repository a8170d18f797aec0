from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ultrarefiner.data.images import picture_size, read_colours, read_image, read_labels, read_mask, read_rgb

GREY = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)


def _save(tmp_path: Path, picture: Image.Image, name: str = "picture.png", **options: object) -> Path:
    path = tmp_path / name
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_eight_bits_are_divided_by_255(tmp_path: Path, ending: str) -> None:
    image = read_image(_save(tmp_path, Image.fromarray(GREY), f"a.{ending}"))
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(GREY).float()[None] / 255)


def test_sixteen_bits_are_divided_by_65535_and_not_stretched(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 257], [4369, 30000, 40000]], dtype=np.uint16)
    for ending in ("png", "tif"):
        image = read_image(_save(tmp_path, Image.fromarray(stored), f"a.{ending}"))
        assert torch.allclose(image[0], torch.from_numpy(stored.astype(np.float32)) / 65535, atol=1e-7)
        assert image.max() < 0.62


def test_colours_become_their_luminance(tmp_path: Path) -> None:
    colours = np.zeros((1, 4, 3), dtype=np.uint8)
    colours[0, 0], colours[0, 1], colours[0, 2], colours[0, 3] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)
    expected = torch.tensor([[0.299, 0.587, 0.114, 9 / 255]])
    assert torch.allclose(read_image(_save(tmp_path, Image.fromarray(colours)))[0], expected, atol=1e-6)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="L").convert("P")
    picture = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    picture.putpalette([0, 0, 0, 255, 255, 255, 51, 51, 51] + [0] * 759)
    path = _save(tmp_path, picture)
    assert Image.open(path).mode == "P"
    assert torch.allclose(read_image(path)[0, 0], torch.tensor([0.0, 1.0, 0.2]))
    assert read_mask(path)[0, 0].tolist() == [0, 1, 0]


def test_a_transparent_palette_entry_is_laid_over_black(tmp_path: Path) -> None:
    picture = Image.frombytes("P", (2, 1), bytes([0, 1]))
    picture.putpalette([255, 255, 255, 255, 255, 255] + [0] * 762)
    path = _save(tmp_path, picture, transparency=0)
    assert read_image(path)[0, 0].tolist() == [0, 1]


def test_alpha_is_laid_over_black(tmp_path: Path) -> None:
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (3, 2), 255)])
    assert torch.equal(read_image(_save(tmp_path, grey, "la.png"))[0], torch.from_numpy(GREY).float() / 255)
    half = Image.new("RGBA", (2, 2), (255, 255, 255, 51))
    assert torch.allclose(read_image(_save(tmp_path, half, "rgba.png")), torch.full((1, 2, 2), 0.2))


def test_one_bit_and_floating_point(tmp_path: Path) -> None:
    bits = np.array([[True, False, True]])
    path = _save(tmp_path, Image.fromarray(bits))
    assert Image.open(path).mode == "1"
    assert read_image(path)[0, 0].tolist() == [1, 0, 1]
    assert read_mask(path)[0, 0].tolist() == [1, 0, 1]
    soft = np.array([[0.0, 0.25, 0.75]], dtype=np.float32)
    path = _save(tmp_path, Image.fromarray(soft), "soft.tif")
    assert torch.equal(read_image(path)[0], torch.from_numpy(soft))
    assert read_mask(path)[0, 0].tolist() == [0, 0, 1]


def test_a_jpeg_in_cmyk_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "a.jpg")
    assert read_image(path).min() > 0.98


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), deep=st.booleans())
def test_masks_are_cut_at_half_of_the_range(tmp_path: Path, data: st.DataObject, deep: bool) -> None:
    largest = 65535 if deep else 255
    numbers = [*data.draw(st.lists(st.integers(0, largest), min_size=1, max_size=12)), largest]
    stored = np.array([numbers], dtype=np.uint16 if deep else np.uint8)
    mask = read_mask(_save(tmp_path, Image.fromarray(stored)))
    assert mask.dtype == torch.float32
    assert mask[0, 0].tolist() == [float(number > largest // 2) for number in numbers]


def test_an_antialiased_edge_does_not_grow(tmp_path: Path) -> None:
    disc = Image.new("L", (400, 400))
    y, x = np.mgrid[:400, :400]
    disc = Image.fromarray((((x - 200) ** 2 + (y - 200) ** 2 < 100**2) * 255).astype(np.uint8))
    small = disc.resize((100, 100), Image.Resampling.BILINEAR)
    area = read_mask(_save(tmp_path, small)).sum().item()
    assert abs(area - np.pi * 25**2) < 0.01 * np.pi * 25**2
    assert (np.asarray(small) > 0).sum() > 1.05 * area


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_label_map_of_0_and_1_is_a_mask(tmp_path: Path, kind: type) -> None:
    path = _save(tmp_path, Image.fromarray(np.array([[0, 1, 1]], dtype=kind)))
    assert read_mask(path)[0, 0].tolist() == [0, 1, 1]


def test_coloured_masks_are_read_by_their_brightest_channel(tmp_path: Path) -> None:
    colours = np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 128], [90, 90, 90]]], dtype=np.uint8)
    assert read_mask(_save(tmp_path, Image.fromarray(colours)))[0, 0].tolist() == [0, 1, 1, 0]


def test_a_black_mask_is_empty_and_a_white_one_full(tmp_path: Path) -> None:
    assert read_mask(_save(tmp_path, Image.new("L", (3, 2)))).sum() == 0
    assert read_mask(_save(tmp_path, Image.new("L", (3, 2), 255))).sum() == 6


def test_a_mask_of_other_labels_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.fromarray(np.array([[0, 1, 3]], dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"largest number is 3, but a mask has 0 and 255, or 0 and 1"):
        read_mask(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("reader", [read_image, read_mask])
def test_a_truncated_file_is_named(tmp_path: Path, reader: object, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = _save(tmp_path, Image.fromarray(noise), f"whole.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"whole\.\w+ cannot be read as a picture .* download or export it again"):
        reader(path)  # type: ignore[operator] # both readers take a path


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    for content in (b"", b"these are notes"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"notes\.png cannot be read as a picture"):
            read_image(path)
        with pytest.raises(ValueError, match=r"notes\.png cannot be read as a picture"):
            picture_size(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for reader in (read_image, read_mask, picture_size, read_colours):
        with pytest.raises(FileNotFoundError, match=r"there is no picture .*gone\.png; check the path"):
            reader(tmp_path / "gone.png")


def test_several_pictures_in_one_file_are_refused(tmp_path: Path) -> None:
    path = _save(
        tmp_path,
        Image.fromarray(GREY),
        "stack.tif",
        save_all=True,
        append_images=[Image.fromarray(GREY), Image.fromarray(GREY)],
    )
    with pytest.raises(ValueError, match=r"stack\.tif holds 3 pictures, one is expected"):
        read_image(path)


def test_numbers_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.fromarray(np.array([[0.0, 7.5]], dtype=np.float32)), "a.tif")
    with pytest.raises(ValueError, match=r"numbers from 0\.0 to 7\.5, whose range the file does not say"):
        read_image(path)
    path = _save(tmp_path, Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "b.tif")
    with pytest.raises(ValueError, match=r"numbers from 0 to 70000"):
        read_image(path)
    path = _save(tmp_path, Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)), "c.tif")
    with pytest.raises(ValueError, match=r"whose range the file does not say"):
        read_image(path)


def test_the_size_comes_as_height_and_width(tmp_path: Path) -> None:
    assert picture_size(_save(tmp_path, Image.new("RGB", (7, 3)))) == (3, 7)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# How the stored rows and columns become those of the upright picture, by EXIF's definition of its eight numbers.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored[:, ::-1].T,
}


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_and_masks_are_turned_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    stored = np.zeros((48, 32), dtype=np.uint8)
    stored[:16, :16] = 255
    options = {"lossless": True} if ending == "webp" else {}
    path = _save(tmp_path, Image.fromarray(stored), f"a.{ending}", exif=_exif(orientation), **options)
    upright = torch.from_numpy(UPRIGHT[orientation](stored).copy())[None] > 0
    assert torch.equal(read_image(path) > 0.5, upright)
    assert torch.equal(read_mask(path) > 0, upright)
    assert torch.equal(read_rgb(path)[1:2] > 0.5, upright)
    assert picture_size(path) == tuple(upright.shape[1:])
    if ending != "jpg":
        assert torch.equal(read_labels(path) > 0, upright)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_means_nothing_is_none(tmp_path: Path, orientation: int) -> None:
    path = _save(tmp_path, Image.fromarray(GREY), exif=_exif(orientation))
    assert torch.equal(read_image(path)[0], torch.from_numpy(GREY) / 255)
    assert picture_size(path) == GREY.shape


def test_exif_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("L", (16, 8), 255), "a.jpg", exif=b"Exif\0\0this is no EXIF")
    assert read_image(path).shape == (1, 8, 16)
    assert picture_size(path) == (8, 16)
