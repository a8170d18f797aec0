"""NIfTI volumes as cases, and the micro-ultrasound set."""

from __future__ import annotations

import gzip
import pickle
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti import SPACING, write_micro_ultrasound, write_volume
from torch.utils.data import DataLoader

from ultrarefiner.data import Cases, FittedCases, MicroUltrasound, VolumeFiles, VolumeSlices, collate, group_folds
from ultrarefiner.data import volumes as volumes_module
from ultrarefiner.data.nifti import read_header, read_voxels, write_mask


def _numbers(shape: tuple[int, int, int] = (7, 5, 3)) -> np.ndarray:
    """All different."""
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


def _files(image: Path, mask: Path | None = None, other: Path | None = None, name: str = "p1") -> VolumeFiles:
    return VolumeFiles(name, image, mask, other, name)


def _one(path: Path, voxels: np.ndarray, **options) -> VolumeSlices:
    spacing = options.pop("spacing", SPACING)
    return VolumeSlices([_files(write_volume(path, voxels, spacing=spacing))], **options)


def test_a_slice_is_the_stored_one_with_rows_along_the_second_axis(tmp_path: Path) -> None:
    voxels = _numbers()
    dataset = _one(tmp_path / "a.nii.gz", voxels, intensity_range=(0.0, 254.0))
    assert isinstance(dataset, Cases)
    assert dataset.names == ("p1/slice_000", "p1/slice_001", "p1/slice_002")
    case = dataset[2]
    assert case.image.shape == (1, 5, 7)
    for column, row in ((0, 0), (6, 0), (0, 4), (3, 2)):
        assert case.image[0, row, column].item() == pytest.approx(voxels[column, row, 2] / 254)
    assert (case.name, case.label, case.group, case.other_mask) == ("p1/slice_002", "unknown", "p1", None)
    assert case.mask.sum() == 0
    volume = dataset.volume(2)
    assert (volume.name, volume.slices, volume.cases) == ("p1", (0, 1, 2), (0, 1, 2))
    assert volume.spacing == (0.2, 0.3)
    assert volume.size == (5, 7)
    assert volume.voxel_ml == pytest.approx(0.06 / 1000)
    assert np.allclose(volume.affine, np.diag([*SPACING, 1.0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_those_of_simpleitk(tmp_path: Path, axis: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = write_volume(tmp_path / "a.nii.gz", _numbers())
    dataset = VolumeSlices([_files(path)], axis=axis, intensity_range=(0.0, 255.0))
    image = sitk.ReadImage(str(path))
    expected = np.moveaxis(sitk.GetArrayFromImage(image), 2 - axis, 0)
    assert len(dataset) == len(expected)
    for case, array in zip((dataset[index] for index in range(len(dataset))), expected, strict=True):
        assert torch.equal((case.image[0] * 255).round(), torch.from_numpy(array.astype(np.float32)))
    assert dataset.volume(0).voxel_size == pytest.approx(image.GetSpacing())
    assert dataset.volume(0).size == expected.shape[1:]
    row, column = (size for place, size in enumerate(image.GetSpacing()[::-1]) if place != 2 - axis)
    assert dataset.volume(0).spacing == pytest.approx((row, column))


@settings(deadline=None, max_examples=15)
@given(axis=st.integers(0, 2), data=st.data())
def test_masks_go_back_to_the_stored_voxels(tmp_path_factory, axis: int, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    truth = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) > 0.5
    path = write_volume(tmp_path_factory.mktemp("volume") / "mask.nii", truth.astype(np.uint8))
    dataset = VolumeSlices([_files(path, path)], axis=axis)
    masks = torch.stack([dataset[index].mask[0] for index in range(len(dataset))]) > 0
    assert np.array_equal(dataset.volume(0).voxels(masks), truth)


def test_labels_above_zero_are_lesion_and_the_second_annotation_comes_along(tmp_path: Path) -> None:
    labels = np.zeros((4, 3, 2), dtype=np.int16)
    labels[1, 2, 0], labels[2, 0, 1], labels[3, 1, 1] = 1, 7, -1
    image, mask = (write_volume(tmp_path / f"{n}.nii.gz", v) for n, v in (("a", _numbers(labels.shape)), ("m", labels)))
    other = write_volume(tmp_path / "o.nii.gz", np.ones((4, 3, 2), dtype=np.float32))
    dataset = VolumeSlices([_files(image, mask, other)])
    assert dataset[0].mask[0].nonzero().tolist() == [[2, 1]]
    assert dataset[1].mask[0].nonzero().tolist() == [[0, 2]]
    assert dataset[1].mask.max() == 1
    assert dataset[0].other_mask is not None
    assert dataset[0].other_mask.mean() == 1


def test_intensities_are_scaled_and_clipped(tmp_path: Path) -> None:
    voxels = np.array([0, 127, 254, 255], dtype=np.uint8).reshape(4, 1, 1)
    published = _one(tmp_path / "a.nii.gz", voxels, intensity_range=(0.0, 254.0))
    assert published[0].image.flatten().tolist() == [0, 0.5, 1, 1]
    own = _one(tmp_path / "b.nii.gz", voxels.astype(np.int16) - 100)
    assert own[0].image.flatten().tolist() == pytest.approx([0, 127 / 255, 254 / 255, 1])
    assert _one(tmp_path / "c.nii.gz", np.full((2, 2, 2), 9, np.uint8))[0].image.abs().sum() == 0
    too_bright = _one(tmp_path / "d.nii.gz", voxels, intensity_range=(0.0, 200.0))
    with pytest.raises(ValueError, match=r"d\.nii\.gz has intensities from 0 to 255, outside intensity_range \(0, 200"):
        too_bright[0]
    too_dark = _one(tmp_path / "e.nii.gz", voxels.astype(np.int16) - 9, intensity_range=(0.0, 255.0))
    with pytest.raises(ValueError, match=r"intensities from -9 to 246"):
        too_dark[0]


def test_the_headers_slope_and_unit_count(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.array([[[2]], [[4]]], dtype=np.int16), np.diag([0.0002, 0.0003, 0.001, 1]))
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "a.nii.gz")
    assert read_voxels(tmp_path / "a.nii.gz").flatten().tolist() == [11, 12]
    assert read_header(tmp_path / "a.nii.gz").spacing == pytest.approx((0.2, 0.3, 1.0))
    write_mask(tmp_path / "mask.nii.gz", np.array([[[True]], [[False]]]), like=tmp_path / "a.nii.gz")
    assert read_voxels(tmp_path / "mask.nii.gz").flatten().tolist() == [1, 0]


def test_big_endian_files_and_the_second_version_are_read(tmp_path: Path) -> None:
    voxels = _numbers((4, 3, 2)).astype(">i2")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.Nifti1Image(voxels, np.diag([*SPACING, 1.0]), header).to_filename(tmp_path / "big.nii")
    nibabel.Nifti2Image(voxels.astype(np.int16), np.diag([*SPACING, 1.0])).to_filename(tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        assert np.array_equal(read_voxels(tmp_path / name), voxels)
        assert read_header(tmp_path / name).spacing == SPACING
        case = VolumeSlices([_files(tmp_path / name)], intensity_range=(0.0, 23.0))[1]
        assert torch.equal((case.image[0] * 23).round(), torch.from_numpy(voxels[:, :, 1].T.astype(np.float32)))


def test_a_volume_is_read_once_while_its_slices_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(path: Path) -> np.ndarray:
        read.append(path.name)
        return read_voxels(path)

    monkeypatch.setattr(volumes_module, "read_voxels", counting)
    paths = [write_volume(tmp_path / f"{n}.nii.gz", _numbers()) for n in "ab"]
    dataset = VolumeSlices([_files(path, name=path.name) for path in paths])
    assert read == []
    for index in (0, 1, 2, 3, 5):
        dataset[index]
    assert read == ["a.nii.gz", "b.nii.gz"]
    dataset[0]
    assert len(read) == 3
    fitted = FittedCases(dataset, 16)
    assert fitted.fill(progress=False) is fitted
    assert len(read) == 4  # a is still there
    for index in (5, 0, 4, 1):
        assert fitted[index].name == dataset.names[index]
    assert len(read) == 4


def test_it_goes_to_workers_without_its_voxels(tmp_path: Path) -> None:
    dataset = MicroUltrasound(write_micro_ultrasound(tmp_path, slices=3))
    before = dataset[0]
    assert len(pickle.dumps(dataset)) < 20_000
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0].image, before.image)
    loader = DataLoader(FittedCases(dataset, 24), batch_size=3, num_workers=1, collate_fn=collate)
    batches = list(loader)
    assert [name for batch in batches for name in batch.names] == list(dataset.names)
    assert batches[0].other_masks is not None


def test_a_subset_keeps_its_volumes_and_their_slices(tmp_path: Path) -> None:
    dataset = MicroUltrasound(write_micro_ultrasound(tmp_path), split="test")
    names = dataset.names
    chosen = dataset.subset([names[6], names[1], names[2]])
    assert chosen.names == (names[1], names[2], names[6])
    assert [(volume.slices, volume.cases) for volume in chosen.volumes] == [((1, 2), (0, 1)), ((2,), (2,))]
    assert torch.equal(chosen[2].image, dataset[6].image)
    assert chosen.unseen
    with pytest.raises(ValueError, match=r"1 of the 1 wanted names are not in the data set, the first is 'x'"):
        dataset.subset(["x"])
    with pytest.raises(ValueError, match=r"a subset needs at least one name, none was given"):
        dataset.subset([])


def test_the_micro_ultrasound_set(tmp_path: Path) -> None:
    root = write_micro_ultrasound(tmp_path / "Micro_Ultrasound_Prostate_Segmentation_Dataset", volumes=11)
    train, test = MicroUltrasound(root), MicroUltrasound(tmp_path, split="test")
    assert [volume.name for volume in train.volumes][-2:] == ["microUS_train_10", "microUS_train_11"]
    assert len(train) == 44
    assert len(test) == 8
    assert (train.unseen, test.unseen) == (False, True)
    case = train[41]
    stored = nibabel.load(root / "train" / "micro_ultrasound_scans" / "microUS_train_11.nii.gz").get_fdata()
    assert torch.allclose(case.image[0], torch.from_numpy(stored[:, :, 1].T).float() / 254)
    assert case.other_mask is not None
    overlap = 2 * (case.mask * case.other_mask).sum() / (case.mask.sum() + case.other_mask.sum())
    assert 0.6 < overlap < 0.99
    assert train[40].mask.sum() == 0
    assert test[1].other_mask is None
    assert train.volume(0).spacing == (0.2, 0.3)
    assert VolumeFiles("a", Path("a"), None, None, "a").label == train.labels[0] == "unknown"


def test_a_patient_never_stands_in_two_folds(tmp_path: Path) -> None:
    dataset = MicroUltrasound(write_micro_ultrasound(tmp_path, volumes=6))
    folds = group_folds(dataset, folds=3)
    for fold in range(3):
        training, validation = dataset.subset(folds.training(fold)), dataset.subset(folds.validation(fold))
        assert not set(training.groups) & set(validation.groups)
        assert len(training) + len(validation) == len(dataset)
        assert all(len(volume.slices) == 4 for volume in validation.volumes)
    with pytest.raises(ValueError, match="kept as an unseen test set"):
        group_folds(MicroUltrasound(tmp_path, split="test"), folds=2)


def test_a_set_that_is_not_whole_is_told_where(tmp_path: Path, unhooked: None) -> None:
    root = write_micro_ultrasound(tmp_path)
    with pytest.raises(ValueError, match=r"split must be 'train' or 'test', got 'val'"):
        MicroUltrasound(root, split="val")  # type: ignore[arg-type] # on purpose
    other = root / "train" / "non_expert_annotations"
    (other / "nonexpert_annotation_train_02.nii.gz").rename(tmp_path / "kept.nii.gz")
    with pytest.raises(
        ValueError, match=r"non_expert_annotations holds 2 .*scans 3; number 2 is not in non_expert_annotations"
    ):
        MicroUltrasound(root)
    shutil.copy(tmp_path / "kept.nii.gz", other / "again_01.nii.gz")
    with pytest.raises(ValueError, match=r"01\.nii\.gz has the number of again_01\.nii\.gz in its name"):
        MicroUltrasound(root)
    (other / "again_01.nii.gz").rename(other / "unnumbered.nii.gz")
    with pytest.raises(ValueError, match=r"unnumbered\.nii\.gz has no number in its name"):
        MicroUltrasound(root)
    shutil.rmtree(other)
    with pytest.raises(FileNotFoundError, match=r"no folder .*non_expert_annotations"):
        MicroUltrasound(root)
    other.mkdir()
    with pytest.raises(ValueError, match=r"non_expert_annotations has no volumes"):
        MicroUltrasound(root)
    with pytest.raises(FileNotFoundError, match=r"no micro-ultrasound set here: expected test in one of"):
        MicroUltrasound(tmp_path / "nowhere", split="test")


def test_damaged_files_get_a_sentence(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    whole = write_volume(tmp_path / "a.nii.gz", generator.integers(0, 255, (30, 20, 10), dtype=np.uint8)).read_bytes()
    path = tmp_path / "b.nii.gz"
    for damaged in (whole[: len(whole) // 2], whole[:-4], whole[:2000] + b"\0\1\2" + whole[2003:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.nii\.gz cannot be read as NIfTI .* truncated, damaged"):
            VolumeSlices([_files(path)])[0]
    for damaged in (b"", b"<html>not found</html>" * 40, whole[:100], gzip.compress(b"x" * 900)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.nii\.gz cannot be read as NIfTI"):
            read_header(path)
    raw = gzip.decompress(whole)
    for length in (len(raw) - 1, 352):
        (tmp_path / "c.nii").write_bytes(raw[:length])
        with pytest.raises(ValueError, match=rf"{length:,} bytes of 6,352 are there"):
            read_voxels(tmp_path / "c.nii")
    (tmp_path / "d.hdr").write_bytes(raw[:344] + b"ni1\0" + raw[348:])
    with pytest.raises(ValueError, match=r"d\.hdr is the header of a pair of files"):
        read_header(tmp_path / "d.hdr")
    with pytest.raises(FileNotFoundError, match=r"there is no volume .*nowhere\.nii"):
        VolumeSlices([_files(tmp_path / "nowhere.nii")])


def test_axes_of_one_entry_are_no_obstacle(tmp_path: Path) -> None:
    voxels = _numbers()
    plain = _one(tmp_path / "plain.nii.gz", voxels)
    longer = _one(tmp_path / "longer.nii.gz", voxels[..., None, None])
    assert len(longer) == len(plain)
    assert torch.equal(longer[1].image, plain[1].image)
    single = _one(tmp_path / "single.nii.gz", voxels[..., 1])
    assert len(single) == 1
    assert single[0].image.shape == plain[1].image.shape
    for dataset in (longer, single):
        mask = dataset.volume(0).voxels(torch.ones(len(dataset), *dataset.volume(0).size, dtype=torch.bool))
        write_mask(tmp_path / "mask.nii.gz", mask, like=dataset.files[0].image)
        assert read_voxels(tmp_path / "mask.nii.gz").shape == dataset.volume(0).shape


def test_volumes_that_cannot_be_used_get_a_sentence(tmp_path: Path) -> None:
    four = write_volume(tmp_path / "four.nii.gz", np.zeros((3, 3, 3, 2), np.uint8))
    with pytest.raises(ValueError, match=r"four\.nii\.gz has the shape \(3, 3, 3, 2\), a volume of three axes"):
        VolumeSlices([_files(four)])
    raw = bytearray(gzip.decompress(write_volume(tmp_path / "a.nii.gz", _numbers()).read_bytes()))
    none = raw.copy()
    none[46:48] = (0).to_bytes(2, "little")
    (tmp_path / "none.nii").write_bytes(none)
    with pytest.raises(ValueError, match=r"none\.nii has the shape \(7, 5, 0\), that is, no slices"):
        VolumeSlices([_files(tmp_path / "none.nii")])
    for value in (0.0, -0.3, float("nan")):
        sized = raw.copy()
        sized[80:84] = np.float32(value).tobytes()
        (tmp_path / "flat.nii").write_bytes(sized)
        with pytest.raises(ValueError, match=r"flat\.nii gives its voxels the sizes \(.*\) mm, three positive ones"):
            VolumeSlices([_files(tmp_path / "flat.nii")])
    holes = np.zeros((3, 3, 3), np.float32)
    holes[1, 1, 1], holes[0, 0, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"holes\.nii\.gz has 2 voxels that are NaN or infinite"):
        _one(tmp_path / "holes.nii.gz", holes)[0]
    with pytest.raises(ValueError, match=r"voxels of the type complex64, grey numbers are expected"):
        _one(tmp_path / "complex.nii.gz", np.zeros((3, 3, 3), np.complex64))[0]


def test_a_mask_must_lie_on_its_image(tmp_path: Path) -> None:
    image = write_volume(tmp_path / "a.nii.gz", _numbers())
    with pytest.raises(ValueError, match=r"m\.nii\.gz has the shape \(5, 7, 3\), but its image .* has \(7, 5"):
        VolumeSlices([_files(image, write_volume(tmp_path / "m.nii.gz", _numbers((5, 7, 3))))])
    moved = np.diag([*SPACING, 1.0])
    moved[0, 3] = 0.01
    near = write_volume(tmp_path / "near.nii.gz", _numbers(), affine=moved)
    assert len(VolumeSlices([_files(image, near)])) == 3
    with pytest.raises(ValueError, match=r"near\.nii\.gz lies up to 0\.01 units of length from its image"):
        VolumeSlices([_files(image, near)], affine_tolerance=0.01)
    other = write_volume(tmp_path / "other.nii.gz", _numbers(), spacing=(0.3, 0.25, 1.0))
    with pytest.raises(ValueError, match=r"other\.nii\.gz lies up to 0\.2 units .* pass affine_tolerance=None"):
        VolumeSlices([_files(image, None, other)])
    assert len(VolumeSlices([_files(image, None, other)], affine_tolerance=None)) == 3


def test_wrong_options_get_a_sentence(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii.gz", _numbers())
    with pytest.raises(ValueError, match=r"at least one volume, none was given"):
        VolumeSlices([])
    with pytest.raises(ValueError, match=r"must be unique, but 2 are called 'p1'"):
        VolumeSlices([_files(path), _files(path)])
    with pytest.raises(ValueError, match=r"axis must be 0, 1 or 2, got 3"):
        VolumeSlices([_files(path)], axis=3)
    for wrong in ((1.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"intensity_range must be two finite numbers, the lower first"):
            VolumeSlices([_files(path)], intensity_range=wrong)


def test_a_written_mask_has_the_scans_geometry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    affine = np.array([[0.0, -0.2, 0, 5], [0.3, 0, 0, -7], [0, 0, 1.0, 2], [0, 0, 0, 1]])
    scan = write_volume(tmp_path / "scan.nii.gz", _numbers().astype(np.float32) / 3, affine=affine)
    mask = _numbers() % 2 == 0
    write_mask(tmp_path / "new" / "mask.nii.gz", mask, like=scan)
    written = nibabel.load(tmp_path / "new" / "mask.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8
    assert np.allclose(written.affine, affine)
    assert written.header.get_xyzt_units() == nibabel.load(scan).header.get_xyzt_units()
    for code in ("sform_code", "qform_code"):
        assert written.header[code] == nibabel.load(scan).header[code]
    first = (tmp_path / "new" / "mask.nii.gz").read_bytes()
    write_mask(tmp_path / "new" / "mask.nii.gz", mask, like=scan)
    assert (tmp_path / "new" / "mask.nii.gz").read_bytes() == first
    with pytest.raises(ValueError, match=r"mask must have the shape of .*scan\.nii\.gz, \(7, 5, 3\), got \(3, 5, 7\)"):
        write_mask(tmp_path / "x.nii.gz", mask.T, like=scan)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_mask(tmp_path / "new" / "mask.nii.gz", ~mask, like=scan)
    assert (tmp_path / "new" / "mask.nii.gz").read_bytes() == first
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_without_nibabel_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_volume(tmp_path / "a.nii.gz", _numbers())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ModuleNotFoundError, match=r"a\.nii\.gz needs .*pip install 'ultrarefiner\[volumes\]'"):
        VolumeSlices([_files(path)])
