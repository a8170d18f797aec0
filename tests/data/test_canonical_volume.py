"""Files in every orientation, against nibabel; crop and back; what cannot be opened is told in a sentence."""

from __future__ import annotations

import dataclasses
import itertools
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

from ultrarefiner.data import (
    CanonicalVolume,
    StoredFrame,
    VolumeCrop,
    closest_canonical,
    normalise_foreground,
    open_volume,
)

SHAPE = (4, 3, 5)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def oriented_affine(axes: tuple[int, ...], signs: tuple[int, ...], zooms: tuple[float, ...]) -> np.ndarray:
    """Stored axis n runs along axis axes[n] of the scanner, in the direction signs[n]."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, (axis, sign, zoom) in enumerate(zip(axes, signs, zooms, strict=True)):
        affine[axis, stored] = sign * zoom
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, unit: str = "mm") -> Path:
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 0.5, 3.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def numbered(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Every voxel another number."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.int16).reshape(shape)


def keep(image: Tensor) -> Tensor:
    return image


def raw(path: Path, **parts: Any) -> CanonicalVolume:
    return open_volume(path, **{"normalise": keep, "crop": None, **parts})


def test_every_orientation_is_what_nibabel_makes_of_it(tmp_path: Path) -> None:
    assert len(ORIENTATIONS) == 48
    for axes, signs in ORIENTATIONS:
        affine = oriented_affine(axes, signs, (2.0, 0.5, 3.0))
        path = write(tmp_path / "scan.nii", numbered(), affine)
        volume = raw(path)
        truth = nibabel.as_closest_canonical(nibabel.load(path))
        expected = np.asarray(truth.dataobj).transpose(2, 1, 0)
        assert np.array_equal(volume.image[0].numpy(), expected)
        assert volume.spacing == pytest.approx(truth.header.get_zooms()[::-1])
        assert np.array_equal(volume.stored(volume.image), numbered())


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.sampled_from([0.3, 1.0, 2.5, 7.0])] * 3),
    st.integers(0, 10_000),
)
def test_indices_and_millimetres_name_the_same_voxel(
    tmp_path_factory: pytest.TempPathFactory, how: Any, shape: Any, zooms: Any, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    affine = oriented_affine(*how, zooms)
    affine[:3, :3] = np.linalg.qr(np.eye(3) + 0.15 * draw.standard_normal((3, 3)))[0] @ affine[:3, :3]  # oblique
    path = write(tmp_path_factory.mktemp("scan") / "scan.nii.gz", numbered(shape), affine)
    volume = raw(path)
    source = nibabel.load(path)
    canonical = nibabel.as_closest_canonical(source)
    assert np.array_equal(volume.image[0].numpy(), np.asarray(canonical.dataobj).transpose(2, 1, 0))
    for voxel in draw.integers(0, shape, (5, 3)).tolist():
        z, y, x = volume.enter(voxel)
        assert volume.leave((z, y, x)) == tuple(voxel)
        assert volume.image[0, z, y, x] == numbered(shape)[tuple(voxel)]
        place = apply_affine(source.affine, voxel)
        assert np.allclose(apply_affine(canonical.affine, (x, y, z)), place, atol=1e-4)
        assert volume.place_of(voxel) == pytest.approx(tuple(place), abs=1e-4)
        beside = apply_affine(source.affine, np.array(voxel) + draw.uniform(-0.49, 0.49, 3))
        assert volume.voxel_at(place.tolist()) == volume.voxel_at(beside.tolist()) == tuple(voxel)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 10_000))
def test_a_crop_there_and_back(tmp_path_factory: pytest.TempPathFactory, how: Any, seed: int) -> None:
    draw = np.random.default_rng(seed)
    first = draw.integers(0, SHAPE)
    last = draw.integers(first, SHAPE)
    inside = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    voxels = np.zeros(SHAPE, np.int16)
    voxels[inside] = numbered()[inside]
    path = write(tmp_path_factory.mktemp("scan") / "scan.nii.gz", voxels, oriented_affine(*how, (1.0, 2.0, 3.0)))
    volume = open_volume(path, normalise=keep)
    assert volume.image.numel() == voxels[inside].size
    assert np.array_equal(volume.stored(volume.image), voxels)
    outside = volume.stored(volume.image, fill=-1.0)
    assert (outside == -1).sum() == voxels.size - voxels[inside].size
    assert np.array_equal(outside[inside], voxels[inside])
    box = (*(int(one) for one in first), *(int(one) for one in last))
    assert volume.enter_box(box) == (0, 0, 0, *(side - 1 for side in volume.crop.size))
    assert volume.leave_box(volume.enter_box(box)) == box
    whole = (0, 0, 0, *(side - 1 for side in SHAPE))
    assert volume.enter_box(whole) == volume.enter_box(box)  # what was cut away is left out
    seen = torch.zeros(volume.crop.size)
    low, high = draw.integers(0, SHAPE, (2, 3))
    low, high = np.minimum(low, high), np.maximum(low, high)
    shared = np.zeros(SHAPE)
    shared[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = 1
    shared *= voxels > 0
    if not shared.any():
        with pytest.raises(ValueError, match=r"box \(.* lies in the background that was cut away"):
            volume.enter_box((*low.tolist(), *high.tolist()))
        return
    z0, y0, x0, z1, y1, x1 = volume.enter_box((*low.tolist(), *high.tolist()))
    seen[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = 1
    assert np.array_equal(volume.stored(seen[None]), shared)


def test_the_network_sees_normalised_foreground(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(100, 20, (9, 8, 7)).astype(np.float32)
    voxels[:3] = voxels[:, :, 5:] = -1000
    path = write(tmp_path / "scan.nii.gz", voxels, np.diag([-1.0, -1.0, 4.0, 1.0]))
    volume = open_volume(path)
    expected = normalise_foreground(torch.from_numpy(voxels[::-1, ::-1].transpose(2, 1, 0).copy())[None])
    assert volume.image.shape == (1, 5, 8, 6)
    assert torch.equal(volume.image, expected[:, :5, :, :6])
    assert volume.spacing == (4.0, 1.0, 1.0)
    assert volume.image.untyped_storage().nbytes() == volume.image.numel() * 4  # the rest is not kept
    assert torch.equal(open_volume(path, crop=None).image, expected)


def test_parts_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.nii.gz", numbered())
    crop = VolumeCrop((1, 0, 0), (3, 2, 2), (5, 3, 4))
    volume = open_volume(path, normalise=lambda image: image / 100, crop=lambda image: crop)
    assert torch.equal(volume.image[0], torch.from_numpy(numbered().T[1:3, :2, :2] / np.float32(100)))
    assert raw(path, read=lambda path: numbered() * 2).image.max() == 120


@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 6, 5), (6, 1, 5), (1, 1, 1)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1)])
def test_a_thin_or_constant_volume(tmp_path: Path, shape: Any, signs: Any) -> None:
    affine = oriented_affine((2, 0, 1), signs, (1.0, 1.0, 9.0))
    volume = raw(write(tmp_path / "scan.nii.gz", numbered(shape), affine))
    assert np.array_equal(volume.stored(volume.image), numbered(shape))
    constant = open_volume(write(tmp_path / "flat.nii.gz", np.full(shape, 7, np.int16), affine))
    assert constant.stored(constant.image).shape == shape
    assert not constant.image.any()


def test_a_picture_and_a_volume_of_one_time_point(tmp_path: Path) -> None:
    picture = raw(write(tmp_path / "picture.nii.gz", numbered((4, 3))))
    assert picture.stored(picture.image).shape == (4, 3, 1)
    assert np.array_equal(picture.stored(picture.image)[..., 0], numbered((4, 3)))
    path = write(tmp_path / "once.nii.gz", numbered()[..., None])
    once = raw(path)
    once.write(tmp_path / "mask.nii.gz", once.image > 30)
    written = nibabel.load(tmp_path / "mask.nii.gz")
    assert written.shape == (*SHAPE, 1)
    assert np.array_equal(np.asarray(written.dataobj), numbered()[..., None] > 30)


@pytest.mark.parametrize(("unit", "size"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_places_are_in_mm_whatever_the_file_counts_in(tmp_path: Path, unit: str, size: float) -> None:
    affine = oriented_affine((0, 1, 2), (1, -1, 1), (1.5, 0.75, 2.0)) / size
    affine[3, 3] = 1
    volume = raw(write(tmp_path / "scan.nii.gz", numbered(), affine, unit))
    assert volume.spacing == pytest.approx((2.0, 0.75, 1.5))
    assert volume.place_of((1, 2, 3)) == pytest.approx((-30.0, 10.75, 13.0))
    assert volume.voxel_at((-30.0, 10.75, 13.0)) == (1, 2, 3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_mask_lies_where_the_scan_does(tmp_path: Path, suffix: str) -> None:
    affine = oriented_affine((1, 2, 0), (-1, 1, -1), (1.0, 2.0, 3.0))
    path = write(tmp_path / f"scan{suffix}", numbered(), affine)
    before = path.read_bytes()
    volume = open_volume(path, normalise=keep, crop=lambda image: VolumeCrop((0, 1, 1), (2, 3, 5), (3, 4, 5)))
    volume.write(tmp_path / "new" / "mask.nii.gz", volume.image % 2 == 0)
    found, scan = nibabel.load(tmp_path / "new" / "mask.nii.gz"), nibabel.load(path)
    assert np.array_equal(found.affine, scan.affine)
    assert [int(found.header[name]) for name in ("sform_code", "qform_code")] == [
        int(scan.header[name]) for name in ("sform_code", "qform_code")
    ]
    kept = volume.stored(torch.ones_like(volume.image)) > 0
    assert np.array_equal(np.asarray(found.dataobj), (numbered() % 2 == 0) & kept)
    assert found.get_data_dtype() == np.uint8
    assert path.read_bytes() == before


def test_where_a_mask_must_not_go(tmp_path: Path) -> None:
    volume = raw(write(tmp_path / "scan.nii.gz", numbered()))
    with pytest.raises(ValueError, match=r"path must end in \.nii\.gz, .*mask\.nii; rename"):
        volume.write(tmp_path / "mask.nii", volume.image > 0)
    with pytest.raises(ValueError, match="path must not be the volume itself"):
        volume.write(tmp_path / "new" / ".." / "scan.nii.gz", volume.image > 0)
    with pytest.raises(ValueError, match="it belongs to another box"):
        volume.write(tmp_path / "mask.nii.gz", volume.image[:, 1:] > 0)


@pytest.mark.parametrize("voxel", [(4, 0, 0), (0, -1, 0), (0, 0), (0.0, 0, 0), "abc"])
def test_no_voxel(tmp_path: Path, unhooked: None, voxel: Any) -> None:
    with pytest.raises(ValueError, match=r"voxel must be three whole numbers, .* of the file's \(4, 3, 5\), but it is"):
        raw(write(tmp_path / "scan.nii.gz", numbered())).enter(voxel)


@pytest.mark.parametrize("box", [(0, 0, 0, 4, 2, 4), (2, 0, 0, 1, 2, 4), (0, 0, 0, 3, 2), (-1, 0, 0, 3, 2, 4)])
def test_no_box(tmp_path: Path, box: Any) -> None:
    with pytest.raises(ValueError, match=r"box must be six whole numbers, .* but it is .*; the last is at most"):
        raw(write(tmp_path / "scan.nii.gz", numbered())).enter_box(box)


def test_no_place(tmp_path: Path) -> None:
    volume = raw(write(tmp_path / "scan.nii.gz", numbered()))  # its affine is diag(2, 0.5, 3)
    assert volume.voxel_at((6.9, 1.2, 13.4)) == (3, 2, 4)
    message = (
        r"whose first and last voxel span \(0\.0, 0\.0, 0\.0\) to \(6\.0, 1\.0, 12\.0\) mm, but it is \(7\.1, .*DICOM"
    )
    with pytest.raises(ValueError, match=message):
        volume.voxel_at((7.1, 0.0, 0.0))
    for place in ((1.0, 2.0), (1.0, 2.0, float("nan"))):
        with pytest.raises(ValueError, match="place must be three finite numbers"):
            volume.voxel_at(place)


def test_a_voxel_that_was_cut_away(tmp_path: Path) -> None:
    voxels = np.zeros((6, 6, 6), np.int16)
    voxels[1:4, 2, 3:5] = 9
    volume = open_volume(write(tmp_path / "scan.nii.gz", voxels, np.diag([-1.0, -1.0, 1.0, 1.0])))
    message = r"voxel \(0, 2, 3\) of .* was cut away, .* voxels 1 to 3, 2 to 2 and 3 to 4 were kept: open_volume\("
    with pytest.raises(ValueError, match=message):
        volume.enter((0, 2, 3))
    assert volume.enter((1, 2, 3)) == (0, 0, 2)


def test_nan_is_refused_or_read_away(tmp_path: Path) -> None:
    voxels = numbered().astype(np.float32)
    voxels[0, 0, 0] = np.nan
    path = write(tmp_path / "scan.nii.gz", voxels)
    with pytest.raises(ValueError, match="1 voxels that are NaN or infinite; replace them"):
        open_volume(path)
    read = open_volume(path, crop=None, read=lambda path: np.nan_to_num(nibabel.load(path).get_fdata()))
    assert read.image.isfinite().all()
    with pytest.raises(ValueError, match=r"NaN or infinite\. Replace them"):
        open_volume(path, read=lambda path: nibabel.load(path).get_fdata())


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no volume"):
        open_volume(tmp_path / "none.nii.gz")
    with pytest.raises(ValueError, match=r"has the shape \(4, 3, 5, 2\), a volume of three axes is expected"):
        open_volume(write(tmp_path / "film.nii.gz", np.zeros((*SHAPE, 2), np.int16)))
    path = write(tmp_path / "scan.nii.gz", numbered())
    with pytest.raises(ValueError, match=r"read must give the voxels of .* as stored, \(4, 3, 5\), but it gave \(5, 3"):
        open_volume(path, read=lambda path: numbered().T)
    with pytest.raises(ValueError, match=r"normalise must keep the shape \(1, 5, 3, 4\), but it answered \(1, 4, 3, 4"):
        open_volume(path, normalise=lambda image: image[:, 1:])


@pytest.mark.parametrize("column", [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0)])
def test_an_affine_that_orients_nothing(tmp_path: Path, column: Any) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 1] = column
    with pytest.raises(ValueError, match="affine must give every voxel a place of its own"):
        closest_canonical(SHAPE, affine)
    image = nibabel.Nifti1Image(numbered(), np.eye(4))
    image.header.set_sform(affine, code=2)
    path = tmp_path / "scan.nii"
    path.write_bytes(nibabel.Nifti1Image(numbered(), None, image.header).to_bytes())
    with pytest.raises(ValueError, match=r"scan\.nii cannot be oriented: affine must give"):
        open_volume(path)


def test_axes_are_named_once() -> None:
    with pytest.raises(ValueError, match=r"axes must be 0, 1 and 2 in some order, got \(0, 0, 2\)"):
        StoredFrame(SHAPE, (0, 0, 2), (False, False, False))
    frame = closest_canonical(SHAPE, np.eye(4))
    assert frame == StoredFrame(SHAPE, (2, 1, 0), (False, False, False))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.axes = (0, 1, 2)  # type: ignore[misc] # that it is refused is the point
