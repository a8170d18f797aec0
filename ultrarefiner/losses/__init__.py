"""Losses: per mask, on logits, in float32 or wider. One concept, one file."""

from ultrarefiner.losses.agbce import AGBCELoss, annotation_guided_bce_loss, disagreement_region
from ultrarefiner.losses.anchor import WeightAnchor
from ultrarefiner.losses.cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy_loss
from ultrarefiner.losses.deep_supervision import DeepSupervision
from ultrarefiner.losses.dice import DiceLoss, dice_loss
from ultrarefiner.losses.dice_bce import DiceBCELoss, dice_bce_loss
from ultrarefiner.losses.focal import FocalLoss, focal_loss
from ultrarefiner.losses.iou import IoURegressionLoss, candidate_iou, iou_regression_loss
from ultrarefiner.losses.pixel_quality import PixelQualityAwareLoss, pixel_quality_aware_loss
from ultrarefiner.losses.quality import QualityAwareLoss, quality_aware_loss, quality_weight

__all__ = [
    "AGBCELoss",
    "BinaryCrossEntropyLoss",
    "DeepSupervision",
    "DiceBCELoss",
    "DiceLoss",
    "FocalLoss",
    "IoURegressionLoss",
    "PixelQualityAwareLoss",
    "QualityAwareLoss",
    "WeightAnchor",
    "annotation_guided_bce_loss",
    "binary_cross_entropy_loss",
    "candidate_iou",
    "dice_bce_loss",
    "dice_loss",
    "disagreement_region",
    "focal_loss",
    "iou_regression_loss",
    "pixel_quality_aware_loss",
    "quality_aware_loss",
    "quality_weight",
]
