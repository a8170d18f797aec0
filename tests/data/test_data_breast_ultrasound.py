from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ultrarefiner.data.breast_ultrasound import BUS, BUSBRA, BUSUC, BUSUCLM, UDIAT
from ultrarefiner.data.folds import group_folds

Draw = Callable[..., Path]
RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


@pytest.fixture
def busbra(tmp_path: Path, draw: Draw) -> Path:
    root = tmp_path / "BUSBRA"
    for name in ("0001-l", "0001-r", "0002-l"):
        draw(f"BUSBRA/Images/bus_{name}.png", 51)
        draw(f"BUSBRA/Masks/mask_{name}.png", box=(0, 3, 0, 8))
    (root / "bus_data.csv").write_text(
        "ID,Case,Histology,Pathology,BIRADS\nbus_0001-l,1,x,Malignant,5\nbus_0001-r,1,x,malignant,5\n"
        "bus_0002-l,2,y,benign,2\n"
    )
    (root / "5-fold-cv.csv").write_text(
        "ID,Pathology,kFold\nbus_0001-l,malignant,5\nbus_0001-r,malignant,5\nbus_0002-l,benign,1\n"
    )
    return tmp_path


def test_busbra_has_patients_and_its_own_folds(busbra: Path) -> None:
    dataset = BUSBRA(busbra)
    assert dataset.names == ("bus_0001-l", "bus_0001-r", "bus_0002-l")
    assert dataset.groups == ("patient 1", "patient 1", "patient 2")
    assert dataset.labels == ("malignant", "malignant", "benign")
    assert dataset[0].mask.mean() == 0.5
    folds = dataset.own_folds
    assert folds.count == 5
    assert folds.seed is None
    assert folds.validation(4) == ("bus_0001-l", "bus_0001-r")
    assert folds.training(4) == ("bus_0002-l",)
    assert BUSBRA(busbra / "BUSBRA").names == dataset.names


