"""MicroSegNet: phase 1 on slices of volumes with two annotations, and its evaluation in millimetres, volume by volume.

Full size, on a GPU:      python examples/microsegnet.py --data MicroUS --imagenet R50+ViT-B_16.npz
Small, on two CPU cores:  python examples/microsegnet.py --small

Without --data it writes synthetic volumes and trains on those. --data takes the public set's folders (train and test,
zenodo.org/records/10475293). One of five folds of patients chooses the checkpoint; --folds 0 trains on all and takes
the last one, as the paper does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import phantom_volumes
import torch

import ultrarefiner as ur
from ultrarefiner.data import FittedCases, MicroUltrasound, StretchToSquare, group_folds
from ultrarefiner.evaluation import evaluate_volumes
from ultrarefiner.losses import DeepSupervision
from ultrarefiner.training import MICROSEGNET, load_coarse, microsegnet_recipe, train


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train and test; without it, synthetic volumes")
    parser.add_argument("--small", action="store_true", help="a tiny network on small slices, for a CPU")
    parser.add_argument("--imagenet", type=Path, help="ImageNet-21k file R50+ViT-B_16.npz to start from")
    parser.add_argument("--loss", choices=("paper", "published_code"), default="paper", help="which deep supervision")
    parser.add_argument("--annotator", choices=("second", "prediction"), default="second", help="who disagrees")
    parser.add_argument("--folds", type=int, default=5, help="one of them chooses the checkpoint; 0: all train")
    parser.add_argument("--epochs", type=int, help="instead of 10, or 15 with --small")
    parser.add_argument("--seed", type=int, default=0, help="of folds, order and initial weights")
    parser.add_argument("--precision", default="32-true", help="Fabric's: 32-true, bf16-mixed, 16-mixed")
    parser.add_argument("--workers", type=int, default=0, help="processes that read data ahead")
    parser.add_argument("--out", type=Path, default=Path("outputs/microsegnet"), help="checkpoints and results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    root = args.data or phantom_volumes.write(args.out / "phantom_volumes")
    side = 96 if args.small else MICROSEGNET.image_size
    network = ur.build_microsegnet("tiny" if args.small else "r50_vit_b16", image_size=side)
    if args.imagenet is not None:
        print(ur.load_weights(network, args.imagenet, layout="vit_npz"))
    slices, fit = MicroUltrasound(root), StretchToSquare(side)
    training, validation = FittedCases(slices, fit), None
    if args.folds:
        folds = group_folds(slices, folds=args.folds, seed=args.seed)  # whole patients
        training, validation = (
            FittedCases(slices.subset(names), fit) for names in (folds.training(0), folds.validation(0))
        )
        print(f"{len(training)} slices train, {len(validation.fill())} of other patients choose the checkpoint")
    # The tiny network starts from nothing and sees little: it needs larger steps.
    rate = {"learning_rate": 0.05} if args.small else {}
    loss = DeepSupervision.paper() if args.loss == "paper" else DeepSupervision.published_code()
    result = train(
        microsegnet_recipe(network, loss=loss, annotator=args.annotator, **rate),
        training.fill(),
        validation=validation,
        folder=args.out / "run",
        seed=args.seed,
        precision=args.precision,
        workers=args.workers,
        **{**MICROSEGNET.options(), "epochs": args.epochs or (15 if args.small else MICROSEGNET.epochs)},
    )
    load_coarse(network, result.best)
    found = evaluate_volumes(network, MicroUltrasound(root, split="test"), fit=fit)
    found.to_csv(args.out / "volumes.csv")
    found.to_markdown(args.out / "volumes.md")
    found.to_figure(args.out / "slices.png")
    print((args.out / "volumes.md").read_text())
    print(f"one row a volume: {args.out / 'volumes.csv'}, pictures: {args.out / 'slices.png'}")


if __name__ == "__main__":
    main()
