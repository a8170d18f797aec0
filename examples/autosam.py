"""AutoSAM: the image makes SAM's prompt, SAM is frozen; against the same generator with a light decoder and no SAM.

Full size, on a GPU:      python examples/autosam.py --data BUSI --sam-weights sam_vit_b_01ec64.pth \\
                              --hardnet hardnet85.pth
Small, on two CPU cores:  python examples/autosam.py --small

Trains AutoSAM, then, with --head light, the ablation h(g(I)) of its paper: what stands above that is what SAM adds.
Everything that was trained in --out is measured together at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import setting
import torch
from small_sam import frozen_sam, sam_options
from torch import nn

import ultrarefiner as ur
from ultrarefiner.evaluation import (
    Curves,
    History,
    SegmentationEvaluation,
    Snapshots,
    evaluate_segmentation,
    segmentation_figure,
    segmentation_table,
    write_segmentation_csv,
)
from ultrarefiner.networks import LightDecoder
from ultrarefiner.systems import LightAutoSAM
from ultrarefiner.training import AutoSAMRecipe, CoarseRecipe, Recipe, load_coarse, train

HEADS = {"sam": "AutoSAM", "light": "light decoder h(g(I))"}
RATE = 3e-4


def more(parser: argparse.ArgumentParser) -> None:
    sam_options(parser)
    parser.add_argument("--head", choices=HEADS, default="sam", help="what comes behind the generator")
    parser.add_argument("--hardnet", type=Path, help="ImageNet weights of HarDNet-85 for the full-size generator")
    parser.add_argument("--input-size", type=int, help="side of the generator's input; 256, or 512 in full")


def build(args: argparse.Namespace, sam: ur.SAM, head: str) -> nn.Module:
    """The generator in front of SAM, or of the light decoder; both start from the same weights."""
    torch.manual_seed(args.seed)
    channels, size = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size
    generator = ur.build_autosam_generator("tiny" if args.small else "hardnet85", channels=channels, size=size)
    if args.hardnet is not None:
        print(ur.load_weights(generator.backbone, args.hardnet, layout="hardnet"))
    side = args.input_size or (256 if args.small else 512)
    if head == "sam":
        return ur.AutoSAM(sam, generator, input_size=side)
    return LightAutoSAM(generator, LightDecoder(channels), input_policy=sam.input_policy, input_size=side)


def recipe(model: nn.Module) -> Recipe:
    """The same rates for both."""
    if isinstance(model, ur.AutoSAM):
        return AutoSAMRecipe(model, learning_rate=RATE)
    return CoarseRecipe(model, learning_rate=RATE)


def main() -> None:
    args = setting.arguments(__doc__, more=more)
    sam, cases = frozen_sam(args), setting.split(args)
    training, validation = cases.fitted(sam.input_policy.size)
    options = setting.run_options(args, 1)
    result = train(
        recipe(build(args, sam, args.head)),
        training,
        validation=validation,
        folder=folder(args, args.head),
        watchers=(Curves(), History(), Snapshots([validation[i] for i in range(4)], every=25)),
        keep_every=50,
        **{**options, "batch_size": 8 if args.small else 2, "epochs": args.epochs or 100},
    )
    print(result)
    measure(args, sam, cases)


def folder(args: argparse.Namespace, head: str) -> Any:
    return setting.folder(args, f"autosam_{head}")


def measure(args: argparse.Namespace, sam: ur.SAM, cases: setting.Split) -> None:
    """All that was trained, on the fold's test cases, at their own resolution."""
    found: dict[str, SegmentationEvaluation] = {}
    for head, said in HEADS.items():
        path = folder(args, head) / "best.pt"
        if not path.exists():
            continue
        model = build(args, sam, head)
        load_coarse(model, path, unseen=(cases.test,))
        found[said] = evaluate_segmentation(model, cases.test, size=sam.input_policy.size)
        write_segmentation_csv(folder(args, head) / "test.csv", found[said])
        segmentation_figure(found[said].panels, folder(args, head) / "test.png")
    report = segmentation_table(found, against=next(iter(found)))
    setting.folder(args, "autosam.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