def test_busbra_names_what_is_missing(busbra: Path, draw: Draw) -> None:
    root = busbra / "BUSBRA"
    (root / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,1\nbus_0001-r,2\nbus_0002-l,3\n")
    with pytest.raises(ValueError, match=r"the folds split the group 'patient 1'"):
        _ = BUSBRA(root).own_folds
    (root / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,1\n")
    with pytest.raises(ValueError, match=r"2 cases of the data set have no fold"):
        _ = BUSBRA(root).own_folds
    (root / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,one\n")
    with pytest.raises(ValueError, match=r"has the fold 'one'; kFold is a number from 1 to 5"):
        _ = BUSBRA(root).own_folds
    (root / "5-fold-cv.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no table .*5-fold-cv\.csv"):
        _ = BUSBRA(root).own_folds
    draw("BUSBRA/Images/bus_0003-l.png")
    draw("BUSBRA/Masks/mask_0003-l.png")
    with pytest.raises(ValueError, match=r"bus_0003-l\.png has no row in .*bus_data\.csv"):
        BUSBRA(root)
    (root / "bus_data.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no BUS-BRA here: expected Images and Masks and bus_data\.csv"):
        BUSBRA(root)


@pytest.mark.parametrize("ending", ["", "_GT"])
def test_bus(tmp_path: Path, draw: Draw, ending: str) -> None:
    for name in ("case10", "case2"):
        draw(f"BUS/original/{name}.png", 51)
        draw(f"BUS/GT/{name}{ending}.bmp", box=(0, 3, 0, 8))
    dataset = BUS(tmp_path)
    assert dataset.names == dataset.groups == ("case2", "case10")
    assert dataset[0].mask.mean() == 0.5
    assert not dataset.unseen


def test_udiat_is_kept_for_testing(tmp_path: Path, draw: Draw) -> None:
    for number in range(6):
        draw(f"UDIAT/original/00000{number}.png", 51)
        draw(f"UDIAT/GT/00000{number}.png")
    dataset = UDIAT(tmp_path / "UDIAT")
    assert len(dataset) == 6
    assert dataset.unseen
    for one in (dataset, dataset.subset(dataset.names[:5])):
        with pytest.raises(ValueError, match=r"kept as an unseen test set and is not split"):
            group_folds(one, folds=2, seed=0)


def test_busuc_by_label_or_all(tmp_path: Path, draw: Draw) -> None:
    for folder in ("All", "Benign", "Malignant"):
        draw(f"BUS_UC/BUS_UC/{folder}/images/001.png", 51)
        draw(f"BUS_UC/BUS_UC/{folder}/masks/001.png")
    dataset = BUSUC(tmp_path)
    assert dataset.names == dataset.groups == ("Benign/001", "Malignant/001")
    assert dataset.labels == ("benign", "malignant")
    (tmp_path / "BUS_UC" / "BUS_UC" / "Benign").rename(tmp_path / "elsewhere")
    dataset = BUSUC(tmp_path)
    assert dataset.names == ("001",)
    assert dataset.labels == ("unknown",)
    with pytest.raises(FileNotFoundError, match=r"no BUS-UC .*expected All"):
        BUSUC(tmp_path / "elsewhere")


@pytest.fixture
def busuclm(tmp_path: Path, draw: Draw) -> Path:
    for name, colour in (("ALWI_000", GREEN), ("ALWI_001", BLACK), ("COPE_000", RED), ("COPE_001", (255, 255, 255))):
        draw(f"BUS-UCLM/images/{name}.png", (51, 51, 51))
        draw(f"BUS-UCLM/masks/{name}.png", colour, box=(0, 3, 0, 8))
    return tmp_path


def test_busuclm_by_patient_with_labels_from_the_colours(busuclm: Path) -> None:
    dataset = BUSUCLM(busuclm, normal=True)
    assert dataset.names == ("ALWI_000", "ALWI_001", "COPE_000", "COPE_001")
    assert dataset.groups == ("patient ALWI", "patient ALWI", "patient COPE", "patient COPE")
    assert dataset.labels == ("benign", "normal", "malignant", "unknown")
    assert [case.mask.mean().item() for case in (dataset[0], dataset[1], dataset[2])] == [0.5, 0.0, 0.5]
    assert dataset.left_out == ()
    assert BUSUCLM(busuclm).names == ("ALWI_000", "COPE_000", "COPE_001")


def test_busuclm_says_what_it_leaves_out(busuclm: Path, draw: Draw) -> None:
    for number in (2, 3):
        draw(f"BUS-UCLM/images/COPE_00{number}.png", size=(5, 8))
        draw(f"BUS-UCLM/masks/COPE_00{number}.png", RED)
    with pytest.warns(UserWarning, match=r"2 images were left out, because .*; the first is 'COPE_002'"):
        dataset = BUSUCLM(busuclm)
    assert dataset.left_out == ("COPE_002", "COPE_003")
    assert dataset.names == ("ALWI_000", "COPE_000", "COPE_001")


def test_busuclm_takes_labels_from_its_table(busuclm: Path, draw: Draw) -> None:
    table = busuclm / "BUS-UCLM" / "INFO.csv"
    rows = [f"{name}.png;{label};No" for name, label in (("ALWI_000", "Benign"), ("ALWI_001", "Normal"))]
    rows += [f"COPE_00{number}.png;Malignant;No" for number in range(2)]
    table.write_text("Image;Label;Doppler\n" + "\n".join(rows) + "\n")
    assert BUSUCLM(busuclm, normal=True).labels == ("benign", "normal", "malignant", "malignant")
    table.write_text("Image;Label\nALWI_000.png;Benign\n")
    with pytest.raises(ValueError, match=r"ALWI_001\.png has no row in .*INFO\.csv"):
        BUSUCLM(busuclm)


def test_busuclm_needs_the_patient_in_the_name(busuclm: Path, draw: Draw) -> None:
    draw("BUS-UCLM/images/nobody.png")
    draw("BUS-UCLM/masks/nobody.png")
    with pytest.raises(ValueError, match=r"nobody\.png must be called PATIENT_NUMBER"):
        BUSUCLM(busuclm)
