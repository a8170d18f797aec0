"""``ultrarefiner train``: SAM without a prompt, from masks or from boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.cli.setting import Setting, report
from ultrarefiner.data import Augmentation, CachedEmbeddings, EmbeddingCache, FittedCases
from ultrarefiner.losses import BandTightBoxLoss, PixelSizeLoss, SizeLoss, TightBoxLoss, WeakBoxLoss
from ultrarefiner.ops import fill_box
from ultrarefiner.prompts import PromptModule, TokenPromptModule
from ultrarefiner.sam import SAM
from ultrarefiner.systems import AutoMedSAM, AutoSAM, build_autosam_generator
from ultrarefiner.training import AutoMedSAMRecipe, AutoSAMRecipe, load_coarse
from ultrarefiner.types import PromptedSegmentation

_SHOWN = 4
_PUBLISHED_SIDE = 1024


def autosam(
    generator: Literal["hardnet85", "hardnet68", "tiny"] | None = None,
    generator_weights: Path | None = None,
    input_size: int | None = None,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-4,
    batch_size: int = 3,
    augment: bool = True,
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
        augment: flip, rotate, scale and shade the images; without it SAM's encoder runs once an image.
        options: the rest.

    Returns:
        The results on the fold that is reported.
    """
    setting = Setting(**options)
    split, sam = setting.split(), setting.frozen_sam()
    model = AutoSAM(sam, _generator(generator, generator_weights, sam, setting.seed), input_size=_side(input_size, sam))
    recipe = AutoSAMRecipe(
        model,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augmentation=Augmentation() if augment else None,
    )
    return _run(recipe, model, sam, setting, split, name="autosam", batch_size=batch_size, cached=not augment)


def automedsam(
    preset: Literal["project", "paper"] = "project",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    lambda_tightness: float = 1e-4,
    lambda_size: float = 0.01,
    jitter: float = 0.0,
    hidden: int = 128,
    batch_size: int = 4,
    **options: Any,
) -> str:
    """Train Automatic MedSAM from tight boxes alone: a small module makes the prompts from SAM's own embedding.

    Embeddings are computed once and kept in the folder. Where there are masks, only their tight boxes train and choose;
    the masks measure at the end.

    Args:
        preset: the project's module and losses (coordinates, soft labels), or the paper's (tokens, bands of width 5).
        learning_rate: of the prompt module.
        weight_decay: of the prompt module.
        lambda_tightness: weight of the tightness term at 1024 pixels; it counts pixels, so a smaller frame gets more.
        lambda_size: weight of the size term.
        jitter: sides of the boxes move by up to this share of the box, drawn anew in each step.
        hidden: channels of the prompt module's branches.
        batch_size: images in a batch, in each process.
        options: the rest.

    Returns:
        The results on the fold that is reported.
    """
    setting = Setting(**options)
    split, sam = setting.split(), setting.frozen_sam()
    torch.manual_seed(setting.seed)
    channels = width(sam)
    terms: tuple[torch.nn.Module, torch.nn.Module]
    if preset == "paper":
        model = AutoMedSAM(sam, TokenPromptModule(channels=channels, hidden=hidden))
        terms = BandTightBoxLoss(width=5), PixelSizeLoss(low=0.5, high=0.9)
    else:
        side = sam.input_policy.size
        model = AutoMedSAM(sam, PromptModule(channels=channels, hidden=hidden, image_size=side))
        terms = TightBoxLoss(), SizeLoss()
    tight_weight = lambda_tightness * _PUBLISHED_SIDE / sam.input_policy.size
    loss = WeakBoxLoss(tight=terms[0], size=terms[1], tight_weight=tight_weight, size_weight=lambda_size)
    recipe = AutoMedSAMRecipe(model, learning_rate=learning_rate, weight_decay=weight_decay, loss=loss, jitter=jitter)
    return _run(recipe, model, sam, setting, split, name="automedsam", batch_size=batch_size, cached=True)


class _BoxOf(torch.nn.Module):
    """A model's masks, each as its tight box, filled: what can be measured where boxes alone are known."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: PromptedSegmentation = self.model(images)
        return 20 * fill_box(answer.logits.sigmoid()) - 10


def _run(
    recipe: AutoSAMRecipe | AutoMedSAMRecipe,
    model: AutoSAM | AutoMedSAM,
    sam: SAM,
    setting: Setting,
    split: Any,
    *,
    name: str,
    batch_size: int,
    cached: bool,
) -> str:
    """Train, load the best, measure it on what is reported."""
    from ultrarefiner.evaluation import Snapshots, filled_box_metrics  # brings matplotlib

    size = model.input_policy.size
    training, validation = FittedCases(split.training, size), FittedCases(split.validation, size)
    sets: tuple[Any, Any] = (training, validation)
    if cached:
        cache = EmbeddingCache(setting.out / "embeddings", sam)
        for dataset in sets:
            cache.fill(dataset, batch_size=1, progress=setting.progress)  # more is no faster, and takes gigabytes
        sets = (CachedEmbeddings(training, cache), CachedEmbeddings(validation, cache))
    shown = Snapshots(
        split.validation.subset(split.validation.names[:_SHOWN]),
        size=size,
        every=setting.snapshot_every,
        boxes_only=not setting.has_masks,
    )
    result = setting.train(recipe, *sets, name=name, batch_size=batch_size, shown=shown)
    load_coarse(model, result.best, unseen=(split.test,))
    model.to(setting.device())
    if setting.has_masks:
        boxes = {"the true box, filled": filled_box_metrics(split.test)}
        table = report({name: model}, setting, split.test, size=size, name=name, baselines=boxes)
        of = "masks"
    else:
        table = report({f"boxes of {name}": _BoxOf(model)}, setting, split.test, size=size, name=name, baselines={})
        of = "boxes, against the given ones; there are no masks to measure"
    untold = "" if setting.sam_weights else "\nSAM has random weights (no sam_weights): this shows that all runs."
    return f"{result}\nOn {len(split.test)} cases that neither trained nor chose, {of}:\n\n{table}{untold}"


def _generator(name: Any, weights: Path | None, sam: SAM, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    made = build_autosam_generator(
        name or ("tiny" if sam.name == "tiny" else "hardnet85"),
        channels=width(sam),
        size=cast("Any", sam.prompt_encoder).image_embedding_size,
    )
    if weights is not None:
        load_weights(made.backbone, weights, layout="hardnet")
    return made


def width(sam: SAM) -> int:
    """Channels of SAM's embeddings."""
    return int(cast("Any", sam.prompt_encoder).embed_dim)


def _side(wanted: int | None, sam: SAM) -> int:
    return min(512, sam.input_policy.size) if wanted is None else wanted
