"""Data sets by name, for commands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ultrarefiner.data import (
    BUS,
    BUSBRA,
    BUSI,
    BUSUC,
    BUSUCLM,
    UDIAT,
    BoxesOf,
    BoxTable,
    CaseDataset,
    CaseFiles,
    GlaS,
    ImageFolder,
    MoNuSeg,
    Phantoms,
    Polyps,
    VolumeFiles,
    VolumeSlices,
)
from ultrarefiner.data.folder import pictures_in
from ultrarefiner.data.images import read_colours

_LOGGER = logging.getLogger("ultrarefiner")

DatasetName = Literal[
    "busi",
    "busbra",
    "bus",
    "busuc",
    "busuclm",
    "udiat",
    "glas",
    "monuseg",
    "polyps",
    "folder",
    "images",
    "volumes",
]

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
_POLYP_TESTS = ("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "CVC-300")
_GROUPED = ("busi", "polyps", "folder")
_NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class CaseFlags:
    """Which cases a command is about.

    Args:
        data: folder of the data set.
        dataset: its layout; "folder" is any folder of images and masks with the same names, "images" one without masks,
            "volumes" one of NIfTI files, slice by slice.
        masks: folder of the masks, for "folder" and "volumes"; by default that of the images.
        mask_suffix: what follows an image's name in its mask's name, for "folder" and "volumes", such as _mask.
        boxes: table case,x0,y0,x1,y1 of tight boxes, for "folder" and "volumes" (p1/slice_012): no mask is read.
        unboxed: what an image without a box is, "negative" (no lesion) or "skip"; asked for where there is one.
        groups: table case,group of what stays together in a fold; BUSI's own near_duplicate_groups.csv is found.
        colour: read the pictures of a folder in colour; GlaS, MoNuSeg and polyps are in any case.

    Raises:
        ValueError: flags that do not go together.
    """

    data: Path | None = None
    dataset: DatasetName = "busi"
    masks: Path | None = None
    mask_suffix: str = ""
    boxes: Path | None = None
    unboxed: Literal["negative", "skip"] | None = None
    groups: Path | None = None
    colour: bool = False

    def __post_init__(self) -> None:
        of_files = self.dataset in ("folder", "volumes") and self.data is not None
        wrong = {
            "masks and mask_suffix belong to a folder of images or volumes": (self.masks or self.mask_suffix)
            and not of_files,
            "boxes belong to a folder of images or volumes": self.boxes and not of_files,
            "boxes stand in the place of masks": self.boxes and (self.masks or self.mask_suffix),
            "unboxed is about boxes": self.unboxed and self.boxes is None,
            f"groups belong to {', '.join(_GROUPED)}": self.groups and self.dataset not in _GROUPED,
            "colour belongs to a folder of images": self.colour and self.dataset not in ("folder", "images"),
        }
        found = [sentence for sentence, there in wrong.items() if there]
        if found:
            message = f"{found[0]}; leave the flag out, or give another dataset."
            raise ValueError(message)

    @property
    def has_masks(self) -> bool:
        """Whether there are true masks, or boxes alone."""
        return self.boxes is None

    def open(self) -> Any:
        """The cases.

        Raises:
            ValueError: an image without a box, and nobody said what that means; or the data are wrong.
            FileNotFoundError: the folder is not there or has another layout.
        """
        if self.data is None:
            message = "give data, the folder of a data set."
            raise ValueError(message)
        if self.dataset == "images":
            pictures = [CaseFiles(path.stem, path, (), "unknown", path.stem) for path in pictures_in(self.data)]
            return self._told_of_colours(CaseDataset(pictures, colour=self.colour))
        if self.dataset == "volumes":
            slices = VolumeSlices(_volumes(self.data, self.masks, self.mask_suffix, masked=self.has_masks))
            return slices if self.boxes is None else self._boxed(BoxesOf(slices, self.boxes))
        if self.boxes is not None:
            table = BoxTable(self.data, self.boxes, colour=self.colour, **_given(groups=self.groups))
            return self._boxed(self._told_of_colours(table))
        if self.dataset == "folder":
            masks = self.data if self.masks is None else self.masks
            options = _given(groups=self.groups)
            return self._told_of_colours(
                ImageFolder(self.data, masks, mask_suffix=self.mask_suffix, colour=self.colour, **options)
            )
        return _BY_ROOT[self.dataset](self.data, **_given(groups=self._groups()))

    def tests(self) -> Mapping[str, Any]:
        """The published test parts, by name; none for sets that have none."""
        if self.dataset == "glas":
            return {part: GlaS(str(self.data), split=part) for part in ("testA", "testB")}
        if self.dataset == "monuseg":
            return {"test": MoNuSeg(str(self.data), split="test")}
        found = {}
        for name in _POLYP_TESTS if self.dataset == "polyps" else ():
            try:
                found[name] = Polyps(str(self.data), split=name)
            except FileNotFoundError:
                continue  # who unpacked a part of them measures on that
        return found

    def _groups(self) -> Path | None:
        if self.groups is not None or self.dataset != "busi":
            return self.groups
        places = (Path(str(self.data)), Path(str(self.data)).parent)
        tables = (place / "near_duplicate_groups.csv" for place in places)
        return next((table for table in tables if table.exists()), None)

    def _told_of_colours(self, cases: Any) -> Any:
        """Warn where pictures in colour are read as grey."""
        if not self.colour and len(cases):
            first = read_colours(cases.files[0].image)
            if first.shape[2] == 3 and not (first == first[:, :, :1]).all():
                _LOGGER.warning("%s is in colour and is read as grey; give colour to keep it", cases.files[0].image)
        return cases

    def _boxed(self, cases: Any) -> Any:
        missing = len(cases) - len(cases.boxed)
        if missing and self.unboxed is None:
            message = (
                f"{missing} of {len(cases)} images have no box in {self.boxes}; say with unboxed whether they have no "
                "lesion (negative) or nobody looked (skip)."
            )
            raise ValueError(message)
        return cases.subset(cases.boxed) if missing and self.unboxed == "skip" else cases


def open_cases(flags: CaseFlags, *, phantoms: int | None) -> Any:
    """The cases of the flags, or phantoms.

    Args:
        flags: of the command.
        phantoms: this many made-up cases instead of a folder.

    Raises:
        ValueError: neither a folder nor phantoms, or both.

    Example:
        >>> len(open_cases(CaseFlags(), phantoms=3))
        3
    """
    if (flags.data is None) == (phantoms is None):
        message = "give either data, the folder of a data set, or phantoms, a number of made-up cases; not both."
        raise ValueError(message)
    return flags.open() if phantoms is None else Phantoms(phantoms)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _volumes(images: Path, masks: Path | None, suffix: str, *, masked: bool) -> list[VolumeFiles]:
    """Every NIfTI file of a folder, with its mask of the same name."""
    if not images.is_dir():
        message = f"there is no folder {images}; check the path, and that the data set was unpacked."
        raise FileNotFoundError(message)
    place = images if masks is None else masks
    found = []
    for path in sorted(images.iterdir()):
        ending = next((ending for ending in _NIFTI if path.name.endswith(ending)), None)
        stem = path.name.removesuffix(ending or "")
        if ending is None or (masked and place == images and suffix and stem.endswith(suffix)):
            continue
        candidates = (place / f"{stem}{suffix}{end}" for end in _NIFTI)
        mask = next((candidate for candidate in candidates if candidate.exists()), None)
        if masked and (mask is None or mask == path):
            message = f"{path} must have a mask {stem}{suffix}.nii.gz in {place}; give masks, mask_suffix or boxes."
            raise ValueError(message)
        found.append(VolumeFiles(stem, path, mask if masked else None, None, stem))
    if not found:
        message = f"{images} must hold NIfTI files (.nii, .nii.gz), but there are none."
        raise ValueError(message)
    return found
