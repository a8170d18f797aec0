"""The challenge's cases and results: read, refused, written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from challenge_files import BOX, SIZE, entries, save
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data import (
    ChallengeBox,
    InteractiveCase,
    read_interactive_case,
    write_challenge_result,
    write_interactive_case,
)
from ultrarefiner.types import Clicks

# Reading


def test_a_case_as_the_challenge_writes_it(tmp_path: Path) -> None:
    order = np.empty(2, dtype=object)
    order[:] = [["fg", "bg", "fg"], []]
    case = read_interactive_case(save(tmp_path / "a.npz", clicks_order=order))
    truth = entries()
    assert np.array_equal(case.image[0].numpy(), truth["imgs"])
    assert case.image.dtype == torch.float32
    assert case.labels is not None
    assert np.array_equal(case.labels.numpy(), truth["gts"])
    assert case.previous is not None
    assert not case.previous.any()
    assert case.spacing == (3.0, 0.8, 0.8)
    assert case.boxes is not None
    assert case.boxes[0] == ChallengeBox(1, 4, 2, x_min=3, y_min=2, x_max=7, y_max=6)
    assert case.boxes[1].corners == (0, 2, 3, 4, 6, 7)
    assert case.clicks is not None
    assert case.clicks[0].positions.tolist() == [[[2, 3, 4], [0, 0, 0], [3, 3, 4]]]
    assert case.clicks[0].positive.tolist() == [[True, False, True]]
    assert case.clicks[1].positions.shape == (1, 0, 3)
    assert case.objects == 2


def test_parts_may_lack_and_the_order_too(tmp_path: Path) -> None:
    case = read_interactive_case(save(tmp_path / "a.npz", gts=None, boxes=None, prev_pred=None))
    assert case.boxes is None
    assert case.labels is None
    assert case.previous is None
    assert case.objects == 2
    assert case.clicks is not None
    assert case.clicks[0].positive.tolist() == [[True, True, False]]
    bare = read_interactive_case(save(tmp_path / "b.npz", boxes=None, prev_pred=None, clicks=None))
    assert bare.objects == 2, "the numbers of the truth"
    none = read_interactive_case(
        save(tmp_path / "c.npz", clicks_order=np.array(None), clicks=[{"fg": [], "bg": []}] * 2)
    )
    assert none.clicks is not None
    assert none.clicks[0].positions.shape == (1, 0, 3)


def test_rounds_without_a_click_do_not_spoil_the_order(tmp_path: Path) -> None:
    """The challenge's evaluation notes None for an object that was perfect in a round."""
    clicks = [{"fg": [[1, 1, 1]], "bg": [[2, 2, 2]]}, {"fg": [], "bg": [[3, 3, 3], [1, 2, 3]]}]
    order = np.empty(2, object)
    order[:] = [["bg", None, "fg"], [None, "bg", "bg"]]
    case = read_interactive_case(save(tmp_path / "a.npz", clicks=clicks, clicks_order=order))
    assert case.clicks is not None
    assert case.clicks[0].positions.tolist() == [[[2, 2, 2], [1, 1, 1]]]
    assert case.clicks[0].positive.tolist() == [[False, True]]
    assert case.clicks[1].positions.tolist() == [[[3, 3, 3], [1, 2, 3]]]
    perfect = read_interactive_case(
        save(tmp_path / "b.npz", clicks=[{"fg": [], "bg": []}] * 2, clicks_order=[[None, None], [None, None]])
    )
    assert perfect.clicks is not None
    assert [clicks.positions.shape[1] for clicks in perfect.clicks] == [0, 0]
    alone = read_interactive_case(
        save(tmp_path / "c.npz", boxes=None, clicks=np.array(clicks[0]), clicks_order=["bg", "fg"])
    )
    assert alone.clicks is not None
    assert alone.clicks[0].positive.tolist() == [[False, True]], "one object, its order with no list around it"


def test_clicks_as_numpy_found_them_are_read(tmp_path: Path) -> None:
    """np.argwhere gives positions column by column, and an order may be an array of strings."""
    there = np.zeros(SIZE)
    there[1, 2, 3] = there[4, 0, 8] = 1
    order = np.empty(2, object)
    order[:] = [np.array(["bg", "fg", "fg"]), np.array([], dtype="U2")]
    clicks = [{"fg": np.argwhere(there), "bg": np.array([[0, 1, 2]])}, {"fg": np.zeros((0, 3), int), "bg": []}]
    assert np.argwhere(there).flags.f_contiguous
    case = read_interactive_case(save(tmp_path / "a.npz", clicks=clicks, clicks_order=order))
    assert case.clicks is not None
    assert case.clicks[0].positions.tolist() == [[[0, 1, 2], [1, 2, 3], [4, 0, 8]]]
    assert case.clicks[0].positive.tolist() == [[False, True, True]]
    assert case.clicks[1].positions.shape == (1, 0, 3)


