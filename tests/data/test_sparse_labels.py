from __future__ import annotations

import io
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data import SparseLabels, VolumeCrop

SIDES = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 8))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, size: tuple[int, int, int], *, share: float = 0.5, kinds: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.where(generator.random(size) < share, generator.integers(1, kinds + 1, size), 0)


def drawn_box(data: st.DataObject, size: tuple[int, int, int]) -> VolumeCrop:
    first = [data.draw(st.integers(0, side - 1)) for side in size]
    stop = [data.draw(st.integers(low + 1, side)) for low, side in zip(first, size, strict=True)]
    return VolumeCrop(tuple(first), tuple(stop), size)


def inside(box: VolumeCrop) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in zip(box.start, box.stop, strict=True))


# Against the dense map


@given(
    data=st.data(),
    seed=st.integers(0, 10_000),
    size=SIDES,
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    kind=st.sampled_from([torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]),
)
@settings(deadline=None, max_examples=40)
def test_everything_is_what_the_dense_map_says(
    data: st.DataObject, seed: int, size: tuple[int, int, int], share: float, kind: torch.dtype
) -> None:
    truth = drawn(seed, size, share=share)
    sparse = SparseLabels.of(torch.from_numpy(truth).to(kind))
    assert np.array_equal(sparse.dense().numpy(), truth)
    assert sparse.size == size
    assert sparse.labels == tuple(int(one) for one in np.unique(truth) if one)
    assert sparse.counts() == {label: int((truth == label).sum()) for label in sparse.labels}
    box = drawn_box(data, size)
    assert np.array_equal(sparse.dense(box=box).numpy(), truth[inside(box)])
    assert np.array_equal(sparse.crop(box).dense().numpy(), truth[inside(box)])
    for label in (1, 2, 3, 4, 9):
        one = sparse.dense(label, box=box)
        assert one.dtype == torch.uint8
        assert np.array_equal(one.numpy(), truth[inside(box)] == label)
        places = np.argwhere(truth == label)
        around = sparse.box_of(label)
        assert (around is None) == (len(places) == 0)
        if around is not None:
            assert around.start == tuple(places.min(0))
            assert around.stop == tuple(places.max(0) + 1)
    renumbered = sparse.renumbered({1: 3, 2: 3, 4: 700}).dense().numpy()
    assert np.array_equal(renumbered, np.select([(truth == 1) | (truth == 2), truth == 4], [3, 700]))


@given(seed=st.integers(0, 10_000), size=SIDES)
@settings(deadline=None, max_examples=15)
def test_one_label_is_what_segvol_stores(seed: int, size: tuple[int, int, int]) -> None:
    """Its files hold a sparse matrix a class."""
    truth = drawn(seed, size)
    sparse = SparseLabels.of(torch.from_numpy(truth))
    theirs = scipy.sparse.csr_matrix((truth == 2).reshape(1, -1))
    assert np.array_equal(theirs.toarray().reshape(size), sparse.dense(2).numpy())
    assert theirs.nnz == sparse.counts().get(2, 0)


def test_runs_are_as_few_as_rows_allow() -> None:
    labels = torch.zeros(4, 6, 9, dtype=torch.int64)
    labels[1:3, 2:5] = 5  # full rows: they do not run on into the next
    labels[1, 2, 4] = 2
    sparse = SparseLabels.of(labels)
    assert sparse.labels == (2, 5)
    assert len(sparse.starts) == 1 + 6 + 1
    assert len(SparseLabels.of(torch.ones(3, 4, 5, dtype=torch.int64)).starts) == 12
    assert SparseLabels.of(labels.transpose(0, 2)).counts() == sparse.counts(), "any strides"


def test_empty_maps_have_nothing() -> None:
    sparse = SparseLabels.of(torch.zeros(2, 3, 4, dtype=torch.uint8))
    assert (sparse.labels, sparse.counts(), sparse.box_of(1)) == ((), {}, None)
    assert not sparse.dense().any()
    assert sparse.dense().dtype == torch.int32
    assert not sparse.dense(3).any()
    assert sparse.crop(VolumeCrop((0, 0, 0), (1, 1, 1), (2, 3, 4))).size == (1, 1, 1)
    assert sparse.renumbered({1: 2}).labels == ()
    with pytest.raises(ValueError, match="got 1; those are: none"):
        sparse.voxel_of(1, seeded(0))


