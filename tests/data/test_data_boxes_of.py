"""Boxes from a table for cases of any kind, above all for slices of volumes that have no masks."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ultrarefiner.data import (
    BoxesOf,
    BoxTable,
    CaseDataset,
    FittedCases,
    ImageFolder,
    Phantoms,
    VolumeFiles,
    VolumeSlices,
    group_folds,
)


def volumes(root: Path) -> VolumeSlices:
    """Two patients, 3 slices each, 8 wide and 6 high; no mask anywhere."""
    files = []
    for number in (1, 2):
        path = root / f"p{number}.nii.gz"
        voxels = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
        files.append(VolumeFiles(f"p{number}", path, None, None, f"patient {number}", "benign"))
    return VolumeSlices(files)


def table(root: Path, rows: str) -> Path:
    path = root / "boxes.csv"
    path.write_text("case,x0,y0,x1,y1\n" + rows)
    return path


def test_slices_with_boxes_need_no_mask_anywhere(tmp_path: Path) -> None:
    slices = volumes(tmp_path)
    rows = "p1/slice_001,1.4,2,5.6,4\np2/slice_000,0,0,8,6\np2/slice_000,1,1,2,2\n"
    boxes = BoxesOf(slices, table(tmp_path, rows))
    assert (boxes.names, boxes.groups, boxes.labels) == (slices.names, slices.groups, slices.labels)
    assert boxes.boxed == ("p1/slice_001", "p2/slice_000")
    assert boxes.unboxed == tuple(name for name in slices.names if name not in boxes.boxed)
    assert boxes.subset(["p1/slice_000", "p1/slice_001"]).unboxed == ("p1/slice_000",)
    assert [boxes[index].mask.sum().item() for index in range(6)] == [0, 5 * 2, 0, 48, 0, 0]
    rows, columns = boxes[1].mask[0].nonzero(as_tuple=True)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (1, 2, 6, 4)
    assert (boxes[1].image == slices[1].image).all()
    alone = boxes.subset(boxes.boxed)
    assert (alone.names, alone.boxed, len(alone)) == (boxes.boxed, boxes.boxed, 2)
    assert alone[1].mask.sum() == 48
    assert len(boxes) == 6  # the whole is left as it was
    assert FittedCases(alone, 16)[0].mask.sum() == 4 * 10
    assert set(group_folds(boxes, folds=2, seed=0).assignment) == set(slices.names)


def test_masks_that_the_cases_have_are_not_used(tmp_path: Path) -> None:
    outlined = Phantoms(2, size=(48, 64))
    assert all(outlined[index].mask.any() for index in range(2))
    boxes = BoxesOf(outlined, table(tmp_path, "phantom 1,0,0,4,4\n"))
    assert [boxes[index].mask.sum().item() for index in range(2)] == [0, 16]
    assert boxes[0].other_mask is None
    assert not boxes.unseen


def test_an_unseen_set_stays_unseen(tmp_path: Path) -> None:
    slices = volumes(tmp_path)
    slices.unseen = True
    assert BoxesOf(slices, table(tmp_path, "")).unseen
    assert BoxesOf(slices, table(tmp_path, "")).boxed == ()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("p1,1,2,3,4\n", "has a box of 'p1', but the data set has no image of that name; its first is 'p1/slice_000'"),
        ("p1/slice_000,1,x,3,4\n", "must have numbers in x0, y0, x1, y1, but the row of 'p1/slice_000' has not"),
        ("p1/slice_000,1,2,9,4\n", "must cover a pixel and lie inside its image of width 8 and height 6"),
        ("p1/slice_000,5,2,5,4\n", "must have 0 <= x0 < x1 and 0 <= y0 < y1"),
    ],
)
def test_boxes_that_cannot_be_are_said(tmp_path: Path, rows: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _ = BoxesOf(volumes(tmp_path), table(tmp_path, rows))[0]


def test_wrong_names_and_tables_are_said(tmp_path: Path) -> None:
    slices = volumes(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no table"):
        BoxesOf(slices, tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="1 of the 1 wanted names are not in the data set"):
        BoxesOf(slices, table(tmp_path, "")).subset(["p9"])
    assert not isinstance(BoxesOf(slices, table(tmp_path, "")), CaseDataset)


def pictures(root: Path, names: str) -> Path:
    for name in names:
        Image.new("L", (8, 6), 90).save(root / f"{name}.png")
    return root


def test_pictures_without_a_box_are_named(tmp_path: Path) -> None:
    boxes = BoxTable(pictures(tmp_path, "abc"), table(tmp_path, "b,1,1,3,3\n"))
    assert (boxes.boxed, boxes.unboxed) == (("b",), ("a", "c"))
    assert boxes.subset(["a", "b"]).unboxed == ("a",)


def test_all_boxes_outside_of_their_pictures_are_said_together_at_opening(tmp_path: Path) -> None:
    root = pictures(tmp_path, "abcdefgh")
    rows = "".join(f"{name},1,2,9,4\n" for name in "abc") + "d,1,1,4,4\nd,0,0,8,7\n"
    with pytest.raises(ValueError, match="4 boxes to correct") as found:
        BoxTable(root, table(root, rows))
    said = str(found.value)
    assert [name for name in "abcdefgh" if f"of '{name}' must cover a pixel" in said] == ["a", "b", "c", "d"]
    assert "(0.0, 0.0, 8.0, 7.0) of 'd' must cover a pixel and lie inside its image of width 8 and height 6." in said
    with pytest.raises(ValueError, match=r"8 boxes to correct: .* of 'e' .*; and 3 more. Coordinates") as found:
        BoxTable(root, table(root, "".join(f"{name},1,2,9,4\n" for name in "abcdefgh")))
    assert "of 'f'" not in str(found.value)
    (tmp_path / "masks").mkdir()
    folder = ImageFolder(root, pictures(tmp_path / "masks", "abcdefgh"))
    with pytest.raises(ValueError, match=r"1 boxes to correct: the box .* of 'a'"):
        BoxesOf(folder, table(root, "a,7.6,1,8,4\n"))


def test_boxes_are_held_against_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (8, 6), 90).save(tmp_path / "a.jpg", exif=exif)
    boxes = BoxTable(tmp_path, table(tmp_path, "a,0,0,6,8\n"))
    assert boxes[0].mask.shape == (1, 8, 6)
    assert boxes[0].mask.all()
    with pytest.raises(ValueError, match="inside its image of width 6 and height 8"):
        BoxTable(tmp_path, table(tmp_path, "a,0,0,8,6\n"))


def test_groups_of_pictures_with_boxes_come_from_a_table(tmp_path: Path) -> None:
    root, boxes = pictures(tmp_path, "abc"), table(tmp_path, "b,1,1,3,3\n")
    groups = tmp_path / "groups.csv"
    groups.write_text("case,group\na,7\nc,7\nb,8\nz,9\n")
    assert BoxTable(root, boxes, groups=groups).groups == ("group 7", "group 8", "group 7")
    assert BoxTable(root, boxes).groups == ("a", "b", "c")
    groups.write_text("case,group\na,7\n")
    with pytest.raises(ValueError, match="no group to 2 of the 3 cases, the first is 'b'"):
        BoxTable(root, boxes, groups=groups)
    with pytest.raises(ValueError, match=r"both the table .* and the function group say it; give one"):
        BoxTable(root, boxes, groups=groups, group=str)
