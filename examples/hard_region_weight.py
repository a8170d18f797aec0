"""How much should hard pixels weigh? MicroSegNet's w, swept on synthetic volumes with two annotators.

    python examples/hard_region_weight.py
    python examples/hard_region_weight.py --weights 1 2 4 8 12 24 48 --seeds 4 --epochs 20

Every weight trains the same tiny networks (same seeds, same order) on the same volumes, with cross entropy on the side
outputs and AG-BCE on the mask, and is measured on other volumes: Dice and HD95 in mm. AG-BCE gives an easy pixel the
weight 1 / (1 + w), so a large w also makes the mask's whole loss small; "held" scales it so that an easy pixel weighs
the same for every w, and a hard one w times that.

A table and a picture; the first command takes a few minutes on a CPU and shows how it works, the second about a quarter
of an hour. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import phantom_volumes
import torch

import ultrarefiner as ur
from ultrarefiner.data import FittedCases, MicroUltrasound, StretchToSquare
from ultrarefiner.evaluation import evaluate_volumes
from ultrarefiner.losses import DeepSupervision
from ultrarefiner.training import MICROSEGNET, load_coarse, microsegnet_recipe, train

MEASURES = ("dice", "slice_hd95_mm")
LABELS = ("Dice of the volume (higher is better)", "HD95 of a slice in mm (lower is better)")


def run(weight: float, held: bool, seed: int, *, root: Path, folder: Path, epochs: int, side: int) -> dict[str, float]:
    """One network with one weight: trained if it is not yet, and measured."""
    fit = StretchToSquare(side)
    torch.manual_seed(seed)
    network = ur.build_microsegnet("tiny", image_size=side)
    paper = DeepSupervision.paper(weight=weight)
    held = held and weight != 1  # where both are the same
    loss = DeepSupervision(paper.loss, [1.0, 1.0, 1.0, (1 + weight) / 2 if held else 1.0])
    result = train(
        microsegnet_recipe(network, learning_rate=0.05, loss=loss),
        FittedCases(MicroUltrasound(root), fit).fill(progress=False),
        folder=folder / f"weight{weight:g}{'-held' * held}-seed{seed}",
        seed=seed,
        tensorboard=False,
        **{**MICROSEGNET.options(), "epochs": epochs},
    )
    load_coarse(network, result.best)  # the last: no test volume chooses anything
    means = evaluate_volumes(network, MicroUltrasound(root, split="test"), fit=fit, panels=0, progress=False).mean()
    return {measure: getattr(means, measure).mean for measure in MEASURES}


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Each seed as a dot, the mean of each weight as a line."""
    weights = sorted({row["weight"] for row in rows})
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(9, 3.6), layout="constrained")
    for axis, measure, label in zip(axes, MEASURES, LABELS, strict=True):
        for held, colour, shift, name in ((False, "#0072b2", 0.97, "as published"), (True, "#d55e00", 1.03, "held")):
            mine = [row for row in rows if row["held"] == held]
            dots = [row["weight"] * shift for row in mine]
            axis.plot(dots, [row[measure] for row in mine], "o", color=colour, ms=3, alpha=0.5)
            means = [np.mean([row[measure] for row in mine if row["weight"] == weight]) for weight in weights]
            axis.plot(weights, means, "-", color=colour, lw=2, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.set_xlabel("weight w of hard pixels (1: all the same)")
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, nargs="+", default=[1, 4, 12])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("outputs/hard_region_weight"))
    args = parser.parse_args()
    root = phantom_volumes.write(args.out / "volumes", patients=10, test_patients=10, slices=6)
    rows = []
    for held, weight in product((False, True), args.weights):
        for seed in range(args.seeds):
            found = run(weight, held, seed, root=root, folder=args.out, epochs=args.epochs, side=args.side)
            rows.append({"held": held, "weight": weight, "seed": seed, **found})
        mine = [row for row in rows if (row["held"], row["weight"]) == (held, weight)]
        values = {measure: [row[measure] for row in mine] for measure in MEASURES}
        freedom = min(1, args.seeds - 1)
        spread = ", ".join(
            f"{measure} {np.mean(found):.4f} ± {np.std(found, ddof=freedom):.4f}" for measure, found in values.items()
        )
        print(f"w = {weight:g}{', held' * held}: {spread}", flush=True)
    lines = [",".join(rows[0]), *(",".join(f"{value:g}" for value in row.values()) for row in rows)]
    args.out.mkdir(parents=True, exist_ok=True)
    part = args.out / "sweep.csv.part"  # appears whole or not at all
    part.write_text("\n".join([*lines, ""]))
    part.replace(args.out / "sweep.csv")
    draw(rows, args.out / "sweep.png")
    print(f"{args.out / 'sweep.csv'}, {args.out / 'sweep.png'}")


if __name__ == "__main__":
    main()
