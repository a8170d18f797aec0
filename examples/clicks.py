"""A box and clicks in volumes: SegVol in two stages, then a correction that remembers the clicks, on synthetic organs.

Nothing is downloaded. Three sets of volumes are drawn from seeds of their own: one trains, one chooses, one is
reported. After the box, each method gets its own clicks, each in the middle of the largest error of its last answer.
Compared are the decoder that is simply told the clicks as points ("decoder"), the learned correction, and a rule that
has nothing to learn and writes each click into its neighbours (how many, the choosing volumes say); both work on the
decoder's answer to box and clicks, or on its answer to the box alone ("box"):

    python examples/clicks.py --small                 about an hour on one core
    python examples/clicks.py --precision bf16-mixed  SegVol at its published size, for a GPU

It ends with tables over clicks, ``clicks.md``, the Dice as a picture, and slices; where nilearn is installed also for
its MNI template of a brain, a volume that none of the networks was made for. Broken off, it goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from conversations import Forgetful, Method, chosen_count, converse, curves, surface_tables, worst_slices
from numpy.typing import NDArray
from real_volume import brain_cases

import ultrarefiner as ur
from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import FittedVolumes, OrganCases, OrganPhantoms, VolumeAugmentation
from ultrarefiner.evaluation import click_figure, click_table, volume_figure
from ultrarefiner.networks import SegVol, build_segvol
from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.training import CorrectionRecipe, Recipe, SegVolRecipe, train

BASELINE = "decoder"  # told every click
FORGETFUL = "box + correction, memory dropped"
COUNTS = (8, 15, 30, 60, 120)


@dataclass(frozen=True)
class Stage:
    """How one stage trains."""

    epochs: int
    epoch_size: int
    batch_size: int
    rate: float


@dataclass(frozen=True)
class Scale:
    """Numbers that go together: of the network, of the volumes that train, choose and are reported, of each stage."""

    network: Literal["base", "tiny"]
    size: tuple[int, int, int]
    volumes: tuple[int, int, int]
    box: Stage
    box_points: Stage
    correction: Stage
    points: int
    radius: float
    flips: float


FULL = Scale(
    "base",
    (32, 256, 256),
    (400, 20, 40),
    Stage(60, 1000, 4, 1e-4),
    Stage(40, 1000, 4, 1e-4),
    Stage(10, 1000, 4, 1e-3),
    400,
    20.0,
    0.2,
)
SMALL = Scale(
    "tiny",
    (24, 48, 48),
    (200, 10, 30),
    Stage(16, 500, 4, 1e-3),
    Stage(12, 1000, 4, 1e-3),
    Stage(12, 1000, 8, 1e-3),
    300,
    12.0,
    0.0,
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tiny network and small volumes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/clicks"), help="folder of checkpoints and results")
    parser.add_argument("--seed", type=int, default=0, help="of volumes, weights, order and clicks")
    parser.add_argument("--epochs", type=int, help="of every stage, instead of the scale's own numbers")
    parser.add_argument("--volumes", type=int, nargs=3, help="that train, choose and are reported")
    parser.add_argument("--reported-seed", type=int, help="of the reported volumes alone, to report fresh ones")
    parser.add_argument("--precision", default="bf16-mixed", help="Fabric's: 32-true, bf16-mixed, 16-mixed")
    return parser.parse_args()


def cases(args: argparse.Namespace, scale: Scale, which: int) -> FittedVolumes:
    """Of the volumes that train (0), choose (1) or are reported (2)."""
    count = (args.volumes or scale.volumes)[which]
    fresh = which == 2 and args.reported_seed is not None
    volumes = OrganPhantoms(count, size=scale.size, seed=args.reported_seed if fresh else 3 * args.seed + which)
    return FittedVolumes(OrganCases(volumes), scale.size)


def fit(recipe: Recipe, args: argparse.Namespace, scale: Scale, stage: Stage, folder: Path) -> None:
    """Train one stage, and leave the best weights in the recipe's module."""
    training = cases(args, scale, 0)
    result = train(
        recipe,
        training,
        validation=cases(args, scale, 1),
        folder=folder,
        epochs=args.epochs or stage.epochs,
        epoch_size=min(stage.epoch_size, len(training)),
        batch_size=stage.batch_size,
        seed=args.seed,
        precision=args.precision,
    )
    recipe.module.load_state_dict(read_tensors(result.best)["model"])
    print(f"{folder.name}: Dice of the choosing cases {result.best_dice:.3f}")


