"""What a type checker has to refuse; each line that ends in `# wrong` is one mistake, and nothing else is."""

from __future__ import annotations

import torch
from lesionlab import CornerPrompts, Discs

import ultrarefiner as ur
from ultrarefiner.data import Batch, FittedCases
from ultrarefiner.prompts import PointRule
from ultrarefiner.training import CoarseRecipe, train


def rule(geometry: torch.Tensor) -> torch.Tensor:
    """No point rule: it asks for a tensor."""
    return geometry


def mistakes(batch: Batch, model: ur.UltraRefiner, prompts: ur.Prompts) -> None:
    """Never called."""
    ur.ROICropper(expand="0.2")  # wrong
    ur.UltraRefiner(model, refiner=model.refiner)  # wrong
    ur.UltraRefiner(coarse=model.coarse, refiner=model.coarse)  # wrong
    prompts.boxes.shape  # wrong
    prompts.points = None  # wrong
    batch.image  # wrong
    CornerPrompts(image_size="64")  # wrong
    FittedCases([1, 2, 3], 64)  # wrong
    train(CoarseRecipe(model.coarse), FittedCases(Discs((1, 2)), 64), folder="run")  # wrong
    point_rule: PointRule = rule  # wrong
    print(point_rule)
    name: int = ur.packaged_models()[0]  # wrong
    print(name)
    ur.no_such_name  # wrong
    ur.build_sam("tiny").input_policy.side  # wrong
