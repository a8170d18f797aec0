"""The public micro-ultrasound set of prostates, with two annotations of every training scan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ultrarefiner.data.cases import natural_key
from ultrarefiner.data.folder import find_root
from ultrarefiner.data.nifti import SUFFIXES
from ultrarefiner.data.volumes import VolumeFiles, VolumeSlices

_INSIDE = "Micro_Ultrasound_Prostate_Segmentation_Dataset"
_SCANS, _EXPERT, _OTHER = "micro_ultrasound_scans", "expert_annotations", "non_expert_annotations"


class MicroUltrasound(VolumeSlices):
    """The Micro-Ultrasound Prostate Segmentation data set: 55 patients to train on, 20 to test on.

    Expected: ``train/{micro_ultrasound_scans,expert_annotations,non_expert_annotations}/`` and
    ``test/{micro_ultrasound_scans,expert_annotations}/`` with NIfTI files. Scan and annotations belong together by the
    last number of their names ("microUS_train_01.nii.gz", "expert_annotation_train_01.nii.gz"). The mask is the
    expert's; the other mask is the non-expert's, for `ultrarefiner.losses.AGBCELoss`. Intensities of 0 to 254 become 0
    to 1. One patient is one volume and one group. Size and order of the slices: `VolumeSlices`.

    Args:
        root: the folder with train and test, or its parent.
        split: "train", or "test", which is an unseen set and has one annotation.
        affine_tolerance: as for `VolumeSlices`.

    Raises:
        FileNotFoundError: a folder is not there.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: an unknown split, a folder without volumes, folders that do not hold the same patients, a name
            without a number, or what `VolumeSlices` raises.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, name in (("micro_ultrasound_scans", "microUS"), ("expert_annotations", "expert_annotation")):
        ...     (root / "test" / folder).mkdir(parents=True)
        ...     scan = nibabel.Nifti1Image(numpy.zeros((6, 4, 2), numpy.uint8), numpy.eye(4))
        ...     nibabel.save(scan, root / "test" / folder / f"{name}_test_01.nii.gz")
        >>> dataset = MicroUltrasound(root, split="test")
        >>> dataset.names, dataset.unseen
        (('microUS_test_01/slice_000', 'microUS_test_01/slice_001'), True)

    References:
        Jiang et al.: MicroSegNet: a deep learning approach for prostate segmentation on micro-ultrasound images.
        Computerized Medical Imaging and Graphics 112, 2024, 102326; data at zenodo.org/records/10475293.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "test"] = "train",
        affine_tolerance: float | None = 0.1,
    ) -> None:
        if split not in ("train", "test"):
            message = f"split must be 'train' or 'test', got {split!r}; the set has no other"
            raise ValueError(message)
        place = find_root(root, [split], inside=[_INSIDE], dataset="micro-ultrasound set") / split
        parts = (_SCANS, _EXPERT, _OTHER) if split == "train" else (_SCANS, _EXPERT)
        scans, experts, *others = (_by_number(place / part) for part in parts)
        for part, found in zip(parts[1:], (experts, *others), strict=True):
            _check_same(place, scans, part, found)
        files = [
            VolumeFiles(
                name=_stem(scan),
                image=scan,
                mask=experts[number],
                other_mask=others[0][number] if others else None,
                group=_stem(scan),
            )
            for number, scan in scans.items()
        ]
        super().__init__(files, intensity_range=(0.0, 254.0), affine_tolerance=affine_tolerance, unseen=split == "test")


def _by_number(folder: Path) -> dict[int, Path]:
    """The volumes of a folder by the last number of their names."""
    if not folder.is_dir():
        message = f"there is no folder {folder}; check the root, and that the data set was unpacked completely"
        raise FileNotFoundError(message)
    paths = [path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith(".")]
    if not paths:
        message = f"the folder {folder} has no volumes ({', '.join(SUFFIXES)}); unpack the data set again"
        raise ValueError(message)
    numbered: dict[int, Path] = {}
    for path in sorted(paths, key=lambda path: natural_key(path.name)):
        digits = re.findall(r"[0-9]+", _stem(path))
        if not digits or int(digits[-1]) in numbered:
            message = (
                f"{path} has {'the number of ' + numbered[int(digits[-1])].name if digits else 'no number'} in its "
                "name, and numbers tell which annotation belongs to which scan; give every volume of a folder a number "
                "of its own"
            )
            raise ValueError(message)
        numbered[int(digits[-1])] = path
    return numbered


def _check_same(place: Path, scans: dict[int, Path], part: str, found: dict[int, Path]) -> None:
    alone = sorted(scans.keys() ^ found.keys())
    if alone:
        lacking = part if alone[0] in scans else _SCANS
        message = (
            f"{place / part} holds {len(found)} volumes and {place / _SCANS} {len(scans)}; number {alone[0]} is not in "
            f"{lacking}: unpack the data set again, or take the lone volumes away"
        )
        raise ValueError(message)


def _stem(path: Path) -> str:
    return next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.endswith(suffix))
