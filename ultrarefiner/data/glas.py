"""GlaS: glands in colon histology, benign and malignant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folder import pair_files
from ultrarefiner.data.tables import read_table

GlaSSplit = Literal["train", "testA", "testB", "test", "all"]

_PARTS = {
    "train": ("train",),
    "testA": ("testA",),
    "testB": ("testB",),
    "test": ("testA", "testB"),
    "all": ("train", "testA", "testB"),
}
_INSIDE = (
    "Warwick_QU_Dataset",
    "Warwick QU Dataset (Released 2016_07_08)",
    "Warwick_QU_Dataset_(Released_2016_07_08)",
    "Warwick",
    "GlaS",
)
_NAME = re.compile(r"^(?P<part>train|testA|testB)_[0-9]+$")
_GRADE = "grade (GlaS)"


class GlaS(CaseDataset):
    r"""GlaS (Warwick-QU): 165 colour images of 16 slides, 85 to train on and 60 and 20 to test on.

    Expected, as in the published archive: ``Warwick_QU_Dataset/train_1.bmp`` with ``train_1_anno.bmp``, ``testA_…`` and
    ``testB_…`` likewise, and ``Grade.csv`` with the columns name, patient ID and grade (GlaS). The annotations number
    the glands; the mask is all of them (`read_labels`).

    With the table the group of a case is its patient and its label the grade, "benign" or "malignant"; without it
    every case is a group of its own and every label "unknown". The published parts share patients: what is measured on
    testA and testB is not measured on new patients. ``split="all"`` opens all images, for folds by patient
    (`group_folds`).

    Args:
        root: the folder with the pictures, or its parent.
        split: "train"; "testA", "testB" or "test" (both), which are unseen sets; or "all".

    Raises:
        FileNotFoundError: there are no such pictures.
        ValueError: an unknown split or one without pictures, an image without annotation or without a row in Grade.csv.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (4, 3), (200, 120, 180)).save(root / "train_1.bmp")
        >>> Image.new("L", (4, 3), 7).save(root / "train_1_anno.bmp")
        >>> _ = (root / "Grade.csv").write_text("name,patient ID, grade (GlaS)\ntrain_1,2, malignant\n")
        >>> dataset = GlaS(root, split="train")
        >>> dataset.groups, dataset.labels, dataset[0].image.shape, dataset[0].mask.mean().item()
        (('patient 2',), ('malignant',), torch.Size([3, 3, 4]), 1.0)

    References:
        Sirinukunwattana et al.: Gland segmentation in colon histology images: the GlaS challenge contest. Medical
        Image Analysis 35, 2017, 489-502. https://glas.grand-challenge.org
    """

    def __init__(self, root: str | Path, *, split: GlaSSplit = "train") -> None:
        if split not in _PARTS:
            message = f"split must be one of {', '.join(map(repr, _PARTS))}, got {split!r}; the set has no other"
            raise ValueError(message)
        place = _place(Path(root))
        table = _table(place / "Grade.csv")
        files = []
        for name, image, mask in pair_files(place, place, mask_stem=lambda stem: f"{stem}_anno"):
            matched = _NAME.match(name)
            if matched is None or matched["part"] not in _PARTS[split]:
                continue
            if table is not None and name not in table:
                message = (
                    f"{image} has no row in {place / 'Grade.csv'}, so its patient is unknown; take the image away or "
                    "add the row"
                )
                raise ValueError(message)
            group, label = (name, "unknown") if table is None else table[name]
            files.append(CaseFiles(name, image, (mask,), label, group, label_maps=True))
        if not files:
            message = f"{place} has no picture of the split {split!r}; unpack the data set again, or give another split"
            raise ValueError(message)
        super().__init__(files, colour=True, unseen=split.startswith("test"))


def _place(root: Path) -> Path:
    places = [root, *(root / name for name in _INSIDE), *(root / name / name for name in _INSIDE)]
    for place in places:
        if place.is_dir() and any(_NAME.match(path.stem) for path in place.iterdir()):
            return place
    message = (
        f"no GlaS here: expected pictures called train_1.bmp, testA_1.bmp or testB_1.bmp in {root} or in "
        f"{' or '.join(_INSIDE[:2])} inside it; give the folder that holds them as root"
    )
    raise FileNotFoundError(message)


def _table(path: Path) -> dict[str, tuple[str, str]] | None:
    """Group and label of every case."""
    if not path.is_file():
        return None
    rows = read_table(path, ["name", "patient ID", _GRADE])
    return {row["name"]: (f"patient {row['patient ID']}", row[_GRADE].lower()) for row in rows}