# Draws


def test_each_voxel_of_a_label_is_as_likely_as_any_other() -> None:
    truth = drawn(3, (4, 5, 6), share=0.6, kinds=2)
    sparse = SparseLabels.of(torch.from_numpy(truth))
    generator = seeded(0)
    for draw, there in ((sparse.voxel_of, truth == 2), (sparse.voxel_outside, truth != 2)):
        found = np.zeros(truth.shape, int)
        for _ in range(6000):
            found[draw(2, generator)] += 1
        assert found[~there].sum() == 0
        expected = 6000 / there.sum()
        chi_square = ((found[there] - expected) ** 2 / expected).sum()
        freedom = there.sum() - 1
        assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@given(seed=st.integers(0, 10_000), size=SIDES, share=st.sampled_from([0.1, 0.9]))
@settings(deadline=None, max_examples=25)
def test_the_generator_picks_from_the_voxels_in_their_order(
    seed: int, size: tuple[int, int, int], share: float
) -> None:
    truth = drawn(seed, size, share=share, kinds=2)
    sparse = SparseLabels.of(torch.from_numpy(truth))
    for draw, there in ((sparse.voxel_of, truth == 1), (sparse.voxel_outside, truth != 1)):
        places = np.argwhere(there)
        if len(places):
            wanted = int(torch.randint(len(places), (), generator=seeded(seed)))
            assert draw(1, seeded(seed)) == tuple(places[wanted])


def test_draws_that_cannot_be_get_a_sentence() -> None:
    full = SparseLabels.of(torch.full((2, 3, 4), 7))
    with pytest.raises(ValueError, match=r"label must be one that occurs to draw a voxel of it, got 3; those are: 7"):
        full.voxel_of(3, seeded(0))
    with pytest.raises(ValueError, match=r"must leave a voxel free to draw one outside of it, but all are of label 7"):
        full.voxel_outside(7, seeded(0))
    assert full.voxel_outside(1, seeded(0)) == full.voxel_of(7, seeded(0)), "any voxel is outside of what is not there"


# Large volumes


def test_a_large_volume_is_never_made() -> None:
    """300 x 512 x 512, of which one slice is in memory, seen 300 times: dense it would be 79 MB in bytes."""
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    plane = (((y - 250) ** 2 + (x - 260) ** 2) < 90**2).to(torch.uint8)
    plane[100:110, 400:500] = 2
    labels = plane.expand(300, -1, -1)
    began = time.perf_counter()
    tracemalloc.start()
    sparse = SparseLabels.of(labels)
    kept, peak = tracemalloc.get_traced_memory()
    assert kept < 1.2 * 20 * len(sparse.starts) < 1.6e6
    assert peak < 10e6
    tracemalloc.reset_peak()
    assert sparse.counts() == {1: 300 * int((plane == 1).sum()), 2: 300_000}
    box = VolumeCrop((200, 96, 390), (232, 224, 518 - 6), sparse.size)
    part = sparse.dense(2, box=box)
    assert int(part.sum()) == 32 * 10 * 100
    assert sparse.box_of(2) == VolumeCrop((0, 100, 400), (300, 110, 500), sparse.size)
    assert plane[sparse.voxel_of(1, seeded(0))[1:]] == 1
    assert plane[sparse.voxel_outside(1, seeded(0))[1:]] != 1
    assert tracemalloc.get_traced_memory()[1] < kept + 8e6
    tracemalloc.stop()
    assert time.perf_counter() - began < 5


def test_a_full_volume_takes_what_is_said(tmp_path: Path) -> None:
    sparse = SparseLabels.of(torch.ones(1, 1, 1, dtype=torch.uint8).expand(300, 512, 512))
    assert sparse.starts.nbytes + sparse.lengths.nbytes == 300 * 512 * 12
    sparse.save(tmp_path / "full.npz")
    assert (tmp_path / "full.npz").stat().st_size < 600_000


