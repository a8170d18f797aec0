"""A real volume that needs no download: the MNI template of a brain that nilearn ships, with masks of it."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import torch
from torch.utils.data import Dataset

from ultrarefiner.data import FittedVolumes, VolumeCase

NAME = "MNI152 template"
ORGANS = ("brain", "white matter")


class BrainTemplate(Dataset[VolumeCase]):
    """The average of 152 brains in T1-weighted MRI, cropped to the brain's box and a margin, a case for each mask.

    Args:
        resolution: side of a voxel in mm.

    Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011; nilearn
    (``load_mni152_template`` and its masks), nilearn.github.io.
    """

    def __init__(self, *, resolution: int = 2) -> None:
        from nilearn import datasets

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = datasets.load_mni152_template(resolution=resolution)
            brain = datasets.load_mni152_brain_mask(resolution=resolution)
            white = datasets.load_mni152_wm_mask(resolution=resolution)
        grey, *masks = (np.asarray(one.dataobj, np.float32).transpose(2, 1, 0) for one in (image, brain, white))
        inside = np.argwhere(masks[0] > 0.5)
        low = np.maximum(inside.min(0) - 4, 0)
        part = tuple(slice(first, last + 5) for first, last in zip(low, inside.max(0), strict=True))
        self.spacing = (float(resolution),) * 3
        # Indices count from the cropped corner; the affine says where that is.
        self.affine = image.affine @ np.block([[np.eye(3), low[::-1, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
        self.image = torch.from_numpy(grey[part].copy())[None]
        self.masks = [torch.from_numpy((mask[part] > 0.5).astype(np.float32))[None] for mask in masks]
        self.names = tuple(f"{NAME}/{organ}" for organ in ORGANS)
        self.groups = (NAME,) * len(ORGANS)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> VolumeCase:
        return VolumeCase(
            self.names[index], self.image, self.masks[index], self.spacing, self.affine, NAME, ORGANS[index]
        )


def brain_cases(size: tuple[int, int, int]) -> FittedVolumes | None:
    """Both cases, fitted to a network's input; None where nilearn is not installed."""
    return FittedVolumes(BrainTemplate(), size) if find_spec("nilearn") else None
