"""``ultrarefiner train refiner``: phase 2, SAM learns to repair coarse masks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ultrarefiner.cli.flag_checks import refuse_idle, refuse_negative
from ultrarefiner.cli.frozen_sam import SAMFlags
from ultrarefiner.cli.phase_masks import Failures, TrainingMasks
from ultrarefiner.cli.phase_network import CoarseNetwork, load_imagenet
from ultrarefiner.cli.phase_pair import BEST, load_refined, trained_coarse
from ultrarefiner.cli.phase_record import PhaseRecord, finished_phase, refuse_told
from ultrarefiner.cli.phase_refiner import (
    GateName,
    MaskPrompt,
    Negative,
    Positive,
    RefinerParts,
    SAMName,
    encoder_backbone,
    joined,
)
from ultrarefiner.cli.phase_report import pair_tables
from ultrarefiner.cli.phase_setting import PhaseSetting, unseen
from ultrarefiner.cli.phase_start import same_start
from ultrarefiner.cli.setting import Augment, augmentation, is_first_process
from ultrarefiner.cli.split import Split
from ultrarefiner.losses import QualityAwareLoss
from ultrarefiner.sam import SAM
from ultrarefiner.training import RefinerRecipe

RUN = "refiner"
_BY = "train refiner"
_LIGHT_SIZE, _LARGEST_FRAME = 256, 1024
_COARSE_SIZE = 224
_ROI_EXPAND, _SHARE = 0.2, 0.5


def refiner(
    sam: SAMName = "light",
    sam_weights: Path | None = None,
    input_policy: Literal["sam", "medsam"] = "sam",
    sam_size: int | None = None,
    sam_backbone: str | None = None,
    encoder: Literal["imagenet", "coarse", "random"] = "imagenet",
    train_image_encoder: bool | None = None,
    freeze: list[str] | None = None,
    frame: int | None = None,
    mask_style: MaskPrompt = "direct",
    positive: Positive = "centroid",
    negative: Negative = "box",
    box: bool = True,
    floor: float = 0.05,
    roi: bool = True,
    roi_expand: float = _ROI_EXPAND,
    gate: GateName = "none",
    gate_bias: float = 0.0,
    failures: Failures = "simulated",
    share: float = _SHARE,
    failure_preset: Literal["default", "mild", "severe", "boundary", "structural"] = "default",
    coarse_size: int | None = None,
    quality_weight: float = 0.5,
    iou_weight: float = 0.1,
    learning_rate: float | None = None,
    weight_decay: float = 1e-4,
    batch_size: int = 4,
    epochs: int = 50,
    augment: Augment | None = None,
    **options: Any,
) -> str:
    """Train a refiner, phase 2: SAM learns to repair coarse masks, simulated or predicted ones.

    If train coarse is finished in the same out, its masks of the cases that choose choose the checkpoint, and coarse is
    compared with refined at the end.

    Args:
        sam: light has a backbone of timm's as image encoder; tiny is a small SAM without published weights.
        sam_weights: checkpoint of tiny, vit_b, vit_l or vit_h, SAM's or MedSAM's.
        input_policy: how images become SAM's input; it belongs to the weights.
        sam_size: side of the light SAM's input, a multiple of 32; by default 256.
        sam_backbone: of the light SAM, a name of timm's; by default tf_efficientnet_lite0.
        encoder: what the light SAM's backbone begins with, ImageNet's weights, those of the light coarse network of
            the same out, or random ones.
        train_image_encoder: whether SAM's image encoder trains, too; by default in light and tiny.
        freeze: parts of the image encoder that never train, such as [backbone.conv_stem, backbone.blocks.0].
        frame: side of the square that images are fitted to; by default twice SAM's side with a region, SAM's side
            without, 1024 at most.
        mask_style: of the mask prompt; none gives SAM no mask.
        positive: rule of the positive point, or none.
        negative: rule of the negative point, or none.
        box: tell SAM a box.
        floor: probability that counts as nothing, below 0.1.
        roi: let SAM see a region around the mask; otherwise it sees the whole image.
        roi_expand: margin of the region on each side, as a share of the box's side.
        gate: how much of SAM's mask enters the final mask, pixel by pixel; the learned one trains here, too.
        gate_bias: of the learned gate at the start; 0 is the mean of both masks, -2 is 12 percent of SAM's.
        failures: masks to repair. simple and simulated damage true masks, predicted are those of train coarse
            --out_of_fold, mixed are simulated and predicted ones.
        share: of predicted masks in mixed.
        failure_preset: which mixture of errors is simulated.
        coarse_size: side of the square in which masks are damaged; by default the coarse network's, or 224.
        quality_weight: price of changing a good coarse mask; 0 is plain cross entropy and Dice.
        iou_weight: weight of the loss on SAM's own estimate of its masks' quality.
        learning_rate: by default 0.0005 for light and tiny, else 0.0001.
        weight_decay: AdamW's.
        batch_size: images in a batch, in each process.
        epochs: passes over the training cases.
        augment: how images are moved and shaded; by default as the data set was published with, else for ultrasound.
        options: the rest.

    Returns:
        The results on what is reported.
    """
    setting = PhaseSetting(epochs=epochs, **options)
    small = sam in ("light", "tiny")
    trains = small if train_image_encoder is None else train_image_encoder
    parts = RefinerParts(
        sam=sam,
        sam_size=_LIGHT_SIZE if sam_size is None else sam_size,
        sam_backbone=(sam_backbone or "tf_efficientnet_lite0") if sam == "light" else "",
        input_policy=input_policy,
        mask_style=mask_style,
        positive=positive,
        negative=negative,
        box=box,
        floor=floor,
        roi=roi,
        roi_expand=roi_expand,
        gate=gate,
        gate_bias=gate_bias,
        trained_encoder=trains,
        freeze=tuple(freeze or ()),
        learning_rate=(5e-4 if small else 1e-4) if learning_rate is None else learning_rate,
    )
    refuse_negative(
        learning_rate=learning_rate, weight_decay=weight_decay, quality_weight=quality_weight, iou_weight=iou_weight
    )
    _refuse_foreign(parts, encoder, sam_weights=sam_weights, sam_size=sam_size, sam_backbone=sam_backbone)
    _refuse_idle(parts, failures, share, failure_preset)
    split = setting.split()
    before = finished_phase(setting, "coarse", by=_BY)
    if before is not None:
        refuse_told("coarse_size", coarse_size, before.parts["size"], setting.run_folder("coarse"))
        coarse_size = before.parts["size"]
    masks = TrainingMasks(failures, share, failure_preset, coarse_size or _COARSE_SIZE)
    torch.manual_seed(setting.seed)
    begun = _begun(parts, setting, split, sam_weights=sam_weights, encoder=encoder)
    begins = {"sam_weights": None if sam_weights is None else sam_weights.name, "encoder": encoder}
    parts = replace(parts, sam_size=begun.input_policy.size)
    recipe = RefinerRecipe(
        parts.build(begun),
        failures=masks.damage(),
        learning_rate=parts.learning_rate,
        weight_decay=weight_decay,
        train_image_encoder=trains,
        frozen=parts.frozen_parts(),
        gate=parts.build_gate(),
        augmentation=augmentation(augment, setting.dataset),
        loss=QualityAwareLoss(weight=quality_weight),
        iou_weight=iou_weight,
    )
    side = min(_LARGEST_FRAME, parts.sam_size * (2 if roi else 1)) if frame is None else frame
    return _run(recipe, parts, masks, setting, split, before, begins=begins, frame=side, batch_size=batch_size)


def _run(
    recipe: RefinerRecipe,
    parts: RefinerParts,
    masks: TrainingMasks,
    setting: PhaseSetting,
    split: Split,
    before: PhaseRecord | None,
    *,
    begins: dict[str, Any],
    frame: int,
    batch_size: int,
) -> str:
    """Train, load the best, compare it with the coarse network."""
    training, validation = setting.fitted(split, frame)
    dataset, chooses = masks.sets(training, validation, setting, by=_BY)
    same_start(setting.run_folder(RUN), **begins)
    result = setting.train(
        recipe, dataset, chooses, name=RUN, batch_size=batch_size, epoch_size=min(len(training), len(dataset))
    )
    if not is_first_process():
        return ""
    load_refined(recipe.refiner, recipe.gate, result.best, unseen=unseen(split))
    folder = setting.run_folder(RUN)
    PhaseRecord(RUN, frame, setting.cases(), asdict(parts), None if before is None else before.parts).write(folder)
    told = setting.told(result)
    if before is None:
        return f"{told}\n\nNo coarse network is in {setting.out} yet: train coarse, then train joint measure the pair."
    network, _ = trained_coarse(setting, split, by=_BY)
    model = joined(network, recipe.refiner, recipe.gate, frame=frame)
    return f"{told}\n\n{pair_tables(model, setting, split, RUN, frame=frame, batch_size=batch_size)}"


def _begun(
    parts: RefinerParts,
    setting: PhaseSetting,
    split: Split,
    *,
    sam_weights: Path | None,
    encoder: str,
) -> SAM:
    """SAM as training begins with it."""
    if parts.sam != "light":
        flags = SAMFlags(
            sam=parts.sam,
            sam_weights=sam_weights,
            input_policy=parts.input_policy,
            seed=setting.seed,
            accelerator=setting.accelerator,
        )
        return flags.frozen_sam(made_up=setting.synthetic or parts.trained_encoder)
    sam = parts.build_sam()
    if encoder == "imagenet":
        if parts.sam_backbone != "tf_efficientnet_lite0":
            message = (
                f"ImageNet's weights are at hand for tf_efficientnet_lite0 alone, but sam_backbone is "
                f"{parts.sam_backbone!r}; give encoder random, or coarse where the coarse network has it."
            )
            raise ValueError(message)
        load_imagenet(encoder_backbone(sam))
    elif encoder == "coarse":
        network, record = trained_coarse(setting, split, by=f"{_BY} with encoder coarse")
        coarse = record.built(CoarseNetwork, setting.run_folder("coarse"))
        if (coarse.network, coarse.backbone) != ("light", parts.sam_backbone):
            message = (
                f"encoder coarse needs a light coarse network on {parts.sam_backbone}, but {BEST} of phase 1 is "
                f"{coarse.network} {coarse.backbone}; give encoder imagenet or random."
            )
            raise ValueError(message)
        inside: Any = network.network
        encoder_backbone(sam).load_state_dict(inside.backbone.state_dict())
    elif not parts.trained_encoder and not setting.synthetic:
        message = "encoder is random and train_image_encoder false, so that SAM would never see; change one of them."
        raise ValueError(message)
    return sam


def _refuse_foreign(
    parts: RefinerParts, encoder: str, *, sam_weights: Path | None, sam_size: int | None, sam_backbone: str | None
) -> None:
    """Raise if a flag belongs to another SAM."""
    light, but = parts.sam == "light", f"but sam is {parts.sam!r}"
    refuse_idle(
        {
            f"sam_weights are of segment-anything's SAMs, {but}": light and sam_weights is not None,
            f"input_policy is of segment-anything's SAMs, {but}": light and parts.input_policy != "sam",
            f"sam_size is of the light SAM, {but}": not light and sam_size is not None,
            f"sam_backbone is of the light SAM, {but}": not light and sam_backbone is not None,
            f"encoder is of the light SAM, {but}": not light and encoder != "imagenet",
        }
    )


def _refuse_idle(parts: RefinerParts, failures: str, share: float, preset: str) -> None:
    """Raise if a flag has no effect beside the others."""
    but = f"but failures are {failures!r}"
    refuse_idle(
        {
            "freeze is of an image encoder that trains, but it does not": bool(parts.freeze)
            and not parts.trained_encoder,
            "roi_expand is of the region, but there is none": not parts.roi and parts.roi_expand != _ROI_EXPAND,
            f"gate_bias is of the learned gate, but gate is {parts.gate!r}": parts.gate != "learned"
            and parts.gate_bias != 0,
            f"share is of mixed failures, {but}": failures != "mixed" and share != _SHARE,
            f"failure_preset is of simulated failures, {but}": failures in ("simple", "predicted")
            and preset != "default",
        }
    )
