from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ultrarefiner.data.folder import ImageFolder, find_root, pictures_in

Draw = Callable[..., Path]


def test_images_and_masks_are_paired_by_name(tmp_path: Path, draw: Draw) -> None:
    for name in ("p2-b.jpg", "p10-a.png", "p2-a.bmp"):
        draw(f"images/{name}")
        draw(f"masks/{Path(name).stem}.png", box=(0, 3, 0, 8))
    draw("masks/stray.png")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    dataset = ImageFolder(
        tmp_path / "images",
        tmp_path / "masks",
        group=lambda name: name.split("-")[0],
        label=lambda name: "benign" if name.endswith("a") else "malignant",
    )
    assert dataset.names == ("p2-a", "p2-b", "p10-a")
    assert dataset.groups == ("p2", "p2", "p10")
    assert dataset.labels == ("benign", "malignant", "benign")
    assert dataset[0].mask.mean() == 0.5


def test_without_functions_every_case_is_its_own_group(tmp_path: Path, draw: Draw) -> None:
    for name in ("a", "b"):
        draw(f"images/{name}.png")
        draw(f"masks/{name}_seg.png")
    dataset = ImageFolder(tmp_path / "images", tmp_path / "masks", mask_suffix="_seg", unseen=True)
    assert dataset.groups == dataset.names == ("a", "b")
    assert dataset.labels == ("unknown", "unknown")
    assert dataset.unseen


def test_one_folder_holds_both(tmp_path: Path, draw: Draw) -> None:
    for name in ("a.png", "a_mask.png", "b.png", "b_mask.png"):
        draw(name)
    dataset = ImageFolder(tmp_path, tmp_path, mask_suffix="_mask")
    assert dataset.names == ("a", "b")
    assert dataset.files[1].masks[0].name == "b_mask.png"
    with pytest.raises(ValueError, match=r"every image would be its own mask"):
        ImageFolder(tmp_path, tmp_path)


def test_wrong_folders_get_a_sentence(tmp_path: Path, draw: Draw) -> None:
    draw("images/a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone"):
        ImageFolder(tmp_path / "images", tmp_path / "gone")
    with pytest.raises(ValueError, match=r"the folder .*empty has no pictures"):
        ImageFolder(tmp_path / "images", tmp_path / "empty")
    with pytest.raises(ValueError, match=r"the folder .*empty has no pictures"):
        ImageFolder(tmp_path / "empty", tmp_path / "images")
    draw("masks/b.png")
    with pytest.raises(
        ValueError, match=r"1 of 1 images in .* have no mask .* first is 'a\.png', whose mask must be called 'a'"
    ):
        ImageFolder(tmp_path / "images", tmp_path / "masks")
    draw("masks/a.png")
    draw("images/a.bmp")
    with pytest.raises(ValueError, match=r"a\.png and .*a\.bmp have the same name"):
        ImageFolder(tmp_path / "images", tmp_path / "masks")


def test_the_root_may_be_nested_or_missing(tmp_path: Path) -> None:
    inner = tmp_path / "BUS_UC" / "BUS_UC"
    (inner / "All").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "BUS_UC", inner):
        assert find_root(root, ["All"], inside=["BUS_UC"], dataset="BUS-UC") == inner
    with pytest.raises(FileNotFoundError, match=r"no BUS here: expected original and GT in one of .*give the folder"):
        find_root(tmp_path, ["original", "GT"], inside=["BUS"], dataset="BUS")


def test_groups_come_from_a_table(tmp_path: Path, draw: Draw) -> None:
    for name in ("a", "b", "c"):
        draw(f"images/{name}.png")
        draw(f"masks/{name}.png")
    folders, table = (tmp_path / "images", tmp_path / "masks"), tmp_path / "groups.csv"
    table.write_text("case,group\nc,1\na,1\nb,2\nelsewhere,3\n")
    assert ImageFolder(*folders, groups=table).groups == ("group 1", "group 2", "group 1")
    with pytest.raises(
        ValueError, match=r"both the table groups=.*groups\.csv and the function group say it; give one"
    ):
        ImageFolder(*folders, groups=table, group=str)
    table.write_text("case,group\nc,1\na,1\n")
    with pytest.raises(ValueError, match="no group to 1 of the 3 cases, the first is 'b'"):
        ImageFolder(*folders, groups=str(table))
    with pytest.raises(FileNotFoundError, match="there is no table"):
        ImageFolder(*folders, groups=tmp_path / "gone.csv")


def test_a_folder_of_volumes_says_what_opens_them(tmp_path: Path, draw: Draw) -> None:
    for name in ("p2.nii.gz", "p1.NII", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no pictures, but 2 NIfTI volumes \(such as 'p1\.NII'\); .*VolumeSlices, .*'vol"
    ):
        pictures_in(tmp_path)
    draw("a.png")
    assert [path.name for path in pictures_in(tmp_path)] == ["a.png"]
