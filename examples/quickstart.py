"""A soft mask in, a better mask out, in a few minutes on two CPU cores and with no data at hand.

Draws ultrasound phantoms, trains a coarse U-Net, then a tiny SAM on simulated failures, then both together with the
gradient flowing through the prompts, and compares coarse and refined masks on phantoms that nobody trained on.

    python examples/quickstart.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from monai.networks.nets import UNet

import ultrarefiner as ur
from ultrarefiner.data import FittedCases, Phantoms
from ultrarefiner.evaluation import evaluate, markdown_table, panel_figure, write_csv
from ultrarefiner.training import CoarseRecipe, JointRecipe, RefinerRecipe, train

SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart"), help="folder for all results")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, initial weights and training")
    args = parser.parse_args()
    started = time.monotonic()

    if args.out.exists() and any(args.out.iterdir()):
        print(f"going on with the run in {args.out}; give another --out to start afresh\n")
    print("1/5  drawing phantoms: 160 to train, 24 to choose checkpoints, 40 to test")
    size = (SIDE, SIDE)
    training = FittedCases(Phantoms(160, size=size, seed=args.seed), SIDE)
    validation = FittedCases(Phantoms(24, size=size, seed=args.seed + 1), SIDE)
    test = Phantoms(40, size=size, seed=args.seed + 2)

    torch.manual_seed(args.seed)
    network = UNet(2, 1, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1, norm="batch")
    sam = ur.build_sam("tiny", image_size=SIDE)
    # A network trained for a minute is unsure everywhere: what it believes below 0.25 counts as nothing.
    refiner = ur.SAMRefiner(
        sam,
        prompts=ur.DifferentiablePromptExtractor(
            positive=ur.MeanShift(), negative=ur.FarCorner(), floor=0.25, minimum_probability=0.4
        ),
        cropper=ur.ROICropper(expand=0.2, floor=0.25, minimum_probability=0.4),
    )
    model = ur.UltraRefiner(coarse=ur.AtSize(network, SIDE // 2), refiner=refiner)
    options = {"batch_size": 8, "seed": args.seed, "tensorboard": False}

    print("2/5  phase 1: the coarse network alone")
    recipe = CoarseRecipe(model.coarse, learning_rate=2e-3)
    train(recipe, training, validation=validation, folder=args.out / "coarse", epochs=30, **options)

    print("3/5  phase 2: the tiny SAM learns to repair simulated failures")
    recipe = RefinerRecipe(refiner, learning_rate=1e-3, train_image_encoder=True)
    train(recipe, training, validation=validation, folder=args.out / "refiner", epochs=24, **options)

    print("4/5  phase 3: both together, the gradient flowing through points, box, mask prompt and region")
    recipe = JointRecipe(model, coarse_learning_rate=2e-4, refiner_learning_rate=3e-4, freeze_image_encoder=False)
    result = train(recipe, training, validation=validation, folder=args.out / "joint", epochs=12, **options)

    print("5/5  coarse against refined on the test phantoms")
    ur.load_weights(model, result.best)
    found = evaluate(model, test, size=SIDE)
    table = markdown_table(found.comparison)
    (args.out / "table.md").write_text(table)
    write_csv(args.out / "cases.csv", found.comparison)
    panel_figure(found.panels, args.out / "panels.png")
    print(table)
    print(f"\ntable.md, cases.csv and panels.png are in {args.out}; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
