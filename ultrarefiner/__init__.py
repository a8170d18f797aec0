"""Turn a soft mask into SAM prompts, differentiably, let SAM refine it, and send the gradient back.

Start with `UltraRefiner`, which joins a coarse network and a `SAMRefiner`; or put `DifferentiablePromptExtractor`,
`ROICropper` and `SAMRefiner` behind a network of your own. Rooms that need optional packages are imported when they are
first used: ``ultrarefiner.data``, ``ultrarefiner.training``, ``ultrarefiner.evaluation``, ``ultrarefiner.prediction``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ultrarefiner import checkpoints, losses, networks, ops, prompts, refinement, sam, simulation, systems, types
from ultrarefiner.checkpoints import LoadReport, download, load_weights
from ultrarefiner.losses import (
    AGBCELoss,
    BandTightBoxLoss,
    BinaryCrossEntropyLoss,
    DeepSupervision,
    DiceBCELoss,
    DiceLoss,
    EmptyLoss,
    FocalLoss,
    IoURegressionLoss,
    LogBarrier,
    PixelQualityAwareLoss,
    QualityAwareLoss,
    SizeLoss,
    TightBoxLoss,
    WeakBoxLoss,
    WeightAnchor,
)
from ultrarefiner.networks import (
    BackboneUNet,
    ForegroundLogits,
    SegVol,
    TransUNet,
    build_microsegnet,
    build_segvol,
    build_transunet,
)
from ultrarefiner.ops import scale_gradient
from ultrarefiner.prompts import (
    BoxBackground,
    Centroid,
    DifferentiablePromptExtractor,
    FarCorner,
    MeanShift,
    PromptModule,
    TokenPromptModule,
)
from ultrarefiner.refinement import (
    AcceptanceRule,
    BestSelection,
    GRUCorrection,
    LearnedGate,
    ProductGate,
    ROICropper,
    SoftSelection,
    UncertaintyGate,
    WrittenClicks,
)
from ultrarefiner.sam import SAM, MedSAMInput, SAMInput, build_light_sam, build_sam
from ultrarefiner.simulation import AtResolution, FailureSimulator, SimpleFailures
from ultrarefiner.systems import (
    AtSize,
    AutoMedSAM,
    AutoSAM,
    CorrectedNetwork,
    ImageSegmenter,
    InteractiveSession,
    SAMRefiner,
    UltraRefiner,
    VolumeSegmenter,
    build_autosam_generator,
    load_pretrained,
    packaged_models,
)
from ultrarefiner.types import (
    Clicks,
    MaskCandidates,
    MultiScaleLogits,
    PromptedSegmentation,
    Prompts,
    RefinedSegmentation,
    Refinement,
)

if TYPE_CHECKING:
    from ultrarefiner import data as data
    from ultrarefiner import evaluation as evaluation
    from ultrarefiner import prediction as prediction
    from ultrarefiner import training as training
    from ultrarefiner.data import EmbeddingCache as EmbeddingCache

__version__ = version("ultrarefiner")


if not TYPE_CHECKING:  # type checkers know the names below, and refuse those that do not exist

    def __getattr__(name: str) -> Any:
        """What needs optional packages or time: four rooms, and the embedding cache, which is in one of them."""
        if name in ("data", "evaluation", "prediction", "training"):
            return import_module(f"ultrarefiner.{name}")
        if name == "EmbeddingCache":
            return import_module("ultrarefiner.data").EmbeddingCache
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)


__all__ = [
    "SAM",
    "AGBCELoss",
    "AcceptanceRule",
    "AtResolution",
    "AtSize",
    "AutoMedSAM",
    "AutoSAM",
    "BackboneUNet",
    "BandTightBoxLoss",
    "BestSelection",
    "BinaryCrossEntropyLoss",
    "BoxBackground",
    "Centroid",
    "Clicks",
    "CorrectedNetwork",
    "DeepSupervision",
    "DiceBCELoss",
    "DiceLoss",
    "DifferentiablePromptExtractor",
    "EmptyLoss",
    "FailureSimulator",
    "FarCorner",
    "FocalLoss",
    "ForegroundLogits",
    "GRUCorrection",
    "ImageSegmenter",
    "InteractiveSession",
    "IoURegressionLoss",
    "LearnedGate",
    "LoadReport",
    "LogBarrier",
    "MaskCandidates",
    "MeanShift",
    "MedSAMInput",
    "MultiScaleLogits",
    "PixelQualityAwareLoss",
    "ProductGate",
    "PromptModule",
    "PromptedSegmentation",
    "Prompts",
    "QualityAwareLoss",
    "ROICropper",
    "RefinedSegmentation",
    "Refinement",
    "SAMInput",
    "SAMRefiner",
    "SegVol",
    "SimpleFailures",
    "SizeLoss",
    "SoftSelection",
    "TightBoxLoss",
    "TokenPromptModule",
    "TransUNet",
    "UltraRefiner",
    "UncertaintyGate",
    "VolumeSegmenter",
    "WeakBoxLoss",
    "WeightAnchor",
    "WrittenClicks",
    "__version__",
    "build_autosam_generator",
    "build_light_sam",
    "build_microsegnet",
    "build_sam",
    "build_segvol",
    "build_transunet",
    "checkpoints",
    "download",
    "load_pretrained",
    "load_weights",
    "losses",
    "networks",
    "ops",
    "packaged_models",
    "prompts",
    "refinement",
    "sam",
    "scale_gradient",
    "simulation",
    "systems",
    "types",
]