# Files


def saved(path: Path, **changes: Any) -> Path:
    sparse = SparseLabels.of(torch.from_numpy(drawn(0, (3, 4, 5))))
    arrays = {
        "size": np.array(sparse.size),
        "labels": np.array(sparse.labels),
        "bounds": sparse.bounds,
        "starts": sparse.starts,
        "lengths": sparse.lengths,
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


@given(seed=st.integers(0, 10_000), size=SIDES)
@settings(deadline=None, max_examples=15)
def test_files_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: tuple[int, int, int]
) -> None:
    sparse = SparseLabels.of(torch.from_numpy(drawn(seed, size)))
    path = tmp_path_factory.getbasetemp() / "sparse" / "labels.npz"
    sparse.save(path)
    first = path.read_bytes()
    found = SparseLabels.load(path)
    assert torch.equal(found.dense(), sparse.dense())
    assert (found.size, found.labels) == (sparse.size, sparse.labels)
    assert found.lengths.dtype == np.int32
    found.save(path)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["labels.npz"]
    copy = pickle.loads(pickle.dumps(found))
    assert copy.counts() == sparse.counts()


RUNS = SparseLabels.of(torch.from_numpy(drawn(0, (3, 4, 5))))


def changed(name: str, place: int, value: int) -> dict[str, np.ndarray]:
    array = np.array(getattr(RUNS, name), dtype=np.int64)
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": None}, "size is missing"),
        ({"starts": None}, "starts is missing"),
        ({"starts": np.zeros(3)}, "starts holds no whole numbers"),
        ({"lengths": np.array([[1]])}, "lengths holds no whole numbers"),
        ({"labels": np.array([{"a": 1}])}, "labels holds no whole numbers"),
        ({"size": np.array([3, 4])}, r"their volume's size is \(3, 4\), three sides"),
        ({"size": np.array([3, 4, 5, 6])}, "their volume's size is"),
        ({"size": np.array([3, 0, 5])}, "their volume's size is"),
        ({"size": np.array([2**31 - 1] * 3)}, "their volume's size is"),
        ({"size": np.array([3, 4, 4])}, "outside of the volume|past the end|the same voxel"),
        (changed("labels", 0, 0), "the labels are .*, ascending numbers from 1"),
        (changed("labels", 1, 1), "the labels are"),
        (changed("labels", -1, 2**40), "the labels are"),
        ({"labels": np.array(RUNS.labels[:-1])}, "the bounds .* do not share"),
        (changed("bounds", 0, 1), "the bounds"),
        (changed("bounds", -1, 2**62), "the bounds"),
        (changed("bounds", 1, 2**63 - 1), "the bounds"),
        (changed("bounds", 2, -3), "the bounds"),
        (changed("bounds", 1, 0), "the bounds"),
        ({"bounds": np.zeros(0, np.int64)}, "the bounds"),
        ({"lengths": RUNS.lengths[:-1]}, "there are .* starts and .* lengths"),
        (changed("starts", 0, -1), "a run starts at voxel -1"),
        (changed("starts", 2, 60), "a run starts at voxel .* 60, outside"),
        (changed("starts", 2, 2**63 - 1), "outside of the volume"),
        (changed("lengths", 0, 0), "a run has no voxel or goes past the end of its row of 5"),
        (changed("lengths", 0, 6), "a run has no voxel or goes past"),
        (changed("lengths", 0, 2**63 - 1), "a run has no voxel or goes past"),
        (changed("lengths", 0, 2**32 + 1), "a run has no voxel or goes past"),
        (changed("starts", 1, int(RUNS.starts[0])), "two of them hold the same voxel|past the end"),
        ({"starts": RUNS.starts.astype(np.uint64) + np.uint64(2**63)}, "a run starts at voxel -"),
    ],
)
def test_hostile_files_get_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = saved(tmp_path / "labels.npz")
    assert SparseLabels.load(path).counts() == RUNS.counts()
    with pytest.raises(ValueError, match=rf"labels.npz must hold .*({sentence}).*(write it with|make it again)"):
        SparseLabels.load(saved(path, **changes))


