"""A network of your own in front of SAM: a U-Net of segmentation-models-pytorch, or a network of MONAI.

Any module that turns images into logits will do; this one is built in `build_network`. Phase 1 trains it alone, phase 2
a tiny SAM, phase 3 both together. On phantoms, with a few epochs each, in a few minutes on a CPU; or on a folder of
your own, in five folds of groups, of which one is reported, one chooses the checkpoints and three train:

    python examples/own_network.py --network smp
    python examples/own_network.py --network monai --epochs 20 16 8
    python examples/own_network.py --images images --masks masks --groups groups.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import ultrarefiner as ur
from ultrarefiner.data import CaseDataset, FittedCases, ImageFolder, Phantoms, group_folds
from ultrarefiner.evaluation import evaluate, markdown_table, panel_figure
from ultrarefiner.training import CoarseRecipe, JointRecipe, RefinerRecipe, load_coarse, load_refiner, train

SIDE = 128


def build_network(name: str) -> nn.Module:
    """Images (b, 1, h, w) to logits (b, 1, h, w): put yours here. Nothing is downloaded."""
    if name == "smp":
        import segmentation_models_pytorch as smp

        small = {"decoder_channels": (64, 48, 32, 16, 16)}
        return smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=1, **small)
    from monai.networks.nets import SegResNet

    return SegResNet(spatial_dims=2, init_filters=8, in_channels=1, out_channels=1)


def build_refiner() -> ur.SAMRefiner:
    """A tiny SAM. For its real weights: build_sam("vit_b"), then ur.load_weights(sam, path, layout="sam")."""
    told = {"floor": 0.25, "minimum_probability": 0.4}
    prompts = ur.DifferentiablePromptExtractor(positive=ur.MeanShift(), negative=ur.FarCorner(), **told)
    sam = ur.build_sam("tiny", image_size=SIDE)
    return ur.SAMRefiner(sam, prompts=prompts, cropper=ur.ROICropper(expand=0.2, **told))


def cases_of(args: argparse.Namespace) -> tuple[CaseDataset, CaseDataset, CaseDataset]:
    """What trains, what chooses the checkpoints and what is reported; no group stands in two of them."""
    if args.images is None:
        training, choosing, reported = (
            Phantoms(count, size=(SIDE, SIDE), seed=args.seed + number)
            for number, count in enumerate((args.cases, 16, 40))
        )
        return training, choosing, reported
    cases = ImageFolder(args.images, args.masks, groups=args.groups)
    folds = group_folds(cases, folds=5, seed=args.seed)
    chosen, kept = folds.validation(1), folds.validation(0)
    rest = [name for name in cases.names if name not in {*chosen, *kept}]
    return cases.subset(rest), cases.subset(chosen), cases.subset(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("smp", "monai"), default="smp", help="what stands in front of SAM")
    parser.add_argument("--epochs", type=int, nargs=3, default=(16, 12, 6), help="of the three phases")
    parser.add_argument("--images", type=Path, help="folder of pictures; without it, phantoms")
    parser.add_argument("--masks", type=Path, help="folder of their masks, of the same names")
    parser.add_argument("--groups", type=Path, help="table case,group; without it every image is a group of its own")
    parser.add_argument("--cases", type=int, default=120, help="phantoms to train on")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, initial weights and training")
    parser.add_argument("--out", type=Path, default=Path("outputs/own_network"), help="folder for all results")
    args = parser.parse_args()
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks belong together; give both, or neither for phantoms")
    torch.manual_seed(args.seed)
    model = ur.UltraRefiner(coarse=ur.AtSize(build_network(args.network), SIDE // 2), refiner=build_refiner())

    learning, chosen, reported = cases_of(args)
    training, choosing = FittedCases(learning, SIDE), FittedCases(chosen, SIDE)
    folder = args.out / args.network
    options = {"validation": choosing, "batch_size": 8, "seed": args.seed, "tensorboard": False}
    recipe = CoarseRecipe(model.coarse, learning_rate=2e-3)
    coarse = train(recipe, training, folder=folder / "coarse", epochs=args.epochs[0], **options)
    recipe = RefinerRecipe(model.refiner, learning_rate=1e-3, train_image_encoder=True)
    refiner = train(recipe, training, folder=folder / "refiner", epochs=args.epochs[1], **options)

    load_coarse(model.coarse, coarse.best)
    load_refiner(model.refiner, refiner.best)
    rates = {"coarse_learning_rate": 2e-4, "refiner_learning_rate": 3e-4}
    recipe = JointRecipe(model, freeze_image_encoder=False, **rates)
    joint = train(recipe, training, folder=folder / "joint", epochs=args.epochs[2], **options)
    ur.load_weights(model, joint.best)
    found = evaluate(model, reported, size=SIDE)
    panel_figure(found.panels, folder / "panels.png")
    (folder / "table.md").write_text(markdown_table(found.comparison))
    print(markdown_table(found.comparison))


if __name__ == "__main__":
    main()
