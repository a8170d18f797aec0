"""Turn a soft mask into SAM prompts, differentiably, let SAM refine it, and send the gradient back.

Start with `UltraRefiner`, which joins a coarse network and a `SAMRefiner`; or put `DifferentiablePromptExtractor`,
`ROICropper` and `SAMRefiner` behind a network of your own. Rooms that need optional packages are imported when they are
first used: ``ultrarefiner.data``, ``ultrarefiner.training``, ``ultrarefiner.evaluation``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from ultrarefiner import checkpoints, losses, networks, ops, prompts, refinement, sam, simulation, systems, types
from ultrarefiner.checkpoints import LoadReport, download, load_weights
from ultrarefiner.losses import (
    AGBCELoss,
    BinaryCrossEntropyLoss,
    DeepSupervision,
    DiceBCELoss,
    DiceLoss,
    FocalLoss,
    IoURegressionLoss,
    PixelQualityAwareLoss,
    QualityAwareLoss,
    WeightAnchor,
)
from ultrarefiner.networks import ForegroundLogits, TransUNet, build_microsegnet, build_transunet
from ultrarefiner.ops import scale_gradient
from ultrarefiner.prompts import BoxBackground, Centroid, DifferentiablePromptExtractor, FarCorner, MeanShift
from ultrarefiner.refinement import (
    BestSelection,
    LearnedGate,
    ProductGate,
    ROICropper,
    SoftSelection,
    UncertaintyGate,
)
from ultrarefiner.sam import SAM, MedSAMInput, SAMInput, build_sam
from ultrarefiner.simulation import AtResolution, FailureSimulator, SimpleFailures
from ultrarefiner.systems import AtSize, SAMRefiner, UltraRefiner
from ultrarefiner.types import MaskCandidates, MultiScaleLogits, Prompts, RefinedSegmentation, Refinement

__version__ = version("ultrarefiner")


def __getattr__(name: str) -> ModuleType:
    """The rooms that need optional packages."""
    if name in ("data", "evaluation", "training"):
        return import_module(f"ultrarefiner.{name}")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


__all__ = [
    "SAM",
    "AGBCELoss",
    "AtResolution",
    "AtSize",
    "BestSelection",
    "BinaryCrossEntropyLoss",
    "BoxBackground",
    "Centroid",
    "DeepSupervision",
    "DiceBCELoss",
    "DiceLoss",
    "DifferentiablePromptExtractor",
    "FailureSimulator",
    "FarCorner",
    "FocalLoss",
    "ForegroundLogits",
    "IoURegressionLoss",
    "LearnedGate",
    "LoadReport",
    "MaskCandidates",
    "MeanShift",
    "MedSAMInput",
    "MultiScaleLogits",
    "PixelQualityAwareLoss",
    "ProductGate",
    "Prompts",
    "QualityAwareLoss",
    "ROICropper",
    "RefinedSegmentation",
    "Refinement",
    "SAMInput",
    "SAMRefiner",
    "SimpleFailures",
    "SoftSelection",
    "TransUNet",
    "UltraRefiner",
    "UncertaintyGate",
    "WeightAnchor",
    "__version__",
    "build_microsegnet",
    "build_sam",
    "build_transunet",
    "checkpoints",
    "download",
    "load_weights",
    "losses",
    "networks",
    "ops",
    "prompts",
    "refinement",
    "sam",
    "scale_gradient",
    "simulation",
    "systems",
    "types",
]
