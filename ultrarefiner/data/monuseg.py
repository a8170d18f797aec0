"""MoNuSeg: nuclei in histology of several organs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folder import find_folder, pair_files

_PARTS = {"train": ("Training", "Train_Folder", "Train"), "test": ("Test", "Test_Folder")}
_IMAGES, _MASKS = ("img", "images"), ("mask", "masks", "labelcol")
_PATIENT = re.compile(r"^TCGA-[^-]+-[^-]+")


class MoNuSeg(CaseDataset):
    """MoNuSeg: 30 colour images of 1000 x 1000 pixels to train on, 14 to test on.

    Expected: ``{Training,Test}/{img,mask}/`` as AutoSAM has it, or ``{Train_Folder,Test_Folder}/{img,labelcol}/`` as
    MedT has it: pictures whose masks have the same name, with another ending perhaps. The challenge gives outlines in
    XML instead; they are not read here.

    The group of a case is its patient, the first three parts of a name such as "TCGA-18-5592-01Z-00-DX1"; a case with
    another name is a group of its own. Labels are unknown.

    Args:
        root: the folder with both parts, or its parent.
        split: "train", or "test", which is an unseen set.
        label_maps: whether the masks number the nuclei, so that any number above 0 is one (`read_labels`); else they
            are black and white, or 0 and 1.

    Raises:
        FileNotFoundError: the folder is not in one of these layouts.
        ValueError: an unknown split, a folder without pictures, or an image without a mask.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, kind, ending in (("img", "RGB", "tif"), ("mask", "L", "png")):
        ...     (root / "Training" / folder).mkdir(parents=True)
        ...     Image.new(kind, (4, 3)).save(root / "Training" / folder / f"TCGA-18-5592-01Z-00-DX1.{ending}")
        >>> MoNuSeg(root).groups, MoNuSeg(root)[0].image.shape
        (('TCGA-18-5592',), torch.Size([3, 3, 4]))

    References:
        Kumar et al.: A multi-organ nucleus segmentation challenge. IEEE Transactions on Medical Imaging 39(5), 2020.
        https://monuseg.grand-challenge.org. Layouts: github.com/talshaharabany/AutoSAM,
        github.com/jeya-maria-jose/Medical-Transformer.
    """

    def __init__(
        self, root: str | Path, *, split: Literal["train", "test"] = "train", label_maps: bool = False
    ) -> None:
        if split not in _PARTS:
            message = f"split must be 'train' or 'test', got {split!r}; the set has no other"
            raise ValueError(message)
        root = Path(root)
        places = [root, root / "MoNuSeg", root / "MoNuSeg" / "MoNuSeg"]
        _refuse_outlines(root, places)
        part = find_folder(places, _PARTS[split], dataset="MoNuSeg")
        images, masks = (find_folder([part], names, dataset="MoNuSeg") for names in (_IMAGES, _MASKS))
        files = []
        for name, image, mask in pair_files(images, masks):
            patient = _PATIENT.match(name)
            group = name if patient is None else patient[0]
            files.append(CaseFiles(name, image, (mask,), "unknown", group, label_maps=label_maps))
        super().__init__(files, colour=True, unseen=split == "test")


def _refuse_outlines(root: Path, places: list[Path]) -> None:
    """Raise where there is the challenge's own archive, and nothing else."""
    if any((place / name).is_dir() for place in places for names in _PARTS.values() for name in names):
        return
    outlines = next(root.rglob("*.xml"), None) if root.is_dir() else None
    if outlines is not None:
        message = (
            f"{root} has outlines in XML ({outlines.name}) and no masks, and outlines are not read; paint each image's "
            "outlines into a picture of the same size and name, in Training/mask and Test/mask beside Training/img and "
            "Test/img"
        )
        raise FileNotFoundError(message)
