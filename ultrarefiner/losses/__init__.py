"""Losses: per mask, on logits, in float32 or wider. One concept, one file."""

from ultrarefiner.losses.agbce import AGBCELoss, annotation_guided_bce_loss, disagreement_region
from ultrarefiner.losses.anchor import WeightAnchor
from ultrarefiner.losses.boundary import BoundaryLoss, boundary_loss
from ultrarefiner.losses.box_regression import BoxRegressionLoss, box_regression_loss
from ultrarefiner.losses.box_size import PixelSizeLoss, SizeLoss, pixel_size_loss, size_loss
from ultrarefiner.losses.consistency import ConsistencyLoss, consistency_loss
from ultrarefiner.losses.cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy_loss
from ultrarefiner.losses.deep_supervision import DeepSupervision
from ultrarefiner.losses.dice import DiceLoss, dice_loss
from ultrarefiner.losses.dice_bce import DiceBCELoss, dice_bce_loss
from ultrarefiner.losses.empty_box import EmptyLoss, empty_loss
from ultrarefiner.losses.focal import FocalLoss, focal_loss
from ultrarefiner.losses.iou import IoURegressionLoss, candidate_iou, iou_regression_loss
from ultrarefiner.losses.log_barrier import LogBarrier, log_barrier
from ultrarefiner.losses.pixel_quality import PixelQualityAwareLoss, pixel_quality_aware_loss
from ultrarefiner.losses.quality import QualityAwareLoss, quality_aware_loss, quality_weight
from ultrarefiner.losses.tight_bands import BandTightBoxLoss, band_tight_box_loss
from ultrarefiner.losses.tight_box import TightBoxLoss, tight_box_loss
from ultrarefiner.losses.weak_box import WeakBoxLoss, paper_weak_box_loss, project_weak_box_loss

__all__ = [
    "AGBCELoss",
    "BandTightBoxLoss",
    "BinaryCrossEntropyLoss",
    "BoundaryLoss",
    "BoxRegressionLoss",
    "ConsistencyLoss",
    "DeepSupervision",
    "DiceBCELoss",
    "DiceLoss",
    "EmptyLoss",
    "FocalLoss",
    "IoURegressionLoss",
    "LogBarrier",
    "PixelQualityAwareLoss",
    "PixelSizeLoss",
    "QualityAwareLoss",
    "SizeLoss",
    "TightBoxLoss",
    "WeakBoxLoss",
    "WeightAnchor",
    "annotation_guided_bce_loss",
    "band_tight_box_loss",
    "binary_cross_entropy_loss",
    "boundary_loss",
    "box_regression_loss",
    "candidate_iou",
    "consistency_loss",
    "dice_bce_loss",
    "dice_loss",
    "disagreement_region",
    "empty_loss",
    "focal_loss",
    "iou_regression_loss",
    "log_barrier",
    "paper_weak_box_loss",
    "pixel_quality_aware_loss",
    "pixel_size_loss",
    "project_weak_box_loss",
    "quality_aware_loss",
    "quality_weight",
    "size_loss",
    "tight_box_loss",
]