def test_runs_out_of_order_get_a_sentence(tmp_path: Path) -> None:
    labels = torch.zeros(1, 2, 9, dtype=torch.int64)
    labels[0, :, 3:5] = 1
    runs = SparseLabels.of(labels)
    swapped = {"starts": runs.starts[::-1], "lengths": runs.lengths[::-1]}
    one = {"size": np.array(runs.size), "labels": np.array([1]), "bounds": runs.bounds}
    with pytest.raises(ValueError, match="those of a label are not in ascending order"):
        SparseLabels.load(saved(tmp_path / "a.npz", **one, **swapped))
    with pytest.raises(ValueError, match=r"must fit together, but those of a label .*make them with SparseLabels.of"):
        SparseLabels((1, 2, 9), (1,), runs.bounds, swapped["starts"].copy(), swapped["lengths"].copy())


def test_files_of_another_kind_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere.npz"):
        SparseLabels.load(tmp_path / "nowhere.npz")
    path = saved(tmp_path / "a.npz")
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npz \([\d,]+ bytes\) cannot be read"):
            SparseLabels.load(path)

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return open, (str(tmp_path / "made"), "w")

    with pytest.raises(ValueError, match="nothing in it was executed"):
        SparseLabels.load(saved(path, starts=np.array([Evil()], dtype=object)))
    assert not (tmp_path / "made").exists()


@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_damaged_bytes_are_labels_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    """Written into the numbers themselves with their checksum, so that nothing but our own checks can tell."""
    path = tmp_path_factory.getbasetemp() / "damaged_labels.npz"
    content = {}
    with zipfile.ZipFile(saved(path)) as archive:
        content = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    for place, value in places:
        chosen = content[sorted(content)[place % len(content)]]
        chosen[128 + place % (len(chosen) - 128)] = value
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, changed_bytes in content.items():
            archive.writestr(name, bytes(changed_bytes))
    path.write_bytes(stream.getvalue())
    try:
        found = SparseLabels.load(path)
    except ValueError as error:
        assert "damaged_labels.npz" in str(error)  # noqa: PT017 - most are refused, some are other labels
    else:
        if np.prod(found.size) < 10_000:
            assert int((found.dense() > 0).sum()) == sum(found.counts().values())


# Wrong arguments


def test_wrong_arguments_get_a_sentence() -> None:
    for value in (-1, 2**31):
        with pytest.raises(ValueError, match=r"labels must be 0 for background and at most 2147483647 .*from 1"):
            SparseLabels.of(torch.full((1, 2, 2), value))
    with pytest.raises(ValueError, match=r"size is \(0, 2, 2\)"):
        SparseLabels.of(torch.zeros(0, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"size is \(2, 0, 2\)"):
        SparseLabels.of(torch.zeros(2, 0, 2, dtype=torch.int64))
    other = VolumeCrop((0, 0, 0), (1, 1, 1), (3, 4, 6))
    for use in (lambda: RUNS.dense(box=other), lambda: RUNS.crop(other)):
        with pytest.raises(ValueError, match=r"box must be one of a volume of the size \(3, 4, 5\).*\(3, 4, 6\)"):
            use()
    with pytest.raises(ValueError, match=r"label must be at least 1, got 0; background is what dense\(\) leaves 0"):
        RUNS.dense(0)
    with pytest.raises(ValueError, match="ascending numbers from 1"):
        RUNS.renumbered({1: -1})
    with pytest.raises(ValueError, match="read-only"):
        RUNS.starts[0] = 1


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("labels", "came"),
    [
        (torch.full((1, 2, 2), 1.7), r"torch.float32 of \(1, 2, 2\)"),
        (torch.full((1, 2, 2), float("nan")), "torch.float32"),
        (torch.ones(2, 2, dtype=torch.int64), r"torch.int64 of \(2, 2\)"),
        ([[[1]]], "list"),
    ],
)
def test_what_is_no_map_of_whole_numbers_gets_a_sentence(labels: Any, came: str) -> None:
    with pytest.raises(ValueError, match=rf"labels must be a tensor \(d, h, w\) of whole numbers, but it is {came}"):
        SparseLabels.of(labels)