def methods(args: argparse.Namespace, scale: Scale, out: Path) -> tuple[SegVol, dict[str, Method]]:
    """Train all there is to train; the network, and who answers the clicks after it."""
    torch.manual_seed(args.seed)
    model = build_segvol(scale.network, volume_size=scale.size, pe_order="aligned")
    flips = VolumeAugmentation(flip=scale.flips) if scale.flips > 0 else None
    fit(SegVolRecipe(model, learning_rate=scale.box.rate, augmentation=flips), args, scale, scale.box, out / "box")
    told = SegVolRecipe(model, stage="box_points", learning_rate=scale.box_points.rate, augmentation=flips)
    fit(told, args, scale, scale.box_points, out / "box_points")
    found: dict[str, Method] = {BASELINE: Method(None, redecode=True)}
    choosing = cases(args, scale, 1)
    for redecode in (False, True):
        first = BASELINE if redecode else "box"
        correction = GRUCorrection(points=scale.points, radius=scale.radius, hidden=128, gain=16.0)
        recipe = CorrectionRecipe(
            model, correction, redecode=redecode, learning_rate=scale.correction.rate, augmentation=flips
        )
        fit(recipe, args, scale, scale.correction, out / f"correction_redecode_{redecode}".lower())
        rule = Method(WrittenClicks(radius=scale.radius), redecode=redecode)
        count = chosen_count(model, rule, choosing, COUNTS)
        written = WrittenClicks(count=count, radius=scale.radius)
        found[f"{first} + rule ({count} voxels)"] = replace(rule, correction=written)
        found[f"{first} + correction"] = Method(correction.eval(), redecode=redecode)
        if not redecode:
            found[FORGETFUL] = Method(Forgetful(correction), redecode=False)
    return model.eval(), found


def paired(values: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The correction first, and what it has to beat: the rule, and itself without memory."""
    rule = next(name for name in values if name.startswith("box + rule"))
    return {name: values[name] for name in ("box + correction", rule, FORGETFUL)}


def plain_table(values: dict[str, NDArray[np.float64]]) -> str:
    """Of a single volume, which has no interval: the mean over its objects."""
    heads = ["Dice", *(f"{clicks} clicks" for clicks in range(next(iter(values.values())).shape[1]))]
    rows = [[name, *(f"{mean:.3f}" for mean in curve.mean(0))] for name, curve in values.items()]
    lines = [heads, [":--"] + ["--:"] * (len(heads) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def report(
    model: SegVol, found: dict[str, Method], test: FittedVolumes, out: Path, *, seed: int, surfaces: bool
) -> str:
    """Tables as markdown and pictures of what the methods make of some cases; the tables once more, to be printed."""
    out.mkdir(parents=True, exist_ok=True)
    answers = {name: converse(model, method, test) for name, method in found.items()}
    values = curves(answers, test)
    groups = list(test.dataset.groups)
    if len(set(groups)) == 1:
        table = plain_table(values)
    else:
        table = click_table(values, groups, against=BASELINE, seed=seed)
        table += "\n" + click_table(paired(values), groups, against="box + correction", seed=seed)
    if surfaces:
        table += "\n" + surface_tables(answers, test, against=BASELINE, seed=seed)
    (out / "clicks.md").write_text(table, encoding="utf-8")
    click_figure(values, out / "clicks.png", groups=groups, seed=seed)
    shown = {name: answers[name] for name in list(answers)[:3]}
    volume_figure(worst_slices(shown, test), out / "slices.png", dots_per_inch=110)
    return table


def main() -> None:
    args = arguments()
    scale = SMALL if args.small else FULL
    out = args.out / ("small" if args.small else "full") / f"seed{args.seed}"
    model, found = methods(args, scale, out)
    test = cases(args, scale, 2)
    if args.reported_seed is not None:
        out = out / f"reported{args.reported_seed}"
    table = report(model, found, test, out, seed=args.seed, surfaces=True)
    print(f"ultrarefiner {ur.__version__}, {len(test)} cases of volumes that no stage has seen\n\n{table}")
    brain = brain_cases(scale.size)
    if brain is None:
        print("no real volume: pip install nilearn brings its MNI template of a brain")
    else:
        table = report(model, found, brain, out / "mni", seed=args.seed, surfaces=False)
        print(f"nilearn's MNI template, one volume, which is unlike all that was trained on\n\n{table}")
    print(f"pictures and tables: {out}")


if __name__ == "__main__":
    main()
