"""Readers for published breast ultrasound sets, one thin class a set; BUSI has its own file."""

from __future__ import annotations

import warnings
from pathlib import Path

from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folder import find_root, pair_files, pictures_in
from ultrarefiner.data.folds import Folds
from ultrarefiner.data.images import picture_size, read_colours
from ultrarefiner.data.tables import read_table


class BUSBRA(CaseDataset):
    r"""BUS-BRA: 1875 images of 1064 patients, benign and malignant; the group of a case is its patient.

    Expected, as in the published archive: ``BUSBRA/Images/bus_0001-l.png``, ``BUSBRA/Masks/mask_0001-l.png``,
    ``BUSBRA/bus_data.csv`` with the columns ID, Case (the patient) and Pathology, and, for `own_folds`,
    ``BUSBRA/5-fold-cv.csv`` with the columns ID and kFold.

    Args:
        root: the folder with Images, Masks and bus_data.csv, or its parent.

    Raises:
        FileNotFoundError: the folder is not in this layout.
        ValueError: an image has no mask or no row in bus_data.csv, or the table lacks a column.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for path in ("Images/bus_0001-l.png", "Masks/mask_0001-l.png"):
        ...     (root / path).parent.mkdir()
        ...     Image.new("L", (4, 3)).save(root / path)
        >>> _ = (root / "bus_data.csv").write_text("ID,Case,Pathology\nbus_0001-l,1,malignant\n")
        >>> _ = (root / "5-fold-cv.csv").write_text("ID,Pathology,kFold\nbus_0001-l,malignant,3\n")
        >>> dataset = BUSBRA(root)
        >>> dataset.names, dataset.groups, dataset.own_folds.assignment["bus_0001-l"]
        (('bus_0001-l',), ('patient 1',), 2)

    References:
        Gómez-Flores, Gregorio-Calas, Pereira: BUS-BRA: a breast ultrasound dataset for assessing
        computer-aided diagnosis systems. Medical Physics 51, 2024. https://doi.org/10.5281/zenodo.8231412
    """

    def __init__(self, root: str | Path) -> None:
        self.root = find_root(
            root, ["Images", "Masks", "bus_data.csv"], inside=["BUSBRA", "BUS-BRA"], dataset="BUS-BRA"
        )
        table = {row["ID"]: row for row in read_table(self.root / "bus_data.csv", ["ID", "Case", "Pathology"])}
        files = []
        for name, image, mask in pair_files(
            self.root / "Images",
            self.root / "Masks",
            mask_stem=lambda stem: "mask_" + stem.removeprefix("bus_"),
        ):
            if name not in table:
                message = (
                    f"{image} has no row in {self.root / 'bus_data.csv'}, so its patient is unknown; "
                    "take the image away or add the row"
                )
                raise ValueError(message)
            row = table[name]
            files.append(CaseFiles(name, image, (mask,), row["Pathology"].lower(), f"patient {row['Case']}"))
        super().__init__(files)

    @property
    def own_folds(self) -> Folds:
        """The five folds that the set's authors drew, by patient: fold 0 is their kFold 1.

        Raises:
            FileNotFoundError: 5-fold-cv.csv is not there.
            ValueError: it lacks a column or a case, or splits a patient.
        """
        path = self.root / "5-fold-cv.csv"
        number = {row["ID"]: row["kFold"] for row in read_table(path, ["ID", "kFold"])}
        odd = [text for text in number.values() if text not in {"1", "2", "3", "4", "5"}]
        if odd:
            message = f"{path} has the fold {odd[0]!r}; kFold is a number from 1 to 5: restore the published file"
            raise ValueError(message)
        known = {name: int(number[name]) - 1 for name in self.names if name in number}
        folds = Folds(assignment=known, count=5, seed=None)
        folds.check(self)
        return folds


class BUS(CaseDataset):
    """BUS (BUSIS): 562 images without patients; every case is a group of its own.

    Expected: ``BUS/original/NAME.png`` and ``BUS/GT/NAME.png`` (or ``NAME_GT.png``), labels unknown.

    Args:
        root: the folder with original and GT, or its parent.

    Raises:
        FileNotFoundError: the folder is not in this layout.
        ValueError: an image has no mask.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("original/a.png", "GT/a.png"):
        ...     (root / place).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("L", (4, 3), 255).save(root / place)
        >>> BUS(root)[0].image.shape
        torch.Size([1, 3, 4])

    References:
        Zhang et al.: BUSIS: a benchmark for breast ultrasound image segmentation. Healthcare 10(4), 2022,
        729.
    """

    def __init__(self, root: str | Path) -> None:
        place = find_root(root, ["original", "GT"], inside=["BUS", "BUSIS"], dataset="BUS")
        super().__init__(_originals(place))


class UDIAT(CaseDataset):
    """UDIAT (dataset B): 163 images, kept as an unseen test set: `group_folds` refuses it.

    Expected: ``UDIAT/original/000001.png`` and ``UDIAT/GT/000001.png``, labels unknown, every case a group of its
    own.

    Args:
        root: the folder with original and GT, or its parent.

    Raises:
        FileNotFoundError: the folder is not in this layout.
        ValueError: an image has no mask.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("original/000001.png", "GT/000001.png"):
        ...     (root / place).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("L", (4, 3), 255).save(root / place)
        >>> UDIAT(root)[0].name
        '000001'

    References:
        Yap et al.: Automated breast ultrasound lesions detection using convolutional neural networks. IEEE
        Journal of Biomedical and Health Informatics 22(4), 2018.
    """

    def __init__(self, root: str | Path) -> None:
        place = find_root(root, ["original", "GT"], inside=["UDIAT"], dataset="UDIAT")
        super().__init__(_originals(place), unseen=True)


