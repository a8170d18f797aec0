"""Automatic MedSAM: segment with no click and no box, learnt from boxes alone; then measured against masks.

Full size, on a GPU of 8 GB:  python examples/automedsam.py --data BUSI --sam-weights medsam_vit_b.pth \\
                                  --input-policy medsam
Small, on two CPU cores:      python examples/automedsam.py --small

SAM is frozen and its embeddings are computed once. The prompt module is trained from tight boxes; with --labels masks
on true masks, and with --labels filled on filled boxes as if they were masks: what boxes cost, and what the losses for
boxes gain. Everything that was trained in --out is measured together at the end, with the true boxes filled beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import setting
import torch
from small_sam import frozen_sam, sam_options

import ultrarefiner as ur
from ultrarefiner.data import CachedEmbeddings, EmbeddingCache
from ultrarefiner.evaluation import (
    Curves,
    History,
    SegmentationEvaluation,
    Snapshots,
    evaluate_segmentation,
    filled_box_metrics,
    segmentation_figure,
    segmentation_table,
    write_segmentation_csv,
)
from ultrarefiner.losses import paper_weak_box_loss, project_weak_box_loss
from ultrarefiner.ops import fill_box
from ultrarefiner.training import AutoMedSAMRecipe, MaskedAutoMedSAMRecipe, Recipe, load_coarse, train

LABELS = {"boxes": "boxes", "filled": "filled boxes as masks", "masks": "full masks"}


PRESETS = {"project": "the project's way", "paper": "the paper's way"}


class FilledBoxes(CachedEmbeddings):
    """The tight box of every mask, filled, in its place."""

    def __getitem__(self, index: int) -> Any:
        case = super().__getitem__(index)
        return replace(case, mask=fill_box(case.mask))

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]

    def settings(self) -> dict[str, Any]:
        return {"filled": super().settings()}


def more(parser: argparse.ArgumentParser) -> None:
    sam_options(parser)
    parser.add_argument("--labels", choices=LABELS, default="boxes", help="what the prompt module learns from")
    parser.add_argument("--preset", choices=PRESETS, default="project", help="module and losses")


def build(args: argparse.Namespace, sam: ur.SAM) -> ur.AutoMedSAM:
    """Automatic MedSAM around a frozen SAM; in small the branches are narrower."""
    torch.manual_seed(args.seed)
    channels = sam.prompt_encoder.embed_dim
    hidden = 32 if args.small else 128
    if args.preset == "paper":
        return ur.AutoMedSAM(sam, ur.TokenPromptModule(channels=channels, hidden=hidden))
    size = sam.input_policy.size
    return ur.AutoMedSAM(sam, ur.PromptModule(channels=channels, hidden=hidden, image_size=size))


def recipe(args: argparse.Namespace, model: ur.AutoMedSAM) -> Recipe:
    """One for boxes, one for masks, be they true or filled boxes."""
    if args.labels != "boxes":
        return MaskedAutoMedSAMRecipe(model)
    make_loss = paper_weak_box_loss if args.preset == "paper" else project_weak_box_loss
    return AutoMedSAMRecipe(model, loss=make_loss(size=model.input_policy.size))


def main() -> None:
    args = setting.arguments(__doc__, more=more)
    sam, cases = frozen_sam(args), setting.split(args)
    training, validation = cases.fitted(sam.input_policy.size)
    cache = EmbeddingCache(args.out / "embeddings", sam)
    for dataset in (training, validation):
        cache.fill(dataset, batch_size=1)
    model = build(args, sam)
    view = FilledBoxes if args.labels == "filled" else CachedEmbeddings
    options = setting.run_options(args, 1)
    result = train(
        recipe(args, model),
        view(training, cache),
        validation=view(validation, cache),
        folder=folder(args, args.labels),
        watchers=(Curves(), History(), Snapshots([validation[i] for i in range(4)], every=25)),
        keep_every=50,
        **{**options, "batch_size": 4, "epochs": args.epochs or 100},
    )
    print(result)
    measure(args, sam, cases)


def folder(args: argparse.Namespace, labels: str) -> Any:
    return setting.folder(args, f"automedsam_{args.preset}_{labels}")


def measure(args: argparse.Namespace, sam: ur.SAM, cases: setting.Split) -> None:
    """All that was trained, on the fold's test cases, at their own resolution."""
    found: dict[str, SegmentationEvaluation] = {}
    for preset, by in PRESETS.items():
        for labels, said in LABELS.items():
            chosen = argparse.Namespace(**{**vars(args), "preset": preset})
            path = folder(chosen, labels) / "best.pt"
            if not path.exists():
                continue
            model = build(chosen, sam)
            load_coarse(model, path, unseen=(cases.test,))
            found[f"{said}, {by}"] = evaluated = evaluate_segmentation(model, cases.test, size=sam.input_policy.size)
            write_segmentation_csv(folder(chosen, labels) / "test.csv", evaluated)
            segmentation_figure(evaluated.panels, folder(chosen, labels) / "test.png")
    rows = {**found, "(the true box, filled)": filled_box_metrics(cases.test)}
    report = segmentation_table(rows, against=next(iter(found)))
    setting.folder(args, "automedsam.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
