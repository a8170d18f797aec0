"""Between phases 1 and 2: what coarse networks make of images that they never saw, stored for phase 2.

Each training fold is predicted by a network that was trained on the other training folds; the cases that choose
checkpoints and those that are reported by the network of phase 1, which saw neither.
Full size, on a GPU:      python examples/phase1_out_of_fold.py --data BUSI --imagenet R50+ViT-B_16.npz
Small, on two CPU cores:  python examples/phase1_out_of_fold.py --small
"""

from __future__ import annotations

import argparse

import setting
import torch

from ultrarefiner.data import FittedCases
from ultrarefiner.training import CoarseRecipe, load_coarse, predict_cases, predict_out_of_fold


def main() -> None:
    args = setting.arguments(__doc__)
    size = setting.scale(args).image
    cases, folds = setting.split(args), setting.training_folds(args)
    training, validation = cases.fitted(size)
    options = setting.coarse_options(args)
    print(f"{folds.count} networks, each for a fold of {len(training)} images")
    inside = predict_out_of_fold(
        lambda fold: new_recipe(args, fold),
        training,
        folds,
        validation=validation,
        folder=setting.folder(args, "out_of_fold"),
        **options,
    )
    network = setting.coarse_network(args)
    load_coarse(network, setting.folder(args, "coarse") / "best.pt", unseen=(cases.validation, cases.test))
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    outside = [predict_cases(network, part) for part in (validation, FittedCases(cases.test, size))]
    path = setting.folder(args, "predictions.pt")
    inside.joined(*outside).save(path)
    print(f"{len(inside)} out-of-fold predictions and {sum(map(len, outside))} of phase 1's network: {path}")


def new_recipe(args: argparse.Namespace, fold: int) -> CoarseRecipe:
    """Phase 1 with a network of its own weights."""
    torch.manual_seed(args.seed + 1 + fold)
    return setting.coarse_recipe(setting.coarse_network(args), args)


if __name__ == "__main__":
    main()