class BUSUC(CaseDataset):
    """BUS-UC: benign and malignant images without patients; every case is a group of its own.

    Expected: ``BUS_UC/Benign/{images,masks}`` and ``BUS_UC/Malignant/{images,masks}``, which give the labels and
    names such as "Benign/001"; or, where only that is there, ``BUS_UC/All/{images,masks}`` with the same file names
    in both, labels unknown.

    Args:
        root: the folder with Benign and Malignant, or with All, or its parent.

    Raises:
        FileNotFoundError: the folder is not in this layout.
        ValueError: an image has no mask.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in (f"{kind}/{what}/1.png" for kind in ("Benign", "Malignant") for what in ("images", "masks")):
        ...     (root / place).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("L", (4, 3), 255).save(root / place)
        >>> [case.name for case in BUSUC(root)]
        ['Benign/1', 'Malignant/1']

    References:
        Iqbal: BUS_UC. Mendeley Data, https://doi.org/10.17632/3ksd7w7jkx.1
    """

    def __init__(self, root: str | Path) -> None:
        files: list[CaseFiles] = []
        try:
            place = find_root(root, ["Benign", "Malignant"], inside=["BUS_UC", "BUS-UC"], dataset="BUS-UC")
        except FileNotFoundError:
            place = find_root(
                root, ["All"], inside=["BUS_UC", "BUS-UC"], dataset="BUS-UC (Benign and Malignant, or All)"
            )
            files += _images_and_masks(place / "All", label="unknown")
        else:
            for label in ("Benign", "Malignant"):
                files += _images_and_masks(place / label, label=label.lower(), prefix=f"{label}/")
        super().__init__(files)


class BUSUCLM(CaseDataset):
    """BUS-UCLM: 683 images of 38 patients, more than half of them normal; the group of a case is its patient.

    Expected: ``BUS-UCLM/images/ALWI_000.png`` and ``BUS-UCLM/masks/ALWI_000.png``. The patient is what stands before
    the underscore. The masks are painted green for benign, red for malignant and are black for normal. The label is
    the one of ``INFO.csv`` (columns Image and Label, separated by semicolons) if that file is there, or else comes
    from the mask's colour, which means reading all masks once.

    Args:
        root: the folder with images and masks, or its parent.
        normal: whether the normal images, whose masks are empty, are part of the set. They change every mean
            over cases.

    Attributes:
        left_out: images whose mask has another size than they have. The published set has some, cropped after
            the mask was drawn; where the mask lies on them is not known, so they are no cases. A warning says how
            many.

    Raises:
        FileNotFoundError: the folder is not in this layout.
        ValueError: an image has no mask, its name no underscore, or INFO.csv no row for it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("images/ALWI_000.png", "masks/ALWI_000.png"):
        ...     (root / place).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("L", (4, 3), 255).save(root / place)
        >>> BUSUCLM(root)[0].group
        'patient ALWI'

    References:
        Vallez et al.: BUS-UCLM: breast ultrasound lesion segmentation dataset. Scientific Data 12, 2025.
        https://doi.org/10.17632/7fvgj4jsp7
    """

    def __init__(self, root: str | Path, *, normal: bool = False) -> None:
        place = find_root(root, ["images", "masks"], inside=["BUS-UCLM", "BUS_UCLM"], dataset="BUS-UCLM")
        table = _labels(place / "INFO.csv")
        files, left_out = [], []
        for name, image, mask in pair_files(place / "images", place / "masks"):
            if table is not None and name not in table:
                message = f"{image} has no row in {place / 'INFO.csv'}; take the image away or add the row"
                raise ValueError(message)
            patient, underscore, _ = name.partition("_")
            if not underscore:
                message = (
                    f"{image} must be called PATIENT_NUMBER, to know its patient; rename it, or use "
                    "ImageFolder(group=…)"
                )
                raise ValueError(message)
            if picture_size(image) != picture_size(mask):
                left_out.append(name)
                continue
            label = _painted_label(mask) if table is None else table[name]
            if normal or label != "normal":
                files.append(CaseFiles(name, image, (mask,), label, f"patient {patient}"))
        self.left_out = tuple(left_out)
        if left_out:
            warnings.warn(
                f"BUS-UCLM: {len(left_out)} images were left out, because their masks have another size than they; "
                f"the first is {left_out[0]!r}, all of them are in left_out",
                stacklevel=2,
            )
        super().__init__(files)


def _labels(path: Path) -> dict[str, str] | None:
    if not path.is_file():
        return None
    rows = read_table(path, ["Image", "Label"], delimiter=";")
    return {Path(row["Image"]).stem: row["Label"].lower() for row in rows}


def _painted_label(mask: Path) -> str:
    """The label that the colour of a mask stands for; unknown for white."""
    colours = read_colours(mask)
    red, green = (int((colours[..., channel] >= 0.5).sum()) for channel in (0, min(1, colours.shape[2] - 1)))
    if red == green:
        return "normal" if red == 0 else "unknown"
    return "malignant" if red > green else "benign"


def _originals(place: Path) -> list[CaseFiles]:
    suffix = "_GT" if any(path.stem.endswith("_GT") for path in pictures_in(place / "GT")) else ""
    pairs = pair_files(place / "original", place / "GT", mask_stem=lambda stem: stem + suffix)
    return [CaseFiles(name, image, (mask,), "unknown", name) for name, image, mask in pairs]


def _images_and_masks(place: Path, *, label: str, prefix: str = "") -> list[CaseFiles]:
    pairs = pair_files(place / "images", place / "masks")
    return [CaseFiles(prefix + name, image, (mask,), label, prefix + name) for name, image, mask in pairs]
