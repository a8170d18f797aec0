from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nifti import write_volume
from phantom_files import ORGANS, content, write_phantoms

from ultrarefiner.data import (
    SparseLabels,
    SparseVolumes,
    VolumeCrop,
    VolumeFiles,
    group_folds,
    load_volume,
    nifti_pairs,
    normalise_foreground,
    prepare_volumes,
)
from ultrarefiner.data.sparse_files import VolumeFolder

# Preparation


def test_a_prepared_volume_is_the_file_normalised_and_cropped(prepared: tuple[Path, list[VolumeFiles]]) -> None:
    folder, files = prepared
    volumes = SparseVolumes(folder)
    assert (volumes.names, volumes.groups, volumes.organs) == (("p0", "p1"), ("p0", "p1"), tuple(ORGANS))
    for index, (name, number) in [(i, organ) for i in range(2) for organ in ORGANS.items()]:
        volume, truth = volumes[index], load_volume(files[index], label=number)
        image = normalise_foreground(truth.image)
        assert not image[0].numpy().flags.owndata or volume.image.shape == volume.crop.size
        case = volume.case(name)
        assert torch.equal(case.image, volume.crop.crop(image))
        assert torch.equal(volume.crop.put_back(case.mask), truth.mask), "no voxel of an object is lost"
        assert not (image - volume.crop.put_back(case.image)).any(), "nor one that is brighter than 0"
        assert volumes.counts[index][volume.label_of(name) - 1] == int(truth.mask.sum())
        assert volume.spacing == truth.spacing == (2.0, 0.25, 0.5)
        assert np.array_equal(volume.affine, truth.affine)
        # The same voxel has the same place in the scanner.
        z, y, x = volume.crop.start
        assert np.allclose(case.affine @ [0, 0, 0, 1], truth.affine @ [x, y, z, 1])
        assert (case.name, case.organ, case.group) == (f"p{index}/{name}", name, f"p{index}")
    assert isinstance(volumes[0].image, np.memmap)
    assert volumes.labels == ("unknown", "unknown")
    folds = group_folds(volumes, folds=2)
    assert {volumes.subset(folds.validation(number)).names for number in range(2)} == {("p0",), ("p1",)}
    with pytest.raises(ValueError, match="kept as an unseen test set"):
        group_folds(SparseVolumes(folder, unseen=True), folds=2)
    assert volumes.subset(["p1"]).names == ("p1",)
    assert volumes.subset(["p1"])[0].name == "p1"


def test_labels_outside_of_the_foreground_are_kept_and_all_numbers_are_one_object(tmp_path: Path) -> None:
    image, labels = np.zeros((9, 8, 7), np.int16), np.zeros((9, 8, 7), np.int16)
    image[4:6, 4:6, 3] = np.arange(1, 5).reshape(2, 2) * 10
    labels[0, 1, 2], labels[4, 4, 3] = 9, 300
    write_volume(tmp_path / "images" / "a.nii.gz", image)
    write_volume(tmp_path / "masks" / "a.nii.gz", labels)
    pairs = [replace(nifti_pairs(tmp_path / "images", tmp_path / "masks")[0], name="a/b", group="patient 7")]
    assert prepare_volumes(pairs, tmp_path / "ready", margin=0, progress=False) == 1
    (volume,) = [SparseVolumes(tmp_path / "ready")[0]]
    assert volume.crop == VolumeCrop((2, 1, 0), (4, 6, 6), (7, 8, 9))
    assert (volume.organs, volume.labels.counts(), volume.group) == (("object",), {1: 2}, "patient 7")
    assert volume.image.dtype == np.float16
    assert volume.image.max() == 1
    prepare_volumes(pairs, tmp_path / "wide", margin=1, progress=False)
    assert SparseVolumes(tmp_path / "wide")[0].crop == VolumeCrop((2, 1, 0), (5, 7, 7), (7, 8, 9))


