"""Data: images and masks on disk to cases, folds, batches, augmentation; phantoms where there is no data."""

from __future__ import annotations

from ultrarefiner.data.augmentation import Augmentation
from ultrarefiner.data.batches import Batch, FittedCases, SeededSampler, collate
from ultrarefiner.data.breast_ultrasound import BUS, BUSBRA, BUSUC, BUSUCLM, UDIAT
from ultrarefiner.data.busi import BUSI
from ultrarefiner.data.cases import Case, CaseDataset, CaseFiles, Cases, join
from ultrarefiner.data.fit import FittedCase, FitToSquare
from ultrarefiner.data.folder import ImageFolder
from ultrarefiner.data.folds import Folds, group_folds
from ultrarefiner.data.images import read_image, read_mask
from ultrarefiner.data.phantoms import Phantoms

__all__ = [
    "BUS",
    "BUSBRA",
    "BUSI",
    "BUSUC",
    "BUSUCLM",
    "UDIAT",
    "Augmentation",
    "Batch",
    "Case",
    "CaseDataset",
    "CaseFiles",
    "Cases",
    "FitToSquare",
    "FittedCase",
    "FittedCases",
    "Folds",
    "ImageFolder",
    "Phantoms",
    "SeededSampler",
    "collate",
    "group_folds",
    "join",
    "read_image",
    "read_mask",
]
