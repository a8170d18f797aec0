from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ultrarefiner.data.busi import BUSI
from ultrarefiner.data.folds import group_folds
from ultrarefiner.data.tables import read_groups, read_table

Draw = Callable[..., Path]
REAL = Path(__file__).parents[3] / "shared" / "data" / "busi"


@pytest.fixture
def root(tmp_path: Path, draw: Draw) -> Path:
    for label, numbers in (("benign", (1, 2, 10)), ("malignant", (1,)), ("normal", (1,))):
        for number in numbers:
            draw(f"Dataset_BUSI_with_GT/{label}/{label} ({number}).png", 51)
            draw(
                f"Dataset_BUSI_with_GT/{label}/{label} ({number})_mask.png",
                0 if label == "normal" else 255,
                box=(0, 2, 0, 2),
            )
    draw("Dataset_BUSI_with_GT/benign/benign (2)_mask_1.png", box=(4, 6, 0, 2))
    draw("Dataset_BUSI_with_GT/benign/benign (2)_mask_2.png", box=(4, 6, 4, 6))
    return tmp_path


def test_the_kaggle_layout(root: Path) -> None:
    dataset = BUSI(root)
    assert dataset.names == ("benign (1)", "benign (2)", "benign (10)", "malignant (1)")
    assert dataset.labels == ("benign", "benign", "benign", "malignant")
    assert dataset.groups == dataset.names
    assert dataset[0].mask.sum() == 4
    assert dataset[1].mask.sum() == 12
    assert BUSI(root / "Dataset_BUSI_with_GT").names == dataset.names


def test_normal_images_are_asked_for(root: Path) -> None:
    dataset = BUSI(root, normal=True)
    assert len(dataset) == 5
    assert dataset.labels[-1] == "normal"
    assert dataset[4].mask.sum() == 0


def test_groups_come_from_a_table(root: Path) -> None:
    table = root / "groups.csv"
    table.write_text("case,group\nbenign (1),7\nmalignant (1),7\nbenign (2),8\nbenign (10),3\nbenign (999),9\n")
    assert BUSI(root, groups=table).groups == ("group 7", "group 8", "group 3", "group 7")


def test_a_table_of_groups_without_the_cases_gets_a_sentence(root: Path) -> None:
    table = root / "groups.csv"
    table.write_text("case,group\nbenign (1),7\nmalignant (1),7\nbenign (2),8\n")
    with pytest.raises(ValueError, match=r"no group to 1 of the 4 cases, the first is 'benign \(10\)'; a case without"):
        BUSI(root, groups=table)
    table.write_text("case,group\nbenign (1).png,7\nbenign (2).png,7\n")
    with pytest.raises(ValueError, match=r"no group to 4 of the 4 cases, the first is 'benign \(1\)'"):
        BUSI(root, groups=table)


def test_a_broken_layout_gets_a_sentence(root: Path, draw: Draw) -> None:
    with pytest.raises(FileNotFoundError, match=r"no BUSI here: expected benign and malignant"):
        BUSI(root / "elsewhere")
    place = root / "Dataset_BUSI_with_GT" / "benign"
    draw("Dataset_BUSI_with_GT/benign/benign (3).png")
    with pytest.raises(ValueError, match=r"1 cases in .*benign have no mask, the first is 'benign \(3\)'"):
        BUSI(root)
    (place / "benign (3).png").rename(place / "benign (3)_mask.png")
    with pytest.raises(ValueError, match=r"1 cases in .*benign have no image, the first is 'benign \(3\)'"):
        BUSI(root)


def test_wrong_tables_get_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    with pytest.raises(FileNotFoundError, match=r"there is no table .*groups\.csv"):
        read_groups(path)
    path.write_text("case,patient\na,1\n")
    with pytest.raises(ValueError, match=r"lacks the column 'group', it has case, patient"):
        read_groups(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"lacks the column 'case', it has none"):
        read_groups(path)
    path.write_text("case,group\na,1\na,2\n")
    with pytest.raises(ValueError, match=r"puts 'a' into two groups"):
        read_groups(path)
    path.write_text("case,group\na,1\nb\n")
    with pytest.raises(ValueError, match=r"line 3 of .* is too short"):
        read_groups(path)


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "INFO.csv"
    path.write_bytes("\ufeffImage; Label\r\nA_0.png;Benign \r\n".encode())
    assert read_table(path, ["Image", "Label"], delimiter=";") == [{"Image": "A_0.png", "Label": "Benign"}]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real images are not at {REAL}")
def test_the_real_images() -> None:
    dataset = BUSI(REAL, groups=REAL / "near_duplicate_groups.csv")
    assert Counter(dataset.labels) == {"benign": 349, "malignant": 168}
    assert len(BUSI(REAL, normal=True)) == 623
    assert sum(len(files.masks) > 1 for files in dataset.files) > 5
    for index in (0, 100, 400):
        case = dataset[index]
        assert 0.05 < case.image.mean() < 0.95
        assert case.mask.sum() > 0
    folds = group_folds(dataset, folds=5, seed=0)
    folds.check(dataset)
    assert all(80 < len(folds.validation(fold)) < 127 for fold in range(5))