def test_the_same_call_goes_on_and_makes_again_what_changed(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 3)
    ready = tmp_path / "ready"
    assert prepare_volumes(files[:2], ready, organs=ORGANS, progress=False) == 2
    before = content(ready)
    assert prepare_volumes(files, ready, organs=ORGANS, progress=False) == 1
    after = content(ready)
    assert all(after[name] == value for name, value in before.items())
    assert len(SparseVolumes(ready)) == 3
    labels = np.ones((40, 36, 18), np.uint8)
    write_volume(tmp_path / "p1_mask.nii.gz", labels, affine=load_volume(files[1]).affine)
    (ready / "volumes" / "p0" / "volume.json").write_text("{")
    (ready / "volumes" / "p2" / "image.npy").unlink()
    assert prepare_volumes(files, ready, organs=ORGANS, progress=False) == 3
    assert SparseVolumes(ready).counts[1] == (40 * 36 * 18, 0, 0)
    now = content(ready)
    assert all(now[name] == value for name, value in after.items() if "p1" not in name)


KILLED = """
import os, signal, sys
from pathlib import Path
import ultrarefiner.data.volume_preparation as preparation
from ultrarefiner.data import nifti_pairs
root, wanted = Path(sys.argv[1]), sys.argv[2]
plain = preparation.np.save
def deadly(file, *arguments, **options):
    if "p1" in file.name:
        file.write(b"half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    plain(file, *arguments, **options)
preparation.np.save = deadly
preparation.prepare_volumes(nifti_pairs(root, root, mask_suffix="_mask"), root / wanted, progress=False)
"""


def test_a_kill_costs_one_volume_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 3)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "killed"], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    killed = tmp_path / "killed"
    assert SparseVolumes(killed).names == ("p0",)
    assert [path.name for path in killed.rglob("*.part")], "half a file, under another name"
    assert prepare_volumes(files, killed, progress=False) == 2
    prepare_volumes(files, tmp_path / "whole", progress=False)
    assert content(killed) == content(tmp_path / "whole")


