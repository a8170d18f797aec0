from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti import write_volume
from phantom_files import ORGANS

from ultrarefiner.data import (
    SparseLabels,
    SparseViews,
    SparseVolume,
    SparseVolumes,
    SparseWholes,
    VolumeBatch,
    VolumeCrop,
    VolumeFiles,
    VolumeView,
    nifti_pairs,
    pad_volume,
    prepare_volumes,
    resize_mask,
    resize_volume,
    sparse_patch_box,
    sparse_view,
)
from ultrarefiner.data.sparse_files import VolumeFolder, VolumeRecord
from ultrarefiner.networks import build_segvol
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.training import CorrectionRecipe, SegVolRecipe, train

SIZE = (16, 32, 32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_memory(image: torch.Tensor, labels: torch.Tensor) -> SparseVolume:
    size = tuple(image.shape)
    crop = VolumeCrop((0, 0, 0), size, size)
    sparse = SparseLabels.of(labels)
    return SparseVolume("v", image.numpy(), sparse, ("a", "b"), (1.0, 1.0, 1.0), np.eye(4), crop, "v")


# One volume


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=40)
def test_views_are_those_of_the_dense_volume(
    seed: int, shape: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    labels = torch.randint(0, 3, shape, generator=seeded(seed)) * (torch.rand(shape, generator=seeded(seed)) > 0.6)
    volume = in_memory(torch.rand(shape, generator=seeded(seed)), labels)
    image, mask = torch.from_numpy(volume.image)[None], (labels == 2).float()[None]
    small, seen = volume.whole("b", size)
    assert torch.allclose(small, resize_volume(image, size), atol=1e-5)
    assert torch.equal(seen, resize_mask(mask, size))
    if mask.any():
        for whole in (0.0, 0.5, 1.0):  # around the object, the generator is asked for the same numbers
            view = VolumeView(size, whole=whole, positive=1.0)
            mine, theirs = sparse_view(volume, "b", view, seeded(seed)), view(image, mask, seeded(seed))
            assert torch.allclose(mine[0], theirs[0], atol=1e-5)
            assert torch.equal(mine[1], theirs[1])
            assert mine[1].any()
    box = sparse_patch_box(volume.labels, 2, size, seeded(seed), positive=0.0)
    found = sparse_view(volume, "b", VolumeView(size, whole=0.0, positive=0.0), seeded(seed + 1))
    assert found[0].shape == found[1].shape == (1, *size)
    assert all(
        high - low == min(side, limit) for low, high, side, limit in zip(box.start, box.stop, size, shape, strict=True)
    )
    assert torch.equal(volume.part("b", box)[0], box.crop(image))
    assert torch.equal(volume.part("b", box)[1], box.crop(mask))


def test_three_of_four_patches_lie_around_the_object_and_one_view_of_four_is_whole() -> None:
    labels = torch.zeros(10, 16, 20, dtype=torch.int64)
    labels[4:6, 5:9, 12:16] = 2
    labels[0, 0] = 1
    volume = in_memory(torch.rand(10, 16, 20), labels)
    generator = seeded(0)
    boxes = [sparse_patch_box(volume.labels, 2, (1, 1, 1), generator) for _ in range(3000)]
    hits = np.array([int(labels[box.start]) for box in boxes])
    assert abs((hits == 2).mean() - 0.75) < 0.025
    assert abs((hits == 1).mean() - 0.25 * 20 / (3200 - 32)) < 0.002, "other organs are background"
    inside = np.array([box.start for box, hit in zip(boxes, hits, strict=True) if hit == 2])
    _, counts = np.unique(inside, axis=0, return_counts=True)
    assert len(counts) == 32
    assert counts.std() < 1.6 * np.sqrt(counts.mean())
    outside = np.array([box.start for box, hit in zip(boxes, hits, strict=True) if hit != 2])
    assert np.allclose(outside.mean(0), [4.5, 7.5, 9.5], atol=0.9)
    view, volume = VolumeView((4, 4, 4)), in_memory(torch.rand(10, 16, 20), torch.full((10, 16, 20), 2))
    whole = resize_volume(torch.from_numpy(volume.image)[None], (4, 4, 4))
    seen = [torch.allclose(sparse_view(volume, "b", view, generator)[0], whole, atol=1e-6) for _ in range(600)]
    assert abs(np.mean(seen) - 0.25) < 0.05


def test_volumes_of_one_kind_and_organs_that_would_vanish() -> None:
    for value in (0, 2):
        volume = in_memory(torch.rand(4, 5, 6), torch.full((4, 5, 6), value))
        starts = {sparse_patch_box(volume.labels, 2, (2, 2, 2), seeded(n), positive=0.5).start for n in range(60)}
        assert len(starts) > 20
    labels = torch.zeros(40, 40, 40, dtype=torch.int64)
    labels[11, 11, 11] = 1
    volume = in_memory(torch.rand(40, 40, 40), labels)
    assert not volume.whole("a", (4, 4, 4))[1].any()
    _, seen = sparse_view(volume, "a", VolumeView((4, 4, 4), whole=1.0, positive=1.0), seeded(0))
    assert seen.sum() == 1
    image, seen = sparse_view(volume, "b", VolumeView((4, 4, 4), whole=1.0), seeded(0))
    assert torch.equal(image, volume.whole("b", (4, 4, 4))[0])
    assert not seen.any()
    with pytest.raises(ValueError, match=r"positive must be in \[0, 1\] .* got 1.5 and \(2, 2, 2\)"):
        sparse_patch_box(volume.labels, 1, (2, 2, 2), seeded(0), positive=1.5)
    with pytest.raises(ValueError, match=r"'v' has no organ 'c'; it must be one of a, b"):
        sparse_view(volume, "c", VolumeView((4, 4, 4)), seeded(0))
    padded, _ = sparse_view(volume, "a", VolumeView((44, 4, 4), whole=0.0, positive=1.0), seeded(0))
    column = torch.from_numpy(volume.image[:, 9:13, 9:13])[None]
    assert torch.equal(padded, pad_volume(column, (44, 4, 4)))


def test_a_patch_of_a_large_file_reads_nothing_else(tmp_path: Path) -> None:
    """300 x 512 x 512 in float16, 157 MB, as a file of holes: in memory comes a patch, or two slices at a time."""
    size = (300, 512, 512)
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    plane = (((y - 250) ** 2 + (x - 260) ** 2) < 90**2).to(torch.uint8)
    labels = SparseLabels.of(plane.expand(300, -1, -1))
    place = VolumeFolder.of(tmp_path, "large")
    place.path.mkdir(parents=True)
    image: Any = np.lib.format.open_memmap(place.image, mode="w+", dtype=np.float16, shape=size)
    image[150, 250] = 1.0
    del image
    labels.save(place.labels)
    crop = VolumeCrop((0, 0, 0), size, size)
    counts = (labels.counts()[1],)
    VolumeRecord("large", "large", "unknown", (1.0, 1.0, 1.0), np.eye(4), crop, counts, (0,)).write(place.record)
    told = {"format": "ultrarefiner prepared volumes 1", "organs": {"object": None}}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    views = SparseViews(SparseVolumes(tmp_path), VolumeView((32, 64, 64), whole=0.0), samples=20)
    wholes = SparseWholes(SparseVolumes(tmp_path), (16, 64, 64))
    tracemalloc.start()
    shapes = {tuple(views[index].image.shape) for index in range(20)}
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.reset_peak()
    assert wholes[0].mask.sum() == pytest.approx(counts[0] / 300 / 64 * 16, rel=0.01)
    assert tracemalloc.get_traced_memory()[1] < 14e6
    tracemalloc.stop()
    assert shapes == {(1, 32, 64, 64)}
    assert views.volumes[0].part("object", VolumeCrop((149, 249, 0), (151, 251, 512), size))[0].sum() == 512


# Data sets


def test_samples_depend_on_the_seed_and_their_number_alone(prepared: tuple[Path, list[VolumeFiles]]) -> None:
    volumes = SparseVolumes(prepared[0])
    view = VolumeView((8, 16, 16))
    views = SparseViews(volumes, view, samples=40)
    assert len(views) == len(views.names) == 40
    for start in range(0, 36, 6):
        assert sorted(views.names[start : start + 6]) == sorted(f"p{n}/{organ}" for n in range(2) for organ in ORGANS)
    assert views.names[:6] != views.names[6:12]
    again = pickle.loads(pickle.dumps(SparseViews(volumes, view, samples=40)))
    first = [views[index] for index in range(40)]
    for index in reversed(range(40)):
        assert torch.equal(again[index].image, first[index].image)
        assert torch.equal(again[index].mask, first[index].mask)
        assert again[index].name == views.names[index]
    other = SparseViews(volumes, view, samples=40, seed=1)
    assert any(one != two for one, two in zip(other.names, views.names, strict=True))
    same = [
        index
        for index in range(6)
        for turn in range(1, 6)
        if torch.equal(first[index].image, first[index + 6 * turn].image)
    ]
    assert len(same) < 10, "each round shows something else"
    assert len(pickle.dumps(views)) < 20_000, "what is open stays here"
    before = torch.get_rng_state()
    views[3]
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(IndexError, match="index must be in 0 to 39, got 40"):
        views[40]


def test_organs_that_a_volume_lacks_are_no_cases(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    for name, label in (("a", 1), ("b", 2)):
        write_volume(tmp_path / f"{name}.nii", image)
        write_volume(tmp_path / f"{name}_m.nii", ((image > 0) * label).astype(np.uint8))
    files = nifti_pairs(tmp_path, tmp_path, mask_suffix="_m")
    prepare_volumes(files, tmp_path / "ready", organs={"one": 1, "two": 2, "three": 3}, progress=False)
    volumes = SparseVolumes(tmp_path / "ready")
    assert SparseWholes(volumes, (4, 4, 4)).names == ("a/one", "b/two")
    assert SparseWholes(volumes, (4, 4, 4), organs=["two", "three"]).names == ("b/two",)
    with pytest.raises(ValueError, match="no volume has a voxel of three; check organs"):
        SparseWholes(volumes, (4, 4, 4), organs=["three"])
    with pytest.raises(ValueError, match="no volume has a voxel of an organ, for none was given"):
        SparseViews(volumes, VolumeView((4, 4, 4)), organs=[])
    with pytest.raises(ValueError, match="'four'"):
        SparseViews(volumes, VolumeView((4, 4, 4)), organs=["four"])
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        SparseViews(volumes, VolumeView((4, 4, 4)), samples=0)
    with pytest.raises(ValueError, match=r"size must have sides of at least 1 voxel, got \(0, 4, 4\)"):
        SparseWholes(volumes, (0, 4, 4))
    with pytest.raises(ValueError, match="keep must be at least 1 volume, got 0"):
        SparseVolumes(tmp_path / "ready", keep=0)
    with pytest.raises(ValueError, match="a subset needs at least one name, none was given"):
        volumes.subset([])
    one = SparseVolumes(tmp_path / "ready", keep=1)
    assert [one[index].name for index in (0, 1, 0)] == ["a", "b", "a"]
    assert len(one._opened) == 1


def test_whole_volumes_are_read_once(prepared: tuple[Path, list[VolumeFiles]], monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = SparseVolumes(prepared[0])
    kept, fresh = SparseWholes(volumes, SIZE), SparseWholes(volumes, SIZE, keep_in_memory=False)
    calls: list[str] = []
    plain = SparseVolume.whole
    monkeypatch.setattr(SparseVolume, "whole", lambda self, *rest: calls.append(rest[0]) or plain(self, *rest))
    with torch.inference_mode():
        first = [kept[index] for index in range(len(kept))]
    assert not first[0].image.is_inference()
    assert len(calls) == len(kept) == 6
    for index in range(6):
        case, other = kept[index], fresh[index]
        assert torch.equal(case.image, other.image)
        assert torch.equal(case.mask, other.mask)
        assert case.name == other.name == kept.names[index]
    assert len(calls) == 12
    assert kept[0].image.data_ptr() == kept[1].image.data_ptr(), "one image for all organs of a volume"


def test_both_recipes_train_on_it_and_a_run_knows_its_views(
    prepared: tuple[Path, list[VolumeFiles]], tmp_path: Path
) -> None:
    volumes = SparseVolumes(prepared[0])
    mine = volumes.subset(["p0"])
    one = ["round organ"]
    views = SparseViews(mine, VolumeView(SIZE), organs=one, samples=6)
    wholes = SparseWholes(volumes.subset(["p1"]), SIZE)
    batch = views.collate([views[0], views[1]])
    assert isinstance(batch, VolumeBatch)
    assert batch.images.shape == (2, 1, *SIZE)
    options: dict[str, Any] = {"batch_size": 2, "tensorboard": False, "progress": False, "accelerator": "cpu"}
    options |= {"validation": wholes, "epoch_size": 4, "epochs": 2}
    model = build_segvol("tiny", volume_size=SIZE)
    before = [one.clone() for one in model.parameters()]
    first = train(SegVolRecipe(model, augmentation=None), views, folder=tmp_path / "1", **options)
    assert first.best_dice is not None
    assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    recipe = CorrectionRecipe(model, GRUCorrection(points=8, hidden=8, dimensions=3), augmentation=None)
    assert train(recipe, views, folder=tmp_path / "2", **options).best_dice is not None
    others = SparseViews(mine, VolumeView(SIZE), organs=one, samples=6, seed=1)
    assert others.names == views.names
    with pytest.raises(ValueError, match=r"was written by a run with another training set"):
        train(recipe, others, folder=tmp_path / "2", **options)
    with pytest.raises(ValueError, match=r"no case that is trained on, but 1 of its 6 are, the first is 'p0/round"):
        train(recipe, views, folder=tmp_path / "3", **(options | {"validation": SparseWholes(volumes, SIZE)}))
    for record in volumes._records:
        object.__setattr__(record, "group", "one patient")
    with pytest.raises(ValueError, match=r"no case of a group that is trained on, but 3 are, .*'p1/.*'one patient'"):
        train(recipe, views, folder=tmp_path / "3", **options)


def test_workers_see_the_same(prepared: tuple[Path, list[VolumeFiles]]) -> None:
    views = SparseViews(SparseVolumes(prepared[0]), VolumeView((8, 16, 16)), samples=6)
    views[0]  # something is open when the workers start
    loader = torch.utils.data.DataLoader(views, batch_size=3, num_workers=1, collate_fn=views.collate)
    for number, batch in enumerate(loader):
        for place in range(3):
            assert torch.equal(batch.images[place], views[3 * number + place].image)
            assert torch.equal(batch.masks[place], views[3 * number + place].mask)
