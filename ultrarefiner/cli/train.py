"""``ultrarefiner train``: SAM without a prompt, from masks or from boxes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.cli.flag_checks import refuse_negative
from ultrarefiner.cli.phase_start import same_start
from ultrarefiner.cli.report import report
from ultrarefiner.cli.setting import Augment, Setting, augmentation, is_first_process
from ultrarefiner.data import FittedCases
from ultrarefiner.losses import paper_weak_box_loss, project_weak_box_loss
from ultrarefiner.prompts import PromptModule, TokenPromptModule
from ultrarefiner.sam import SAM
from ultrarefiner.systems import AutoMedSAM, AutoSAM, build_autosam_generator
from ultrarefiner.training import AutoMedSAMRecipe, AutoSAMRecipe, load_coarse

_LOGGER = logging.getLogger("ultrarefiner")
_CROWDED = ("glas", "monuseg")


def autosam(
    generator: Literal["hardnet85", "hardnet68", "tiny"] | None = None,
    generator_weights: Path | None = None,
    input_size: int | None = None,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-4,
    batch_size: int = 3,
    augment: Augment | None = None,
    **options: Any,
) -> str:
    """Train AutoSAM: a network makes SAM's dense prompt from the image, SAM is frozen.

    Args:
        generator: backbone of what makes the prompt; by default hardnet85, with a tiny SAM tiny.
        generator_weights: ImageNet weights of that backbone.
        input_size: side of the generator's input; by default 512, or SAM's own side where that is smaller.
        learning_rate: of the generator.
        weight_decay: of the generator.
        batch_size: images in a batch, in each process.
        augment: how images are moved and shaded; by default as the data set was published with, else for ultrasound.
            With none SAM's encoder runs once an image.
        options: the rest.

    Returns:
        The results on what is reported.
    """
    setting = Setting(**options)
    if not setting.has_masks:
        message = "boxes are for automedsam: autosam learns from masks; leave boxes out, or train automedsam."
        raise ValueError(message)
    refuse_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    sam = setting.frozen_sam(made_up=setting.synthetic)
    made = _generator(generator, generator_weights, sam, setting.seed)
    side = min(512, sam.input_policy.size) if input_size is None else input_size
    moved = augmentation(augment, setting.dataset)
    recipe = AutoSAMRecipe(
        AutoSAM(sam, made, input_size=side),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augmentation=moved,
    )
    begins = {"generator_weights": None if generator_weights is None else generator_weights.name}
    return _run(recipe, sam, setting, begins=begins, name="autosam", batch_size=batch_size, cached=moved is None)


def automedsam(
    preset: Literal["project", "paper"] = "project",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    lambda_tightness: float = 1e-4,
    lambda_size: float = 0.01,
    jitter: float = 0.0,
    choose_by: Literal["box", "mask"] = "box",
    hidden: int = 128,
    batch_size: int = 4,
    **options: Any,
) -> str:
    """Train Automatic MedSAM from tight boxes alone: a small module makes the prompts from SAM's own embedding.

    Embeddings are computed once and kept. Where there are masks, only their tight boxes train and, unless told
    otherwise, choose; the masks measure at the end.

    Args:
        preset: the project's module and losses (coordinates, soft labels), or the paper's (tokens, bands of width 5).
        learning_rate: of the prompt module.
        weight_decay: of the prompt module.
        lambda_tightness: weight of the tightness term at 1024 pixels; it counts pixels, so a smaller frame gets more.
        lambda_size: weight of the size term.
        jitter: sides of the boxes move by up to this share of the box, drawn anew in each step.
        choose_by: what chooses the checkpoint in validation, the Dice of tight boxes or of masks.
        hidden: channels of the prompt module's branches.
        batch_size: images in a batch, in each process.
        options: the rest.

    Returns:
        The results on what is reported.
    """
    setting = Setting(**options)
    if choose_by == "mask" and not setting.has_masks:
        message = "choose_by must be box where boxes alone are known, but it is 'mask'; leave it out."
        raise ValueError(message)
    refuse_negative(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        lambda_tightness=lambda_tightness,
        lambda_size=lambda_size,
        jitter=jitter,
    )
    if setting.dataset in _CROWDED:
        _LOGGER.warning("%s has many objects in an image; the box here is the one around all of them", setting.dataset)
    sam = setting.frozen_sam(made_up=setting.synthetic)
    torch.manual_seed(setting.seed)
    channels, size = int(cast("Any", sam.prompt_encoder).embed_dim), sam.input_policy.size
    module: nn.Module
    if preset == "paper":
        module, make_loss = TokenPromptModule(channels=channels, hidden=hidden), paper_weak_box_loss
    else:
        module, make_loss = PromptModule(channels=channels, hidden=hidden, image_size=size), project_weak_box_loss
    recipe = AutoMedSAMRecipe(
        AutoMedSAM(sam, module),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        loss=make_loss(size=size, tight_weight=lambda_tightness, size_weight=lambda_size),
        jitter=jitter,
        choose_by=choose_by,
    )
    return _run(recipe, sam, setting, begins={}, name="automedsam", batch_size=batch_size, cached=True)


def _run(
    recipe: AutoSAMRecipe | AutoMedSAMRecipe,
    sam: SAM,
    setting: Setting,
    *,
    begins: dict[str, str | None],
    name: str,
    batch_size: int,
    cached: bool,
) -> str:
    """Train, load the best, measure it on what is reported."""
    split = setting.split()
    training, validation = setting.sets(split, sam, cached=cached)
    weights = None if setting.sam_weights is None else setting.sam_weights.name
    same_start(setting.run_folder(name), sam_weights=weights, **begins)
    result = setting.train(recipe, training, validation, name=name, batch_size=batch_size)
    if not is_first_process():
        return ""
    model = recipe.model
    load_coarse(model, result.best, unseen=tuple(split.tests.values()))
    fitted: FittedCases = training.dataset if cached else training
    table = report(model, setting, split, fitted, name=name)
    worth = "" if setting.sam_weights else "\nMade-up cases and a SAM of random weights: this shows that all runs."
    return f"{setting.told(result)}\n\n{table}{worth}"


def _generator(name: Any, weights: Path | None, sam: SAM, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    prompt_encoder = cast("Any", sam.prompt_encoder)
    made = build_autosam_generator(
        name or ("tiny" if sam.name == "tiny" else "hardnet85"),
        channels=prompt_encoder.embed_dim,
        size=prompt_encoder.image_embedding_size,
    )
    if weights is not None:
        load_weights(made.backbone, weights, layout="hardnet")
    return made
