"""BUSI, the breast ultrasound images of Cairo, in the layout of its Kaggle copy."""

from __future__ import annotations

import re
from pathlib import Path

from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folder import find_root, pictures_in
from ultrarefiner.data.tables import check_named, read_groups

_MASK = re.compile(r"^(?P<name>.+)_mask(_[0-9]+)?$")


class BUSI(CaseDataset):
    """The BUSI data set: 780 images, benign, malignant and normal; several lesions of one image are united.

    Expected: ``Dataset_BUSI_with_GT/{benign,malignant,normal}/`` with "benign (1).png" and its masks
    "benign (1)_mask.png", "benign (1)_mask_1.png" and so on. A part of the set will do.

    The set has no patients and no folds, but many near-copies of the same image, some of them across classes. Without a
    table of groups they are not grouped, every case is a group of its own: folds then put copies of one lesion on both
    sides, and a network that has learnt it by heart looks better than it is on any new patient. Give the groups before
    you split it.

    Args:
        root: the folder with benign, malignant and normal, or its parent.
        normal: whether the normal images, whose masks are empty, are part of the set. They change every mean
            over cases.
        groups: a CSV file with the columns case and group: images of one group are near-duplicates. It names every
            case, those without a copy too; names of other cases are passed over.

    Raises:
        FileNotFoundError: the folder is not in this layout, or there is no such CSV file.
        ValueError: a folder has no pictures, an image has no mask, a mask no image, or the CSV file lacks a
            column or a case.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for label in ("benign", "malignant"):
        ...     (root / label).mkdir()
        ...     for end in ("", "_mask", "_mask_1"):
        ...         Image.new("L", (4, 3)).save(root / label / f"{label} (1){end}.png")
        >>> dataset = BUSI(root)
        >>> dataset.names, len(dataset.files[0].masks)
        (('benign (1)', 'malignant (1)'), 2)

    References:
        Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief 28, 2020,
        104863. On its duplicates: Pawlowska, Karwat, Zolek, Data in Brief 48, 2023, 109247.
    """

    def __init__(self, root: str | Path, *, normal: bool = False, groups: str | Path | None = None) -> None:
        place = find_root(root, ["benign", "malignant"], inside=["Dataset_BUSI_with_GT"], dataset="BUSI")
        group_of = None if groups is None else read_groups(groups)
        files = []
        for label in ("benign", "malignant", "normal") if normal else ("benign", "malignant"):
            for name, (image, masks) in _with_masks(place / label).items():
                # A case that the table lacks is reported below, with all others.
                group = name if group_of is None else f"group {group_of.get(name)}"
                files.append(CaseFiles(name=name, image=image, masks=masks, label=label, group=group))
        super().__init__(files)
        if group_of is not None:
            check_named(self.names, group_of, groups)


def _with_masks(folder: Path) -> dict[str, tuple[Path, tuple[Path, ...]]]:
    """Each image of a folder and all of its masks."""
    images: dict[str, Path] = {}
    masks: dict[str, list[Path]] = {}
    for path in pictures_in(folder):
        mask = _MASK.match(path.stem)
        if mask is None:
            images[path.stem] = path
        else:
            masks.setdefault(mask["name"], []).append(path)
    for known, others, kind in ((images, masks, "mask"), (masks, images, "image")):
        alone = [name for name in known if name not in others]
        if alone:
            message = (
                f"{len(alone)} cases in {folder} have no {kind}, the first is {alone[0]!r}; unpack the data set again"
            )
            raise ValueError(message)
    return {name: (path, tuple(masks[name])) for name, path in images.items()}
