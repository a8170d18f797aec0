"""Train the pair that comes with the package, and measure it: three grouped folds of BUSI.

Each stage is a command of its own; all of them can be stopped and go on where they were. For each fold F that is
reported:

    python examples/light_pair.py coarse --train-on G     (each of the three folds G alone: for predictions)
    python examples/light_pair.py coarse --fold F         (on the two others)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import ultrarefiner as ur
from ultrarefiner.checkpoints import efficientnet_lite0_file
from ultrarefiner.data import BUSI, FittedCases, Folds, group_folds
from ultrarefiner.networks import BackboneUNet
from ultrarefiner.training import CoarseRecipe, train

FOLDS = 3
COARSE_SIZE = 224


def main() -> None:
    args = arguments()
    args.stage(args)


def arguments() -> argparse.Namespace:
    """One command a stage."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, required=True, help="folder of BUSI in the Kaggle layout")
    shared.add_argument("--out", type=Path, default=Path("outputs/light"), help="folder of all stages")
    shared.add_argument("--seed", type=int, default=0, help="of folds, order, augmentation and initial weights")
    shared.add_argument("--precision", default="bf16-mixed", help="Fabric's: 32-true, bf16-mixed")
    shared.add_argument("--epochs", type=int, help="instead of the stage's own number")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    coarse = stages.add_parser("coarse", parents=[shared], help="phase 1")
    which = coarse.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="left out")
    which.add_argument("--train-on", type=int, help="the only fold that trains")
    which.add_argument("--all", action="store_true", help="all folds train")
    coarse.set_defaults(stage=train_coarse)
    return parser.parse_args()


def open_busi(args: argparse.Namespace) -> tuple[BUSI, Folds]:
    """All images, those without a lesion too, and the folds."""
    cases = BUSI(args.data, normal=True, groups=args.data / "near_duplicate_groups.csv")
    path = args.out / "folds.tsv"
    if path.exists():
        folds = Folds.load(path)
        folds.check(cases)
    else:
        folds = group_folds(cases, folds=FOLDS, seed=args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        folds.save(path)
    return cases, folds


def coarse_network() -> ur.AtSize:
    """A U-Net on EfficientNet-Lite0 with ImageNet weights."""
    network = BackboneUNet()
    ur.load_weights(network.backbone, efficientnet_lite0_file(), layout="efficientnet_lite0")
    return ur.AtSize(network, COARSE_SIZE)


def train_coarse(args: argparse.Namespace) -> None:
    cases, folds = open_busi(args)
    if args.all:
        name, names = "all/coarse", list(cases.names)
    elif args.fold is None:
        name, names = f"single{args.train_on}/coarse", list(folds.validation(args.train_on))
    else:
        name, names = f"fold{args.fold}/coarse", list(folds.training(args.fold))
    torch.manual_seed(args.seed)
    recipe = CoarseRecipe(coarse_network(), learning_rate=1e-3)
    fitted = FittedCases(cases.subset(names), COARSE_SIZE)
    epochs = args.epochs or (40 if args.fold is None and not args.all else 30)
    print(f"{name}: {len(fitted)} images, {epochs} epochs")
    print(train(recipe, fitted, folder=args.out / name, epochs=epochs, batch_size=8, **options(args)))


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What every stage tells the loop."""
    return {"seed": args.seed, "precision": args.precision, "tensorboard": False}


if __name__ == "__main__":
    main()
