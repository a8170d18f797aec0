"""``ultrarefiner train joint``: phase 3, both networks together, and what the refinement is worth."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ultrarefiner.cli.flag_checks import refuse_idle, refuse_negative
from ultrarefiner.cli.phase_pair import JointParts, load_joint, trained_coarse, trained_refiner
from ultrarefiner.cli.phase_record import PhaseRecord, refuse_told
from ultrarefiner.cli.phase_refiner import GateName, RefinerParts
from ultrarefiner.cli.phase_report import pair_tables
from ultrarefiner.cli.phase_setting import PhaseSetting, unseen
from ultrarefiner.cli.setting import Augment, augmentation, is_first_process
from ultrarefiner.cli.split import Split
from ultrarefiner.losses import QualityAwareLoss
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.training import JointRecipe

RUN = "joint"
_BY = "train joint"
_LOGGER = logging.getLogger("ultrarefiner")


def joint(
    gate: GateName | None = None,
    gate_bias: float = 0.0,
    freeze_gate: bool = False,
    gradient_scale: float = 0.1,
    accept_iou: float = 0.0,
    accept_agreement: float = 0.0,
    frame: int | None = None,
    coarse_learning_rate: float = 1e-5,
    refiner_learning_rate: float | None = None,
    weight_decay: float = 1e-4,
    coarse_weight: float = 0.3,
    refined_weight: float = 0.7,
    quality_weight: float = 0.5,
    iou_weight: float = 0.1,
    anchor_weight: float = 0.0,
    freeze_coarse_epochs: int | None = None,
    freeze_refiner_epochs: int = 0,
    train_image_encoder: bool | None = None,
    batch_size: int = 4,
    epochs: int = 50,
    augment: Augment | None = None,
    **options: Any,
) -> str:
    """Train coarse network and refiner together, phase 3, and compare coarse with refined.

    Takes over what train coarse and train refiner left in the same out, and builds both as they were trained; give the
    same cases and fold.

    Args:
        gate: how much of SAM's mask enters the final mask, pixel by pixel; by default as in train refiner, and another
            one only where there was none.
        gate_bias: of a learned gate at the start that is new; 0 is the mean of both masks.
        freeze_gate: leave the gate as train refiner trained it, on masks of cases that no network had seen.
        gradient_scale: factor on the gradient that the refined mask sends to the coarse network; 0 sends none.
        accept_iou: keep the coarse mask where SAM's estimate of its own mask's IoU is below this; 0 asks for nothing.
        accept_agreement: keep the coarse mask where its Dice with SAM's is below this; 0 asks for nothing.
        frame: side of the square that images are fitted to: that of train refiner, any other is refused.
        coarse_learning_rate: of the coarse network.
        refiner_learning_rate: of refiner and gate; by default a tenth of train refiner's.
        weight_decay: AdamW's; an anchored coarse network has none.
        coarse_weight: weight of the coarse mask's loss.
        refined_weight: weight of the refined mask's loss.
        quality_weight: price of changing a good coarse mask; 0 is plain cross entropy and Dice.
        iou_weight: weight of the loss on SAM's own estimate of its masks' quality.
        anchor_weight: weight of the coarse network's squared distance from what it was after phase 1.
        freeze_coarse_epochs: epochs in which the coarse network does not train yet; by default a fifth.
        freeze_refiner_epochs: epochs in which the refiner does not train yet.
        train_image_encoder: whether SAM's image encoder trains, too; by default as in train refiner.
        batch_size: images in a batch, in each process.
        epochs: passes over the training cases.
        augment: how images are moved and shaded; by default as the data set was published with, else for ultrasound.
        options: the rest.

    Returns:
        The results on what is reported.
    """
    setting = PhaseSetting(epochs=epochs, **options)
    refuse_negative(
        coarse_learning_rate=coarse_learning_rate,
        refiner_learning_rate=refiner_learning_rate,
        weight_decay=weight_decay,
        coarse_weight=coarse_weight,
        refined_weight=refined_weight,
        quality_weight=quality_weight,
        iou_weight=iou_weight,
        anchor_weight=anchor_weight,
        freeze_coarse_epochs=freeze_coarse_epochs,
        freeze_refiner_epochs=freeze_refiner_epochs,
    )
    split = setting.split()
    torch.manual_seed(setting.seed)
    network, before = trained_coarse(setting, split, by=_BY)
    refiner, trained_gate, refined, record = trained_refiner(setting, split, by=_BY)
    refuse_told("frame", frame, record.frame, setting.run_folder("refiner"))
    chosen, bias = _gate(refined, gate, gate_bias, freeze_gate=freeze_gate, folder=setting.run_folder("refiner"))
    parts = JointParts(dict(before.parts), asdict(refined), chosen, bias, gradient_scale, accept_iou, accept_agreement)
    model = parts.join(network, refiner, trained_gate, frame=record.frame)
    trains = refined.trained_encoder if train_image_encoder is None else train_image_encoder
    never = {f"refiner.{name}": start for name, start in refined.frozen_parts().items()}
    recipe = JointRecipe(
        model,
        coarse_learning_rate=coarse_learning_rate,
        refiner_learning_rate=refined.learning_rate / 10 if refiner_learning_rate is None else refiner_learning_rate,
        weight_decay=weight_decay,
        coarse_weight=coarse_weight,
        refined_weight=refined_weight,
        iou_weight=iou_weight,
        anchor_weight=anchor_weight,
        freeze_coarse_epochs=epochs // 5 if freeze_coarse_epochs is None else freeze_coarse_epochs,
        freeze_refiner_epochs=freeze_refiner_epochs,
        freeze_image_encoder=not trains,
        frozen={**never, **({"gate": None} if freeze_gate else {})},
        augmentation=augmentation(augment, setting.dataset),
        loss=QualityAwareLoss(weight=quality_weight),
    )
    return _run(recipe, parts, setting, split, frame=record.frame, batch_size=batch_size)


def _gate(
    refined: RefinerParts, told: GateName | None, bias: float, *, freeze_gate: bool, folder: Path
) -> tuple[GateName, float]:
    """Which gate, and of a learned one its bias at the start: that of phase 2, or a new one where there was none.

    Args:
        refined: of phase 2.
        told: the flag gate.
        bias: the flag gate_bias.
        freeze_gate: the flag.
        folder: of phase 2, for complaints.

    Raises:
        ValueError: another gate is asked for than there is, or a flag has no effect.
    """
    had = refined.gate != "none"
    if had:
        refuse_told("gate", told, refined.gate, folder)
    chosen = refined.gate if told is None else told
    refuse_idle(
        {
            "freeze_gate is about the gate of train refiner, but it had none": freeze_gate and not had,
            "gate_bias is of a learned gate that is new, but train refiner had one": bias != 0 and had,
            f"gate_bias is of a learned gate, but gate is {chosen!r}": bias != 0 and chosen != "learned",
        }
    )
    return chosen, refined.gate_bias if had else bias


def _run(
    recipe: JointRecipe, parts: JointParts, setting: PhaseSetting, split: Split, *, frame: int, batch_size: int
) -> str:
    """Train, load the best, measure it, write it as a whole."""
    training, validation = setting.fitted(split, frame)
    result = setting.train(recipe, training, validation, name=RUN, batch_size=batch_size)
    if not is_first_process():
        return ""
    load_joint(recipe.model, result.best, unseen=unseen(split))
    PhaseRecord(RUN, frame, setting.cases(), asdict(parts), parts.coarse).write(setting.run_folder(RUN))
    table = pair_tables(recipe.model, setting, split, RUN, frame=frame, batch_size=batch_size)
    written = _written(recipe.model, parts, setting, result.best)
    return f"{setting.told(result)}\n{written}\n\n{table}"


def _written(model: UltraRefiner, parts: JointParts, setting: PhaseSetting, best: Path) -> str:
    """Write the whole model where it can be built again from that alone; what predict can be told, in words."""
    folder = setting.run_folder(RUN) / "pretrained"
    try:
        if parts.coarse["network"] == "unet":
            raise ValueError("its coarse network is MONAI's, which config.json has no words for")
        model.save_pretrained(folder)
    except (ValueError, TypeError) as error:
        _LOGGER.warning("%s was not written: %s", folder, error)
        return f"the model, for ultrarefiner predict --model: {best}"
    return f"the whole model, for ultrarefiner predict --model and UltraRefiner.from_pretrained: {folder}"
