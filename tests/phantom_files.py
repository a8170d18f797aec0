"""Organ phantoms as a user's NIfTI files, and what is prepared of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nifti import write_volume

from ultrarefiner.data import OrganPhantoms, VolumeFiles, nifti_pairs

ORGANS = {"lobed organ": 1, "round organ": 3, "small organ": 4}
PHANTOMS = OrganPhantoms(2, size=(18, 36, 40))


def write_phantoms(root: Path, count: int = 2) -> list[VolumeFiles]:
    """Files "p0.nii.gz" and "p0_mask.nii.gz" and so on, with a flipped affine."""
    for number in range(count):
        volume = PHANTOMS[number % 2]
        image = volume.image[0].permute(2, 1, 0).numpy() + number // 2
        labels = volume.labels.permute(2, 1, 0).numpy().astype(np.uint8)
        affine = np.diag([-0.5, 0.25, 2.0, 1.0])
        affine[:3, 3] = (10, -20, 30)
        write_volume(root / f"p{number}.nii.gz", image, affine=affine)
        write_volume(root / f"p{number}_mask.nii.gz", labels, affine=affine)
    return nifti_pairs(root, root, mask_suffix="_mask")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