@pytest.mark.parametrize("nothing", [[], None, np.zeros((0, 7))])
def test_empty_lists_are_nothing_said(tmp_path: Path, nothing: Any) -> None:
    values = np.array(nothing, dtype=object) if nothing is None else nothing
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **entries(boxes=None, clicks=None), boxes=values, clicks=values)
    case = read_interactive_case(path)
    assert case.boxes is None
    assert case.clicks is None
    assert case.objects == 2, "the numbers of the truth"


# Files that are no case


def test_files_that_are_none_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere.npz; check the path"):
        read_interactive_case(tmp_path / "nowhere.npz")
    path = save(tmp_path / "a.npz")
    whole = path.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a.npz \([\d,]+ bytes\) cannot be read: .*copy it again"):
            read_interactive_case(path)
    np.savez(path, gts=np.zeros(SIZE))
    with pytest.raises(ValueError, match=r"must hold 'imgs', but it has gts; it is no case"):
        read_interactive_case(path)
    np.savez(path, other=np.zeros(SIZE))
    with pytest.raises(ValueError, match=r"must hold 'imgs', but it has nothing of the challenge"):
        read_interactive_case(path)


@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_damaged_bytes_are_a_case_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    path = save(tmp_path_factory.getbasetemp() / "damaged.npz")
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        read_interactive_case(path)
    except ValueError as error:
        assert "damaged.npz" in str(error)  # noqa: PT017 - damage may hit what is not read


def test_a_header_that_announces_more_than_is_there(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 100_000, 100_000)}
    )
    path = save(tmp_path / "a.npz", imgs=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("imgs.npy", header.getvalue() + b"abc")
    with pytest.raises(ValueError, match=r"announces \(100000, 100000, 100000\) of uint8, .* bytes, but 3 are there"):
        read_interactive_case(path)


def test_fortran_order_and_other_types_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=SIZE)
    case = read_interactive_case(save(tmp_path / "a.npz", imgs=np.asfortranarray(values)))
    assert np.array_equal(case.image[0].numpy(), values.astype(np.float32))
    swapped = read_interactive_case(save(tmp_path / "b.npz", imgs=values.astype(">f4")))
    assert torch.equal(swapped.image, case.image)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"imgs": np.zeros((4, 4))}, r"imgs of .* must be numbers \(slices, rows, columns\), got float64 of the shape"),
        ({"imgs": np.zeros((0, 4, 4))}, "imgs of"),
        ({"imgs": np.full(SIZE, "a")}, "imgs of"),
        ({"imgs": np.full(SIZE, np.nan)}, r"imgs of .* has 360 voxels that are NaN or infinite"),
        ({"imgs": np.zeros(SIZE, dtype=complex)}, "holds complex128, numbers are expected"),
        ({"spacing": (1.0, 1.0)}, r"spacing of .* must be three positive numbers in mm, got \[1.0, 1.0\]"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing of"),
        ({"spacing": (1.0, np.nan, 1.0)}, "spacing of"),
        ({"spacing": np.array(["a", "b", "c"])}, "spacing of"),
        ({"gts": np.zeros((5, 8, 8), np.uint8)}, r"gts of .* must be whole numbers on the voxels of imgs, \(5, 8, 9\)"),
        ({"gts": np.zeros(SIZE)}, "gts of .* must be whole numbers"),
        ({"gts": np.full(SIZE, -1)}, "gts of .* must be numbers of objects from 0 up, got -1 to -1"),
        ({"prev_pred": np.zeros((1, 1, 1), np.uint8)}, "prev_pred of"),
        ({"boxes": [BOX]}, "has 1 boxes and clicks for 2 objects"),
        ({"boxes": np.zeros((2, 6))}, "boxes of .* must be one dictionary an object with z_min, z_max"),
        ({"boxes": [{"z_min": 1}] * 2}, "boxes of .* must be one dictionary"),
        ({"boxes": [{**BOX, "z_max": 5}] * 2}, r"boxes of .* must lie inside the volume \(5, 8, 9\)"),
        ({"boxes": [{**BOX, "z_mid": 0}] * 2}, "with z_mid between"),
        ({"boxes": [{**BOX, "z_mid_x_min": -1}] * 2}, "boxes of .* must lie inside"),
        ({"boxes": [{**BOX, "z_mid_y_min": float("nan")}] * 2}, "boxes of .* must lie inside"),
        ({"boxes": [{**BOX, "z_mid_y_min": "2"}] * 2}, "boxes of .* must lie inside"),
        ({"boxes": [{**BOX, "z_mid_y_min": 2.5}] * 2}, "boxes of .* must lie inside"),
        ({"clicks": [{"fg": []}] * 2}, "clicks of .* must be one dictionary an object with the lists fg and bg"),
        ({"clicks": [{"fg": [[1, 2]], "bg": []}] * 2}, r"clicks of .* must be \(z, y, x\) inside the volume"),
        ({"clicks": [{"fg": [[5, 0, 0]], "bg": []}] * 2}, r"got \[5, 0, 0\]; count from 0"),
        ({"clicks": [{"fg": [], "bg": [3]}] * 2}, "clicks of .* got 3"),
        ({"clicks_order": np.array([["bg", "bg"], ["fg", "fg"]])}, "clicks_order of .* once, 2 fg and 1 bg, got list"),
        ({"clicks_order": [["fg", "bg", "FG"]] * 2}, "clicks_order of .* must name each click of an object once"),
        ({"clicks_order": [["fg", "bg", "fg"]]}, r"clicks_order of .* must be one list an object, 2 of them, got"),
        ({"clicks_order": ["fg", "bg"]}, "clicks_order of .* must name each click"),
        ({"clicks_order": np.array(3)}, "clicks_order of .* must be one list an object"),
    ],
)
def test_wrong_values_get_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_interactive_case(save(tmp_path / "a.npz", **changes))


