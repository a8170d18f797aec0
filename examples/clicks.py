"""A box and clicks in volumes: SegVol in two stages, then a correction that remembers the clicks, on synthetic organs.

Nothing is downloaded. Three sets of volumes are drawn from seeds of their own: one trains, one chooses checkpoints, one
is reported. After the box, each method gets its own clicks, each in the middle of the largest error of its last answer:

    python examples/clicks.py --small                about half an hour on one core of a busy machine
    python examples/clicks.py --precision bf16-mixed  SegVol at its published size, for a GPU

It ends with a table of Dice over clicks, ``clicks.md``, the same as a picture, and slices. Broken off, it goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import ultrarefiner as ur
from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import FittedVolumes, OrganCases, OrganPhantoms, VolumeAugmentation
from ultrarefiner.evaluation import SlicePanel, click_figure, click_table, segmentation_metrics, volume_figure
from ultrarefiner.networks import SegVol, build_segvol
from ultrarefiner.prompts import box_from_middle_slice
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.training import (
    Answer,
    CorrectionRecipe,
    Recipe,
    SegVolRecipe,
    dice_of_volumes,
    simulate_clicks,
    train,
)

REPEATED = "decoder, told the clicks"
CLICKS = 5
SHOWN = (0, 1, 3)


@dataclass(frozen=True)
class Scale:
    """Numbers that go together; ``passes`` are epochs of stage 1, of stage 2 and of the correction."""

    network: Literal["base", "tiny"]
    size: tuple[int, int, int]
    volumes: tuple[int, int, int]
    epoch_size: int
    passes: tuple[int, int, int]
    rates: tuple[float, float, float]
    points: int
    radius: float
    flips: float


FULL = Scale("base", (32, 256, 256), (400, 20, 40), 1000, (60, 20, 10), (1e-4, 5e-5, 1e-3), 2000, 20.0, 0.2)
SMALL = Scale("tiny", (24, 48, 48), (200, 10, 30), 500, (16, 6, 10), (1e-3, 5e-4, 1e-3), 100, 8.0, 0.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tiny network and small volumes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/clicks"), help="folder of checkpoints and results")
    parser.add_argument("--seed", type=int, default=0, help="of volumes, weights, order and clicks")
    parser.add_argument("--epochs", type=int, help="of every stage, instead of the scale's own numbers")
    parser.add_argument("--volumes", type=int, nargs=3, help="that train, choose and are reported")
    parser.add_argument("--precision", default="bf16-mixed", help="Fabric's: 32-true, bf16-mixed, 16-mixed")
    return parser.parse_args()


def cases(args: argparse.Namespace, scale: Scale, which: int) -> FittedVolumes:
    """Of the volumes that train (0), choose (1) or are reported (2)."""
    count = (args.volumes or scale.volumes)[which]
    volumes = OrganPhantoms(count, size=scale.size, seed=3 * args.seed + which)
    return FittedVolumes(OrganCases(volumes), scale.size)


def fit(recipe: Recipe, args: argparse.Namespace, scale: Scale, stage: int, folder: Path) -> None:
    """Train one stage, and leave the best weights in the recipe's module."""
    training = cases(args, scale, 0)
    options: dict[str, Any] = {"batch_size": 8 if stage == 2 else 4, "seed": args.seed, "precision": args.precision}
    result = train(
        recipe,
        training,
        validation=cases(args, scale, 1),
        folder=folder,
        epochs=args.epochs or scale.passes[stage],
        epoch_size=min(scale.epoch_size, len(training)),
        **options,
    )
    recipe.module.load_state_dict(read_tensors(result.best)["model"])
    print(f"{folder.name}: Dice of the choosing cases {result.best_dice:.3f}")


def converse(model: SegVol, correction: GRUCorrection | None, test: FittedVolumes) -> list[tuple[Answer, ...]]:
    """Of every case the answers after the box and each click; with a correction the decoder sees the box alone."""
    found = []
    for index in range(len(test)):
        case = test[index]
        box = box_from_middle_slice(case.mask[None]).boxes
        with torch.no_grad():
            embedding = model.encode(case.image[None])
            found.append(
                simulate_clicks(
                    model,
                    embedding,
                    box,
                    case.mask[None],
                    clicks=CLICKS,
                    correction=correction,
                    redecode=correction is None,
                )
            )
    return found


def dice(conversations: list[tuple[Answer, ...]], test: FittedVolumes) -> np.ndarray:
    """Cases by clicks."""
    return np.array(
        [
            [float(dice_of_volumes(answer.logits.sigmoid(), test[index].mask[None])) for answer in answers]
            for index, answers in enumerate(conversations)
        ]
    )


def pictures(conversations: dict[str, list[tuple[Answer, ...]]], test: FittedVolumes, path: Path) -> None:
    """Of the first volume's organs and every method the slice with the largest error after the box."""
    rows = []
    for index in range(min(2, len(test))):
        case = test[index]
        _, *pixel = test.dataset[index].spacing
        first = next(iter(conversations.values()))[index][0].logits[0, 0] > 0
        place = int((first ^ (case.mask[0] > 0.5)).sum((1, 2)).argmax())
        for method, conversation in conversations.items():
            row = []
            for clicks in SHOWN:
                prediction = conversation[index][clicks].logits[0, :, place] > 0
                target = case.mask[:, place] > 0.5
                name = f"{case.name.split('/')[-1]}: {method}"
                metrics = segmentation_metrics(prediction, target, spacing=pixel)
                rank = "box" if clicks == 0 else f"{clicks} click{'s' if clicks > 1 else ''}"
                row.append(SlicePanel(name, rank, case.image[:, place], prediction, target, metrics, tuple(pixel)))
            rows.append(row)
    volume_figure(rows, path, dots_per_inch=110)


def main() -> None:
    args = arguments()
    scale = SMALL if args.small else FULL
    out = args.out / ("small" if args.small else "full") / f"seed{args.seed}"
    torch.manual_seed(args.seed)
    model = build_segvol(scale.network, volume_size=scale.size, pe_order="aligned")
    correction = GRUCorrection(points=scale.points, radius=scale.radius, hidden=128)
    augmentation = VolumeAugmentation(flip=scale.flips) if scale.flips > 0 else None

    stages: tuple[Literal["box", "box_points"], ...] = ("box", "box_points")
    for number, stage in enumerate(stages):
        recipe = SegVolRecipe(model, stage=stage, learning_rate=scale.rates[number], augmentation=augmentation)
        fit(recipe, args, scale, number, out / f"segvol_{stage}")
    fit(
        CorrectionRecipe(model, correction, redecode=False, learning_rate=scale.rates[2], augmentation=augmentation),
        args,
        scale,
        2,
        out / "correction",
    )

    model.eval()
    correction.eval()
    test = cases(args, scale, 2)
    conversations = {REPEATED: converse(model, None, test), "with the correction": converse(model, correction, test)}
    curves = {name: dice(found, test) for name, found in conversations.items()}
    groups = list(test.dataset.groups)
    table = click_table(curves, groups, against=REPEATED, seed=args.seed)
    (out / "clicks.md").write_text(table, encoding="utf-8")
    click_figure(curves, out / "clicks.png", groups=groups, seed=args.seed)
    pictures(conversations, test, out / "slices.png")
    print(f"ultrarefiner {ur.__version__}, {len(test)} cases of volumes that no stage has seen\n\n{table}")
    print(f"pictures: {out / 'clicks.png'}, {out / 'slices.png'}")


if __name__ == "__main__":
    main()
