"""Small NIfTI volumes, and the micro-ultrasound set in small."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SPACING = (0.3, 0.2, 1.0)  # along the stored axes: columns, rows, slices


def write_volume(
    path: Path,
    voxels: np.ndarray,
    *,
    spacing: tuple[float, float, float] = SPACING,
    affine: np.ndarray | None = None,
) -> Path:
    """Voxels as stored, (columns, rows, slices), in the type they have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0]) if affine is None else affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_micro_ultrasound(
    root: Path, volumes: int = 3, slices: int = 4, size: tuple[int, int] = (48, 72), test_volumes: int = 2
) -> Path:
    """The public set's folders and names: bright ellipses in speckle, an expert's mask and one drawn a little off.

    The first slice of every volume has no lesion. Slices are (height, width) = size; their pixels are not square.
    """
    for split, count in (("train", volumes), ("test", test_volumes)):
        for number in range(1, count + 1):
            generator = np.random.default_rng([number, len(split)])
            inside, other = _ellipses(generator, slices, size)
            echo = np.where(inside, 150.0, 60.0) * generator.rayleigh(0.8, inside.shape)
            image = np.clip(echo, 0, 254).round().astype(np.uint8)
            end = f"{split}_{number:02d}.nii.gz"
            write_volume(root / split / "micro_ultrasound_scans" / f"microUS_{end}", image)
            write_volume(root / split / "expert_annotations" / f"expert_annotation_{end}", inside.astype(np.uint8))
            if split == "train":
                place = root / split / "non_expert_annotations"
                write_volume(place / f"nonexpert_annotation_{end}", other.astype(np.uint8))
    return root


def _ellipses(generator: np.random.Generator, slices: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = size
    x, y, z = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5, np.arange(slices), indexing="ij")
    centre_x, centre_y = width * generator.uniform(0.4, 0.6), height * generator.uniform(0.4, 0.6)
    radius_x, radius_y = width * generator.uniform(0.2, 0.3), height * generator.uniform(0.2, 0.3)
    there = z > 0

    def ellipse(shift: float, scale: float) -> np.ndarray:
        across = ((x - centre_x - shift) / (scale * radius_x)) ** 2 + ((y - centre_y) / (scale * radius_y)) ** 2
        return (across <= 1) & there

    return ellipse(0.0, 1.0), ellipse(0.04 * width, generator.uniform(0.85, 1.1))
