"""Data sets by name, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ultrarefiner.data import (
    BUS,
    BUSBRA,
    BUSI,
    BUSUC,
    BUSUCLM,
    UDIAT,
    CaseDataset,
    GlaS,
    ImageFolder,
    MoNuSeg,
    Phantoms,
    Polyps,
)

DatasetName = Literal["busi", "busbra", "bus", "busuc", "busuclm", "udiat", "glas", "monuseg", "polyps", "folder"]

_BY_ROOT = {
    "busi": BUSI,
    "busbra": BUSBRA,
    "bus": BUS,
    "busuc": BUSUC,
    "busuclm": BUSUCLM,
    "udiat": UDIAT,
    "glas": GlaS,  # of these three, the part to train on
    "monuseg": MoNuSeg,
    "polyps": Polyps,
}


def open_cases(
    dataset: DatasetName,
    *,
    data: Path | None,
    masks: Path | None = None,
    mask_suffix: str = "",
    phantoms: int | None = None,
) -> CaseDataset | Phantoms:
    """The cases that a command is about.

    Args:
        dataset: the layout of the folder.
        data: the folder; that of the images for "folder".
        masks: the folder of masks, for "folder"; by default the same.
        mask_suffix: what stands between an image's name and the end of its mask's, for "folder".
        phantoms: this many phantoms instead of a folder.

    Raises:
        ValueError: neither a folder nor phantoms, or both; or a flag that the layout has no use for.
        FileNotFoundError: the folder is not there or has another layout.

    Example:
        >>> len(open_cases("folder", data=None, phantoms=3))
        3
    """
    if (data is None) == (phantoms is None):
        message = "give either data, the folder of a data set, or phantoms, a number of made-up cases; not both."
        raise ValueError(message)
    if (masks is not None or mask_suffix) and (dataset != "folder" or data is None):
        message = "masks and mask_suffix belong to a folder of images; give dataset folder too, or leave them out."
        raise ValueError(message)
    if data is None:
        return Phantoms(phantoms or 0)  # 0 is refused there
    if dataset == "folder":
        return ImageFolder(data, data if masks is None else masks, mask_suffix=mask_suffix)
    found: CaseDataset = _BY_ROOT[dataset](data)
    return found
