"""Synthetic micro-ultrasound volumes with two annotators, in the folders and names of the public data set.

A gland in speckle, which the outermost slices miss, and whose border fades towards the middle of its lower edge. The
expert knows where it runs there; the non-expert cuts the gland off or draws it too far, differently in every patient.
So the hard pixels lie where the image says little, as in the prostate's midline.

    python examples/phantom_volumes.py outputs/phantom_volumes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np

SPACING = (0.25, 0.2, 1.0)
"""Millimetres along the stored axes: columns, rows, slices."""


def write(root: Path, *, patients: int = 12, test_patients: int = 6, slices: int = 6, side: int = 96) -> Path:
    """The set; nothing is written where it is complete already."""
    done = root / "complete"
    if not done.exists():
        for split, count in (("train", patients), ("test", test_patients)):
            for number in range(1, count + 1):
                image, expert, other = patient(np.random.default_rng([number, len(split)]), slices, side)
                save(root / split / "micro_ultrasound_scans" / f"microUS_{split}_{number:02d}.nii.gz", image)
                save(root / split / "expert_annotations" / f"expert_annotation_{split}_{number:02d}.nii.gz", expert)
                if split == "train":
                    name = f"non_expert_annotation_{split}_{number:02d}.nii.gz"
                    save(root / split / "non_expert_annotations" / name, other)
        done.touch()
    return root


def patient(generator: np.random.Generator, slices: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scan, expert's mask and non-expert's mask, each (columns, rows, slices)."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, count) for count in (side, side, slices)), indexing="ij")
    centre = generator.uniform(-0.15, 0.15, 2)
    radii = generator.uniform(0.4, 0.6, 2) * np.array([1.2, 0.9])
    across, down = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    distance = np.sqrt(across**2 + down**2 + (1.05 * z) ** 2)
    # Towards the lower middle the gland and what lies below look more and more alike.
    hard = np.exp(-((across / 0.7) ** 4)) / (1 + np.exp(-10 * (down - 0.2)))
    contrast = 0.2 * (1 - hard)
    inside = distance < 1
    echo = 0.3 + contrast * inside + 0.05 * np.sin(3 * across + generator.uniform(0, 6))
    speckle = generator.rayleigh(0.8, x.shape)
    image = np.clip(254 * echo * (0.55 + 0.45 * speckle), 0, 254).round().astype(np.uint8)
    error = generator.choice((-1, 1)) * generator.uniform(0.15, 0.3)
    other = distance < 1 + error * (hard > 0.3)
    return image, inside.astype(np.uint8), other.astype(np.uint8)


def save(path: Path, voxels: np.ndarray) -> None:
    """A NIfTI file in millimetres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([*SPACING, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets train and test")
    print(write(parser.parse_args().folder))