@pytest.mark.parametrize("place", ["image.npy", "labels.npz", "volume.json"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_end_at_any_file_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    """Also of a volume that is made again: its old record must not stand beside new files."""
    files = write_phantoms(tmp_path, 1)
    prepare_volumes(files, tmp_path / "ready", progress=False)
    mask = nibabel.load(files[0].mask)
    write_volume(files[0].mask, np.ones(mask.shape, np.uint8), affine=mask.affine)
    plain = Path.replace

    def ends(self: Path, target: Path) -> Path:
        if target.name == place and when == "before":
            raise KeyboardInterrupt
        found = plain(self, target)
        if target.name == place:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", ends)
        with pytest.raises(KeyboardInterrupt):
            prepare_volumes(files, tmp_path / "ready", progress=False)
    if place != "volume.json" or when == "before":
        with pytest.raises(FileNotFoundError, match="has no prepared volume; call prepare_volumes"):
            SparseVolumes(tmp_path / "ready")
    prepare_volumes(files, tmp_path / "ready", progress=False)
    assert SparseVolumes(tmp_path / "ready")[0].labels.counts() == {1: 18 * 36 * 40}


def test_a_broken_file_stops_nothing_and_gets_a_sentence(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 4)
    image = np.zeros((4, 4, 4), np.float32)
    image[0, 0, 0] = np.nan
    bad = {
        "nan": (image, np.ones((4, 4, 4), np.uint8)),
        "shape": (image * 0, np.ones((4, 4, 5), np.uint8)),
        "fraction": (image * 0, np.full((4, 4, 4), 0.5, np.float32)),
        "below": (image * 0, np.full((4, 4, 4), -1, np.int16)),
    }
    for name, (scan, mask) in bad.items():
        write_volume(tmp_path / f"{name}.nii.gz", np.nan_to_num(scan, nan=1.0) if name != "nan" else scan)
        write_volume(tmp_path / f"{name}_mask.nii.gz", mask)
    (tmp_path / "p0.nii.gz").write_bytes(b"no volume")
    others = nifti_pairs(tmp_path, tmp_path, mask_suffix="_mask")
    others.append(VolumeFiles("gone", tmp_path / "gone.nii.gz", files[0].mask, None, "gone"))
    others.append(replace(files[1], name="unmasked", mask=None))
    with pytest.raises(ValueError, match=r"7 of 10 volumes could not be prepared; the others are ready") as caught:
        prepare_volumes(others, tmp_path / "ready", progress=False)
    told = str(caught.value)
    for part in ("'below': ", "whole numbers from 0, one an object, but it has -1 to -1", "it has 0.5 to 0.5", "NaN"):
        assert part in told
    assert told.endswith("And 2 more.")
    assert SparseVolumes(tmp_path / "ready").names == ("p1", "p2", "p3")
    with pytest.raises(ValueError, match=r"'gone': there is no volume .*'unmasked': .*has no mask"):
        prepare_volumes([*files[1:], *others[-2:]], tmp_path / "ready", progress=False)


def test_wrong_settings_get_a_sentence(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 1)
    ready = tmp_path / "ready"
    prepare_volumes(files, ready, organs={"a": 1, "b": 2}, progress=False)
    for changes, told in (
        ({"organs": {"a": 1, "b": 3}}, "organs.b 2, but now it is 3"),
        ({"organs": {"b": 2, "a": 1}}, r"order \['a', 'b'\], but now it is \['b', 'a'\]"),
        ({"organs": {"a": 1, "b": 2}, "dtype": "float32"}, "dtype 'float16', but now it is 'float32'"),
        ({"organs": None}, "organs.object 'absent', but now it is None"),
    ):
        with pytest.raises(ValueError, match=rf"holds volumes that were prepared with (the )?.*{told}.*another folder"):
            prepare_volumes(files, ready, **changes, progress=False)
    for organs in ({}, {"a": 0}, {"a": 1, "b": 1}, {"": 1}):
        with pytest.raises(ValueError, match="organs must be names, each with a whole number of its own from 1"):
            prepare_volumes(files, tmp_path / "new", organs=organs)
    with pytest.raises(ValueError, match="needs at least one volume"):
        prepare_volumes([], tmp_path / "new")
    with pytest.raises(ValueError, match="must be unique, but 2 are called 'p0'"):
        prepare_volumes(files * 2, tmp_path / "new")
    with pytest.raises(ValueError, match="margin a whole number, not negative, got 'float16' and -1"):
        prepare_volumes(files, tmp_path / "new", margin=-1)
    assert not (tmp_path / "new").exists()


def test_pairs_are_found_or_a_sentence_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        nifti_pairs(tmp_path / "no", tmp_path)
    with pytest.raises(ValueError, match="has no NIfTI file"):
        nifti_pairs(tmp_path, tmp_path, mask_suffix="_m")
    for name in ("a10.nii", "a2.nii.gz", "a2_m.nii", "._a2.nii", "note.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"has a10.nii without a10_m.nii.gz .* check both folders and mask_suffix"):
        nifti_pairs(tmp_path, tmp_path, mask_suffix="_m")
    (tmp_path / "a10_m.nii.gz").write_bytes(b"")
    assert [pair.name for pair in nifti_pairs(tmp_path, tmp_path, mask_suffix="_m")] == ["a2", "a10"]
    with pytest.raises(ValueError, match=r"images and masks are both .*; give mask_suffix"):
        nifti_pairs(tmp_path, tmp_path)
    (tmp_path / "a2.nii").write_bytes(b"")
    with pytest.raises(ValueError, match="have the same name without ending; remove one"):
        nifti_pairs(tmp_path, tmp_path, mask_suffix="_m")


# Damage


def test_files_that_do_not_belong_together_get_a_sentence(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 1)
    ready = tmp_path / "ready"
    prepare_volumes(files, ready, progress=False)
    place = VolumeFolder.of(ready, "p0")
    whole = content(ready)
    image = np.load(place.image)

    def mended() -> None:
        for name, kept in whole.items():
            (ready / name).write_bytes(kept)

    np.save(place.image, image[1:])
    with pytest.raises(ValueError, match=r"do not belong together: .* were found; delete the folder and prepare"):
        SparseVolumes(ready)[0]
    mended()
    SparseLabels.load(place.labels).renumbered({1: 2}).save(place.labels)
    with pytest.raises(ValueError, match="do not belong together"):
        SparseVolumes(ready)[0]
    mended()
    for wrong in (image.astype(np.float64), np.asfortranarray(image), image[None], image.astype(">f2")):
        np.save(place.image, wrong)
        with pytest.raises(ValueError, match=r"image.npy must hold float16 or float32 \(slices, rows, columns\), got"):
            SparseVolumes(ready)[0]
    np.save(place.image, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"image.npy cannot be mapped \(.*\); it is damaged"):
        SparseVolumes(ready)[0]
    for damaged in (b"", b"text", whole["volumes/p0/image.npy"][:-1], whole["volumes/p0/image.npy"][:50]):
        place.image.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"image.npy cannot be mapped"):
            SparseVolumes(ready)[0]
    place.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*image.npy; prepare the volumes again"):
        SparseVolumes(ready)[0]
    mended()
    image[2, 3, 4] = np.nan
    np.save(place.image, image)
    with pytest.raises(ValueError, match=r"the image of 'p0' has voxels that are NaN or infinite; it is damaged"):
        SparseVolumes(ready)[0].case("object")


RECORD_CHANGES: list[dict[str, Any]] = [
    {"format": "another"},
    {"name": 3},
    {"name": "../p1"},
    {"spacing": [1.0, 0.0, 1.0]},
    {"spacing": [1.0, float("nan"), 1.0]},
    {"spacing": [1.0, 10**400, 1.0]},
    {"spacing": 3},
    {"affine": [[1.0, 0.0], [0.0, 1.0]]},
    {"affine": "wide"},
    {"affine": [[float("inf")] * 4] * 4},
    {"crop": {"start": [0, 0, 0], "stop": [0, 1, 1], "shape": [2, 2, 2]}},
    {"crop": {"start": [0, 0], "stop": [1, 1], "shape": [2, 2]}},
    {"crop": {"start": [0, 0, True], "stop": [1, 1, 2], "shape": [2, 2, 2]}},
    {"crop": None},
    {"counts": [1, 2]},
    {"counts": [-1]},
    {"counts": [1.5]},
    {"source": {"a": 1}},
    {"group": None},
    {"label": 1},
]


def test_hostile_records_get_a_sentence(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 1)
    ready = tmp_path / "ready"
    prepare_volumes(files, ready, progress=False)
    path = VolumeFolder.of(ready, "p0").record
    told = json.loads(path.read_text())
    for changes in RECORD_CHANGES:
        path.write_text(json.dumps(told | changes))
        with pytest.raises(ValueError, match=r"volume.json (cannot be read as|must be of the volume that).* prepare"):
            SparseVolumes(ready)
    for text in ("", "[]", "{", "[" * 100_000, "9" * 5000, '{"a": 1}' + " " * 2**20, "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"volume.json cannot be read as a file of prepared volumes"):
            SparseVolumes(ready)
    path.write_text(json.dumps(told))
    known = (ready / "settings.json").read_text()
    for organs in ([], {}, {"a": "b"}, {"a": -1}, 3):
        (ready / "settings.json").write_text(json.dumps(json.loads(known) | {"organs": organs}))
        with pytest.raises(ValueError, match=r"settings.json cannot be read as"):
            SparseVolumes(ready)
    (ready / "settings.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold prepared volumes, but it has no settings.json"):
        SparseVolumes(ready)
