"""Data: images and masks on disk to cases, folds, batches, augmentation; phantoms where there is no data."""

from __future__ import annotations

from ultrarefiner.data.augmentation import Augmentation
from ultrarefiner.data.batches import Batch, FittedCases, SeededSampler, collate
from ultrarefiner.data.box_table import BoxTable
from ultrarefiner.data.boxes_of import BoxesOf
from ultrarefiner.data.breast_ultrasound import BUS, BUSBRA, BUSUC, BUSUCLM, UDIAT
from ultrarefiner.data.busi import BUSI
from ultrarefiner.data.cached_embeddings import CachedEmbeddings
from ultrarefiner.data.canonical_volume import CanonicalVolume, open_volume
from ultrarefiner.data.cases import Case, CaseDataset, CaseFiles, Cases, join
from ultrarefiner.data.challenge_npz import (
    ChallengeBox,
    InteractiveCase,
    read_interactive_case,
    write_challenge_result,
    write_interactive_case,
)
from ultrarefiner.data.embedding_cache import EmbeddingCache
from ultrarefiner.data.failure_files import FailureRow, read_manifest
from ultrarefiner.data.failure_writing import write_failures
from ultrarefiner.data.fit import Fit, FittedCase, FitToSquare, StretchToSquare
from ultrarefiner.data.fitted_volumes import FittedVolume, FittedVolumes, FitVolume, VolumeBatch, collate_volumes
from ultrarefiner.data.folder import ImageFolder
from ultrarefiner.data.folds import Folds, group_folds
from ultrarefiner.data.glas import GlaS
from ultrarefiner.data.images import read_image, read_labels, read_mask, read_rgb
from ultrarefiner.data.micro_ultrasound import MicroUltrasound
from ultrarefiner.data.monuseg import MoNuSeg
from ultrarefiner.data.organ_phantoms import OrganPhantoms
from ultrarefiner.data.phantoms import Phantoms
from ultrarefiner.data.polyps import Polyps
from ultrarefiner.data.predictions import CoarsePredictions, PredictedCases
from ultrarefiner.data.simulated import Mixed, SimulatedFailures
from ultrarefiner.data.sparse_labels import SparseLabels
from ultrarefiner.data.sparse_views import SparseViews, SparseWholes, sparse_patch_box, sparse_view
from ultrarefiner.data.sparse_volumes import SparseVolume, SparseVolumes
from ultrarefiner.data.stored_failures import StoredFailures
from ultrarefiner.data.stored_frame import StoredFrame, closest_canonical
from ultrarefiner.data.volume_augmentation import VolumeAugmentation
from ultrarefiner.data.volume_cases import LabelledVolume, LabelledVolumes, OrganCases, VolumeCase, load_volume
from ultrarefiner.data.volume_intensity import VolumeCrop, foreground_crop, normalise_foreground
from ultrarefiner.data.volume_patches import VolumeView, pad_volume, patch_start, resize_mask, resize_volume
from ultrarefiner.data.volume_preparation import nifti_pairs, prepare_volumes
from ultrarefiner.data.volumes import Volume, VolumeFiles, VolumeSlices

__all__ = [
    "BUS",
    "BUSBRA",
    "BUSI",
    "BUSUC",
    "BUSUCLM",
    "UDIAT",
    "Augmentation",
    "Batch",
    "BoxTable",
    "BoxesOf",
    "CachedEmbeddings",
    "CanonicalVolume",
    "Case",
    "CaseDataset",
    "CaseFiles",
    "Cases",
    "ChallengeBox",
    "CoarsePredictions",
    "EmbeddingCache",
    "FailureRow",
    "Fit",
    "FitToSquare",
    "FitVolume",
    "FittedCase",
    "FittedCases",
    "FittedVolume",
    "FittedVolumes",
    "Folds",
    "GlaS",
    "ImageFolder",
    "InteractiveCase",
    "LabelledVolume",
    "LabelledVolumes",
    "MicroUltrasound",
    "Mixed",
    "MoNuSeg",
    "OrganCases",
    "OrganPhantoms",
    "Phantoms",
    "Polyps",
    "PredictedCases",
    "SeededSampler",
    "SimulatedFailures",
    "SparseLabels",
    "SparseViews",
    "SparseVolume",
    "SparseVolumes",
    "SparseWholes",
    "StoredFailures",
    "StoredFrame",
    "StretchToSquare",
    "Volume",
    "VolumeAugmentation",
    "VolumeBatch",
    "VolumeCase",
    "VolumeCrop",
    "VolumeFiles",
    "VolumeSlices",
    "VolumeView",
    "closest_canonical",
    "collate",
    "collate_volumes",
    "foreground_crop",
    "group_folds",
    "join",
    "load_volume",
    "nifti_pairs",
    "normalise_foreground",
    "open_volume",
    "pad_volume",
    "patch_start",
    "prepare_volumes",
    "read_image",
    "read_interactive_case",
    "read_labels",
    "read_manifest",
    "read_mask",
    "read_rgb",
    "resize_mask",
    "resize_volume",
    "sparse_patch_box",
    "sparse_view",
    "write_challenge_result",
    "write_failures",
    "write_interactive_case",
]
