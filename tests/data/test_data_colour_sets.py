"""GlaS, MoNuSeg and the polyp sets, in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ultrarefiner.data import GlaS, MoNuSeg, Polyps, group_folds

Draw = Callable[..., Path]
PINK = (230, 160, 200)


@pytest.fixture
def glas(tmp_path: Path, draw: Draw) -> Path:
    inner = "Warwick_QU_Dataset"
    rows = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"
    parts = {"train": (1, 2, 10), "testA": (1, 2), "testB": (1,)}
    for part, numbers in parts.items():
        for number in numbers:
            draw(f"{inner}/{part}_{number}.bmp", PINK)
            draw(f"{inner}/{part}_{number}_anno.bmp", 3, box=(0, 2, 0, 4))
            kind = "benign" if number == 2 else "malignant"
            rows += f"{part}_{number},{number}, {kind}, healthy\n"
    (tmp_path / inner / "Grade.csv").write_text(rows)
    return tmp_path


def test_glas_is_read_with_patients_grades_and_numbered_glands(glas: Path) -> None:
    dataset = GlaS(glas)
    assert dataset.names == ("train_1", "train_2", "train_10")
    assert dataset.groups == ("patient 1", "patient 2", "patient 10")
    assert dataset.labels == ("malignant", "benign", "malignant")
    assert not dataset.unseen
    assert dataset[0].image.shape == (3, 6, 8)
    assert dataset[0].mask.sum() == 8  # of 3, which is no mask of black and white
    assert GlaS(glas / "Warwick_QU_Dataset").names == dataset.names


def test_the_parts_of_glas(glas: Path) -> None:
    assert GlaS(glas, split="testA").names == ("testA_1", "testA_2")
    assert GlaS(glas, split="testB").names == ("testB_1",)
    assert GlaS(glas, split="test").names == ("testA_1", "testA_2", "testB_1")
    assert GlaS(glas, split="test").unseen
    assert GlaS(glas, split="testB").unseen
    whole = GlaS(glas, split="all")
    assert (len(whole), whole.unseen) == (6, False)
    folds = group_folds(whole, folds=2, seed=0)
    assert folds.assignment["train_1"] == folds.assignment["testA_1"] == folds.assignment["testB_1"]
    with pytest.raises(ValueError, match="unseen test set and is not split"):
        group_folds(GlaS(glas, split="test"), folds=2, seed=0)


def test_glas_without_its_table_has_no_patients(glas: Path) -> None:
    (glas / "Warwick_QU_Dataset" / "Grade.csv").unlink()
    dataset = GlaS(glas)
    assert dataset.groups == dataset.names
    assert set(dataset.labels) == {"unknown"}


def test_what_is_wrong_with_glas_is_said(glas: Path, tmp_path: Path, draw: Draw, unhooked: None) -> None:
    with pytest.raises(ValueError, match=r"split must be one of 'train', .*'all', got 'val'"):
        GlaS(glas, split="val")  # type: ignore[arg-type] # that is the point
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no GlaS here: expected pictures called train_1\.bmp"):
        GlaS(tmp_path / "other")
    draw("part/train_1.bmp", PINK)
    with pytest.raises(ValueError, match=r"first is 'train_1\.bmp', whose mask must be called 'train_1_anno'"):
        GlaS(tmp_path / "part")
    draw("part/train_1_anno.bmp", 1)
    with pytest.raises(ValueError, match="has no picture of the split 'testA'"):
        GlaS(tmp_path / "part", split="testA")
    table = glas / "Warwick_QU_Dataset" / "Grade.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:2]))
    with pytest.raises(ValueError, match=r"train_2\.bmp has no row in .*Grade\.csv, so its patient is unknown"):
        GlaS(glas)
    table.write_text("name,grade\ntrain_1,benign\n")
    with pytest.raises(ValueError, match="lacks the column 'patient ID'"):
        GlaS(glas)


@pytest.mark.parametrize(
    ("train", "test", "images", "masks"),
    [("Training", "Test", "img", "mask"), ("Train_Folder", "Test_Folder", "img", "labelcol")],
)
def test_monuseg_in_both_layouts(tmp_path: Path, draw: Draw, train: str, test: str, images: str, masks: str) -> None:
    for name in ("TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592-01Z-00-DX2", "0001"):
        draw(f"MoNuSeg/{train}/{images}/{name}.tif", PINK)
        draw(f"MoNuSeg/{train}/{masks}/{name}.png", 255, box=(0, 3, 0, 3))
    draw(f"MoNuSeg/{test}/{images}/TCGA-2Z-A9J9-01A-01-TS1.png", PINK)
    draw(f"MoNuSeg/{test}/{masks}/TCGA-2Z-A9J9-01A-01-TS1.png", 17, box=(0, 3, 0, 3))
    dataset = MoNuSeg(tmp_path)
    assert dataset.names == ("0001", "TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592-01Z-00-DX2")
    assert dataset.groups == ("0001", "TCGA-18-5592", "TCGA-18-5592")
    assert (dataset.unseen, dataset[1].image.shape, dataset[1].mask.sum()) == (False, (3, 6, 8), 9)
    held = MoNuSeg(tmp_path / "MoNuSeg", split="test")
    assert (held.unseen, held.groups) == (True, ("TCGA-2Z-A9J9",))
    with pytest.raises(ValueError, match="largest number is 17"):
        _ = held[0]
    assert MoNuSeg(tmp_path, split="test", label_maps=True)[0].mask.sum() == 9


def test_what_is_wrong_with_monuseg_is_said(tmp_path: Path, draw: Draw, unhooked: None) -> None:
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        MoNuSeg(tmp_path, split="val")  # type: ignore[arg-type] # that is the point
    with pytest.raises(FileNotFoundError, match="no MoNuSeg here: expected a folder Training or Train_Folder or Train"):
        MoNuSeg(tmp_path)
    outlines = tmp_path / "raw" / "MoNuSeg 2018 Training Data" / "Annotations" / "TCGA-18-5592-01Z-00-DX1.xml"
    outlines.parent.mkdir(parents=True)
    outlines.write_text("<Annotations/>")
    with pytest.raises(FileNotFoundError, match=r"has outlines in XML \(TCGA-.*\.xml\) and no masks, .*Training/mask"):
        MoNuSeg(tmp_path / "raw")
    draw("Training/img/a.png", PINK)
    with pytest.raises(FileNotFoundError, match="expected a folder mask or masks or labelcol in"):
        MoNuSeg(tmp_path)
    draw("Training/mask/b.png")
    with pytest.raises(ValueError, match=r"1 of 1 images in .* have no mask"):
        MoNuSeg(tmp_path)


@pytest.fixture
def polyps(tmp_path: Path, draw: Draw) -> Path:
    for place, names in (
        ("TrainDataset/TrainDataset/image", ("1", "cju0", "2")),
        ("TestDataset/TestDataset/Kvasir/images", ("cju1",)),
        ("TestDataset/TestDataset/CVC-300/images", ("1", "2")),
    ):
        for name in names:
            draw(f"polyp/{place}/{name}.png", PINK)
            draw(f"polyp/{place.replace('image', 'mask')}/{name}.png", 255, box=(0, 3, 0, 3))
    return tmp_path


def test_polyps_in_pranets_split(polyps: Path) -> None:
    train = Polyps(polyps)
    assert train.names == train.groups == ("train/1", "train/2", "train/cju0")
    assert (train.unseen, train[0].image.shape, train[0].mask.sum()) == (False, (3, 6, 8), 9)
    held = Polyps(polyps / "polyp", split="CVC-300")
    assert (held.names, held.unseen) == (("CVC-300/1", "CVC-300/2"), True)
    assert Polyps(polyps, split="Kvasir").names == ("Kvasir/cju1",)


def test_groups_of_polyps_come_from_a_table(polyps: Path) -> None:
    table = polyps / "groups.csv"
    table.write_text("case,group\ntrain/1,7\ntrain/2,7\ntrain/cju0,8\nCVC-300/1,9\n")
    assert Polyps(polyps, groups=table).groups == ("group 7", "group 7", "group 8")
    with pytest.raises(ValueError, match=r"no group to 1 of the 2 cases, the first is 'CVC-300/2'"):
        Polyps(polyps, split="CVC-300", groups=table)


def test_what_is_wrong_with_polyps_is_said(polyps: Path, tmp_path: Path, draw: Draw) -> None:
    for split in ("ETIS-LaribPolypDB", ""):
        with pytest.raises(FileNotFoundError, match=rf"got '{split}'; there is 'CVC-300', 'Kvasir': give one of them"):
            Polyps(polyps, split=split)
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="no polyp set in PraNet's split here: expected TrainDataset in one of"):
        Polyps(tmp_path / "other")
    draw("other/TestDataset/Kvasir/images/a.png", PINK)
    with pytest.raises(FileNotFoundError, match="no polyp set 'Kvasir' here: expected a folder masks or mask in"):
        Polyps(tmp_path / "other", split="Kvasir")
    draw("other/TestDataset/Kvasir/masks/b.png")
    with pytest.raises(ValueError, match=r"1 of 1 images in .* have no mask"):
        Polyps(tmp_path / "other", split="Kvasir")
