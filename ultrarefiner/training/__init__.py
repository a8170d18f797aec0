"""One loop on Lightning Fabric, and a short recipe for each phase."""

from __future__ import annotations

from ultrarefiner.training.annotation_guided import AnnotationGuidedRecipe
from ultrarefiner.training.coarse import CoarseRecipe
from ultrarefiner.training.correction import CorrectionRecipe
from ultrarefiner.training.freezing import Unfreezing, freeze, is_frozen, unfreeze
from ultrarefiner.training.handover import load_coarse, load_gate, load_refiner
from ultrarefiner.training.image_correction import ImageCorrectionRecipe
from ultrarefiner.training.interaction import Answer, simulate_clicks, simulate_corrections
from ultrarefiner.training.joint import JointRecipe
from ultrarefiner.training.loop import train
from ultrarefiner.training.out_of_fold import predict_cases, predict_out_of_fold
from ultrarefiner.training.prompted import AutoMedSAMRecipe, AutoSAMRecipe, MaskedAutoMedSAMRecipe
from ultrarefiner.training.published import (
    MICROSEGNET,
    TRANSUNET,
    PublishedRun,
    microsegnet_recipe,
    transunet_recipe,
)
from ultrarefiner.training.recipe import ParameterGroup, Prediction, Recipe, StepResult, dice_of_images
from ultrarefiner.training.refiner import RefinerRecipe
from ultrarefiner.training.result import TrainingResult
from ultrarefiner.training.schedule import Cosine, Polynomial, Schedule, cosine_factor, polynomial_factor
from ultrarefiner.training.volumes import SegVolRecipe, dice_of_volumes
from ultrarefiner.training.watching import Moment, Watcher

__all__ = [
    "MICROSEGNET",
    "TRANSUNET",
    "AnnotationGuidedRecipe",
    "Answer",
    "AutoMedSAMRecipe",
    "AutoSAMRecipe",
    "CoarseRecipe",
    "CorrectionRecipe",
    "Cosine",
    "ImageCorrectionRecipe",
    "JointRecipe",
    "MaskedAutoMedSAMRecipe",
    "Moment",
    "ParameterGroup",
    "Polynomial",
    "Prediction",
    "PublishedRun",
    "Recipe",
    "RefinerRecipe",
    "Schedule",
    "SegVolRecipe",
    "StepResult",
    "TrainingResult",
    "Unfreezing",
    "Watcher",
    "cosine_factor",
    "dice_of_images",
    "dice_of_volumes",
    "freeze",
    "is_frozen",
    "load_coarse",
    "load_gate",
    "load_refiner",
    "microsegnet_recipe",
    "polynomial_factor",
    "predict_cases",
    "predict_out_of_fold",
    "simulate_clicks",
    "simulate_corrections",
    "train",
    "transunet_recipe",
    "unfreeze",
]
