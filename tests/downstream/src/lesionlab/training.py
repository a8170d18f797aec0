"""A training step written by hand, and the library's own loop around the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import ultrarefiner as ur
from lesionlab.data import split
from lesionlab.gate import near_and_unsure
from lesionlab.loss import TverskyLoss, plain_loss
from lesionlab.network import TwoScales
from lesionlab.prompts import CornerPrompts
from ultrarefiner.data import Batch, Cases, FittedCase, FittedCases, collate
from ultrarefiner.evaluation import Evaluation, evaluate
from ultrarefiner.training import CoarseRecipe, JointRecipe, TrainingResult, train


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    losses: list[float]
    result: TrainingResult
    evaluation: Evaluation
    reloaded: ur.UltraRefiner


def build(*, size: int, gate: nn.Module | None = None) -> ur.UltraRefiner:
    """Own network, prompts and gate around the library's SAM."""
    sam: ur.SAM = ur.build_sam("tiny", image_size=size)
    refiner = ur.SAMRefiner(sam, prompts=CornerPrompts(image_size=size), cropper=ur.ROICropper(expand=0.3))
    return ur.UltraRefiner(coarse=TwoScales(), refiner=refiner, gate=gate, acceptance=ur.AcceptanceRule())


def step(model: ur.UltraRefiner, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    """One step, through SAM and the prompts into the coarse network."""
    out: ur.RefinedSegmentation = model(batch.images, batch.content_sizes)
    quality: Tensor = ur.QualityAwareLoss()(out.refined_logits, batch.masks, out.coarse_probability)
    loss = TverskyLoss()(out.refined_logits, batch.masks) + quality + plain_loss(out.coarse_logits, batch.masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def by_hand(model: ur.UltraRefiner, cases: FittedCases) -> list[float]:
    """An epoch without the library's loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loader: DataLoader[FittedCase] = DataLoader(cases, batch_size=2, collate_fn=collate)
    return [step(model.train(), batch, optimizer) for batch in loader]


def refine_discs(cases: Cases, folder: Path, *, size: int = 64) -> Outcome:
    """All of it: a coarse network, a refiner, a few steps, a comparison, and the model from its folder."""
    training, validation = split(cases, size=size)
    model = build(size=size, gate=near_and_unsure(3.0))
    coarse = CoarseRecipe(model.coarse, loss=TverskyLoss(), augmentation=None)
    train(coarse, training, folder=folder / "coarse", epochs=1, batch_size=2, progress=False, tensorboard=False)
    losses = by_hand(model, training)
    result = train(
        JointRecipe(model, augmentation=None),
        training,
        validation=validation,
        folder=folder / "joint",
        epochs=1,
        batch_size=2,
        progress=False,
        tensorboard=False,
    )
    evaluation = evaluate(model, cases, size=size, panels=0, progress=False)
    model.save_pretrained(folder / "model")
    reloaded = ur.UltraRefiner.from_pretrained(folder / "model")
    return Outcome(losses, result, evaluation, reloaded)
