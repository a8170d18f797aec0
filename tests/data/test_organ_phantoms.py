from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nifti import write_volume
from scipy import ndimage

from ultrarefiner.data import (
    LabelledVolumes,
    OrganCases,
    OrganPhantoms,
    VolumeFiles,
    load_volume,
    normalise_foreground,
)
from ultrarefiner.data.nifti import write_mask
from ultrarefiner.data.organ_imaging import blurred, scan_of, smooth_field

SIZE = (24, 40, 48)


@pytest.fixture(scope="module")
def phantoms() -> OrganPhantoms:
    return OrganPhantoms(12, size=SIZE, seed=5)


def test_case_i_depends_on_seed_and_i_alone(phantoms: OrganPhantoms) -> None:
    third = phantoms[3]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = OrganPhantoms(40, size=SIZE, seed=5).subset(["organ phantom 3 of seed 5", "organ phantom 20 of seed 5"])[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert again.name == third.name == "organ phantom 3 of seed 5"
    assert torch.equal(again.image, third.image)
    assert torch.equal(again.labels, third.labels)
    assert again.spacing == third.spacing
    assert not torch.equal(OrganPhantoms(5, size=SIZE, seed=6)[3].image, third.image)
    assert not torch.equal(phantoms[2].image, third.image)


def test_another_process_draws_the_same() -> None:
    code = (
        "import torch; torch.set_num_threads(2); from ultrarefiner.data import OrganPhantoms;"
        "v = OrganPhantoms(2, size=(16, 32, 32), seed=9)[1];"
        "import hashlib;"
        "print(hashlib.sha256(v.image.numpy().tobytes() + v.labels.numpy().tobytes()).hexdigest(), v.spacing)"
    )
    volume = OrganPhantoms(2, size=(16, 32, 32), seed=9)[1]
    mine = hashlib.sha256(volume.image.numpy().tobytes() + volume.labels.numpy().tobytes()).hexdigest()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"{mine} {volume.spacing}"


def test_volumes_are_whole(phantoms: OrganPhantoms) -> None:
    assert isinstance(phantoms, LabelledVolumes)
    for volume in (phantoms[i] for i in range(len(phantoms))):
        assert volume.image.shape == (1, *SIZE)
        assert volume.labels.shape == SIZE
        assert volume.image.dtype == torch.float32
        assert volume.image.isfinite().all()
        assert -1024 <= volume.image.min() < -900, "air"
        assert 60 < volume.image.max() < 400
        assert (torch.bincount(volume.labels.flatten(), minlength=6) >= 12).all()
        assert len(volume.labels.unique()) == 6
        z, y, x = volume.spacing
        assert y == x > 0
        assert z >= y
        assert np.array_equal(volume.affine, np.diag([x, y, z, 1.0]))


def test_some_slices_are_thick(phantoms: OrganPhantoms) -> None:
    ratios = [phantoms[i].spacing[0] / phantoms[i].spacing[1] for i in range(len(phantoms))]
    assert 2 <= sum(ratio > 1.4 for ratio in ratios) <= 10
    assert 2 <= sum(ratio == 1 for ratio in ratios) <= 10


def test_a_box_does_not_tell_the_organ(phantoms: OrganPhantoms) -> None:
    """Neighbours touch, differ by little, and lie in each other's boxes."""
    touching, alike, shared = 0, 0, 0
    for volume in (phantoms[i] for i in range(len(phantoms))):
        labels, image = volume.labels.numpy(), volume.image[0].numpy()
        lobed, neighbour = labels == 1, labels == 2
        touching += bool((ndimage.binary_dilation(lobed) & neighbour).any())
        inner = [ndimage.binary_erosion(mask) for mask in (lobed, neighbour)]
        means = [image[mask].mean() for mask in inner if mask.any()]
        alike += len(means) == 2 and abs(means[0] - means[1]) < 40
        (box,) = ndimage.find_objects(lobed.astype(int))
        # Other tissue of the same brightness in the organ's box.
        bright = (image[box] > image[lobed].mean() - 40) & ~lobed[box]
        shared += bright.sum() > 0.05 * lobed.sum()
    assert touching >= 11
    assert alike >= 11
    assert shared >= 11


def test_organs_are_smooth_and_mostly_in_one_piece(phantoms: OrganPhantoms) -> None:
    for volume in (phantoms[i] for i in range(6)):
        for number in (1, 2, 3):
            mask = (volume.labels == number).numpy()
            parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
            largest = np.bincount(parts.ravel())[1:].max()
            assert largest > 0.6 * mask.sum()


def test_the_scan_of_a_flat_map_is_bias_and_noise() -> None:
    flat = torch.full((20, 40, 40), 40.0)
    scans = torch.stack([scan_of(flat, torch.Generator().manual_seed(seed))[0] for seed in range(6)])
    rough = scans - torch.stack([blurred(scan, (3.0, 3.0, 3.0)) for scan in scans])
    assert 6 < rough.std() < 24, "the noise's 8 to 22 HU"
    centred = rough - rough.mean()
    assert (centred[..., 1:] * centred[..., :-1]).mean() > 0.2 * centred.var(), "correlated in the plane"
    smooth = torch.stack([blurred(scan, (4.0, 4.0, 4.0)) for scan in scans])
    assert 5 < smooth.std() < 60, "three per cent of 1040"


def test_blur_is_a_gaussian_and_borders_are_partial() -> None:
    step = torch.zeros(8, 8, 16)
    step[..., 8:] = 100.0
    found = blurred(step, (0.0, 0.0, 0.6))
    expected = ndimage.gaussian_filter1d(step.numpy(), 0.6, axis=2, mode="nearest", truncate=2.5 / 0.6 * 0.999)
    assert np.allclose(found.numpy(), expected, atol=0.6)
    assert 0 < found[0, 0, 7] < 50 < found[0, 0, 8] < 100
    assert torch.equal(blurred(step, (0.0, 0.1, 0.0)), step)
    thick = scan_of(step.transpose(0, 2), torch.Generator().manual_seed(0), thickness=4.0)
    thin = scan_of(step.transpose(0, 2), torch.Generator().manual_seed(0), thickness=1.0)
    assert (thick[0, 7] - thick[0, 6]).mean().abs() < (thin[0, 7] - thin[0, 6]).mean().abs()


def test_the_field_is_smooth() -> None:
    field = smooth_field((3, 3, 3), (16, 16, 16), torch.Generator().manual_seed(0))
    assert field.diff(dim=0).abs().max() < 0.5 * field.abs().max()


def test_the_object_stands_out_after_normalisation(phantoms: OrganPhantoms) -> None:
    volume = phantoms[0]
    image = normalise_foreground(volume.image)
    assert image.min() == 0
    assert image.max() == 1
    assert image[0][volume.labels > 0].mean() > image[0][volume.labels == 0].mean() + 0.05


def test_wrong_numbers_get_a_sentence() -> None:
    for count, size in ((0, (32, 32, 32)), (3, (15, 32, 32))):
        with pytest.raises(ValueError, match=r"count of at least 1 and three sides of at least 16 voxels, got"):
            OrganPhantoms(count, size=size)
    with pytest.raises(ValueError, match="has no organ 'liver'; it must be one of lobed organ"):
        OrganPhantoms(1, size=(16, 32, 32))[0].case("liver")


# OrganCases


def test_every_organ_is_a_case(phantoms: OrganPhantoms) -> None:
    cases = OrganCases(phantoms)
    assert len(cases) == 60
    assert len(set(cases.names)) == 60
    assert cases.groups[5:10] == ("organ phantom 1 of seed 5",) * 5
    total = sum(cases[i].mask for i in range(5, 10))
    assert torch.equal(total[0], (phantoms[1].labels > 0).float()), "they share no voxel and leave none out"
    for index in (0, 7):
        case = cases[index]
        assert case.name == cases.names[index]
        assert case.group == cases.groups[index]
        assert torch.equal(case.mask[0] > 0, phantoms[index // 5].labels == index % 5 + 1)
        assert case.mask.unique().tolist() == [0, 1]
        assert case.organ == phantoms.organs[index % 5]
    chosen = OrganCases(phantoms, organs=["tube", "neighbour"])
    assert chosen.organs == ("neighbour", "tube"), "the volumes' own order"
    assert torch.equal(chosen[3].mask, cases[9].mask)


def test_unknown_organs_get_a_sentence(phantoms: OrganPhantoms) -> None:
    with pytest.raises(ValueError, match="wanted names are not in the data set, the first is 'liver'"):
        OrganCases(phantoms, organs=["liver"])
    with pytest.raises(ValueError, match="organs must name at least one of lobed organ, neighbour"):
        OrganCases(phantoms, organs=[])


# load_volume


def _files(tmp_path: Path, affine: np.ndarray) -> tuple[VolumeFiles, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    image = generator.integers(-1000, 1000, (5, 4, 3)).astype(np.int16)
    labels = generator.integers(0, 3, (5, 4, 3)).astype(np.uint8)
    scan = write_volume(tmp_path / "scan.nii.gz", image, affine=affine)
    mask = write_volume(tmp_path / "mask.nii.gz", labels, affine=affine)
    return VolumeFiles("p1", scan, mask, None, "patient 1"), image, labels


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_a_flipped_affine_stays_what_it_is(tmp_path: Path, flips: tuple[int, ...]) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = np.diag([*(np.array([0.5, 0.25, 2.0]) * flips), 1.0])
    affine[:3, 3] = (3.0, -20.0, 7.0)
    files, _, labels = _files(tmp_path, affine)
    case = load_volume(files, label=2)
    assert np.array_equal(case.image[0].numpy(), sitk.GetArrayFromImage(sitk.ReadImage(str(files.image))))
    assert np.array_equal(case.mask[0].numpy(), (labels == 2).transpose(2, 1, 0))
    assert case.spacing == (2.0, 0.25, 0.5)
    assert np.allclose(case.affine, affine)
    assert (case.name, case.group) == ("p1", "patient 1")
    assert torch.equal(load_volume(files).mask[0], torch.from_numpy((labels > 0).transpose(2, 1, 0)).float())
    # What is written back lies where the scan lies, voxel by voxel.
    back = tmp_path / "answer.nii.gz"
    write_mask(back, case.mask[0].bool().permute(2, 1, 0).numpy(), like=files.image)
    answer, scan = sitk.ReadImage(str(back)), sitk.ReadImage(str(files.image))
    assert np.array_equal(sitk.GetArrayFromImage(answer), case.mask[0].numpy())
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(answer, name)(), getattr(scan, name)())


def test_masks_elsewhere_and_nan_get_a_sentence(tmp_path: Path) -> None:
    files, image, _ = _files(tmp_path, np.diag([0.5, 0.25, 2.0, 1.0]))
    assert load_volume(VolumeFiles("p1", files.image, None, None, "p1")).mask.sum() == 0
    assert files.mask is not None
    write_volume(files.mask, np.ones((5, 4, 3), np.uint8), affine=np.diag([-0.5, 0.25, 2.0, 1.0]))
    with pytest.raises(ValueError, match=r"lies up to .* from its image"):
        load_volume(files)
    spoilt = image.astype(np.float32)
    spoilt[0, 0, 0] = np.nan
    write_volume(files.image, spoilt, affine=np.diag([-0.5, 0.25, 2.0, 1.0]))
    with pytest.raises(ValueError, match="1 voxels that are NaN or infinite"):
        load_volume(files)