# Writing


def test_what_is_written_is_read_again_and_by_the_challenge(tmp_path: Path) -> None:
    labels = torch.zeros(SIZE, dtype=torch.int64)
    labels[2, 3, 4] = 2
    case = InteractiveCase(
        image=torch.arange(360.0).reshape(1, *SIZE) / 2,
        spacing=(2.5, 0.7, 0.6),
        labels=labels,
        boxes=(ChallengeBox(1, 4, 2, 3, 2, 7, 6),) * 2,
        clicks=(Clicks.at([(1, 2, 3), (0, 1, 2), (4, 4, 4)], positive=[False, True, False]), Clicks.none(1, 3)),
        previous=labels * 0,
    )
    path = tmp_path / "new" / "case.npz"
    write_interactive_case(path, case)
    found = read_interactive_case(path)
    for name in ("image", "labels", "previous"):
        assert torch.equal(getattr(found, name), getattr(case, name))
    assert (found.spacing, found.boxes) == (case.spacing, case.boxes)
    assert found.clicks is not None
    assert case.clicks is not None
    for one, other in zip(found.clicks, case.clicks, strict=True):
        assert torch.equal(one.positions, other.positions)
        assert torch.equal(one.positive, other.positive)
    theirs = np.load(path, allow_pickle=True)  # as the evaluation opens it
    assert theirs["boxes"][0] == BOX
    assert theirs["clicks"][0] == {"fg": [[0, 1, 2]], "bg": [[1, 2, 3], [4, 4, 4]]}
    assert theirs["clicks_order"][0] == ["bg", "fg", "bg"]
    assert theirs["imgs"].dtype == np.float32
    first = path.read_bytes()
    write_interactive_case(path, found)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["case.npz"]


def test_bytes_stay_bytes_and_padding_is_no_click(tmp_path: Path) -> None:
    clicks = Clicks(torch.tensor([[[1, 1, 1], [2, 2, 2]]]), torch.tensor([[True, True]]), torch.tensor([[True, False]]))
    write_interactive_case(
        tmp_path / "a.npz", InteractiveCase(torch.full((1, *SIZE), 255.0), (1.0, 1.0, 1.0), clicks=(clicks,))
    )
    theirs = np.load(tmp_path / "a.npz", allow_pickle=True)
    assert theirs["imgs"].dtype == np.uint8
    assert theirs["clicks"][0] == {"fg": [[1, 1, 1]], "bg": []}
    assert sorted(theirs.files) == ["clicks", "clicks_order", "imgs", "spacing"]


def test_results_are_bytes(tmp_path: Path) -> None:
    labels = torch.randint(0, 256, SIZE, generator=torch.Generator().manual_seed(0))
    write_challenge_result(tmp_path / "a.npz", labels)
    with np.load(tmp_path / "a.npz") as found:
        assert found.files == ["segs"]
        assert np.array_equal(found["segs"], labels.numpy())
    for bad in (labels - 1, labels + 1):
        with pytest.raises(ValueError, match=r"labels must be in 0 to 255, got .* the challenge reads bytes"):
            write_challenge_result(tmp_path / "b.npz", bad)
    assert not (tmp_path / "b.npz").exists()
