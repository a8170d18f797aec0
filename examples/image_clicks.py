"""Clicks into images with no network at all: a correction learns to repair simulated failures, and is measured.

Nothing is downloaded. Ultrasound phantoms are drawn from three seeds, their true masks are damaged, and a correction is
trained to repair the damage at clicks. Each method gets its own clicks, each in the middle of the largest error of its
last answer. Beside the correction stands a rule that has nothing to learn and writes each click into its neighbours
(how many, the choosing phantoms say):

    python examples/image_clicks.py --small    a few minutes on one core
    python examples/image_clicks.py            256 x 256 pixels, for a GPU

It ends with a table over clicks, ``clicks.md``, and the Dice as a picture. The trained correction goes into
`CorrectedNetwork`, after any network. Broken off, it goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import ultrarefiner as ur
from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import FittedCases, Phantoms, SimulatedFailures, collate
from ultrarefiner.evaluation import click_figure, click_table
from ultrarefiner.ops import finite_logit
from ultrarefiner.refinement import ClickCorrection, GRUCorrection, WrittenClicks
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.training import ImageCorrectionRecipe, dice_of_images, simulate_corrections, train

CLICKS = 5
CHOOSING_CLICKS = 3
LARGEST_LOGIT = 4.0  # about as sure as a network
SHARES = (0.001, 0.002, 0.004, 0.008, 0.016)  # of the image's pixels, for the rule


@dataclass(frozen=True)
class Scale:
    """Numbers that go together: phantoms that train, choose and are reported, the training, the correction."""

    side: int
    phantoms: tuple[int, int, int]
    epochs: int
    epoch_size: int
    points: int
    hidden: int
    radius: float


FULL = Scale(256, (1000, 40, 200), 20, 8000, 400, 256, 40.0)
SMALL = Scale(64, (200, 20, 60), 5, 3200, 100, 64, 10.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="64 x 64 pixels, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/image_clicks"), help="folder of all results")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, failures, weights, order and clicks")
    parser.add_argument("--epochs", type=int, help="instead of the scale's own number")
    return parser.parse_args()


def failures(args: argparse.Namespace, scale: Scale, which: int) -> SimulatedFailures:
    """Phantoms that train (0), choose (1) or are reported (2), with damaged masks; of the latter two for each."""
    seed, count, size = 3 * args.seed + which, scale.phantoms[which], (scale.side, scale.side)
    samples = 2 * count if which else scale.epochs * scale.epoch_size
    fitted = FittedCases(Phantoms(count, size=size, seed=seed), scale.side)
    return SimulatedFailures(fitted, FailureSimulator(), samples=samples, seed=seed)


@torch.no_grad()
def curve(correction: ClickCorrection, cases: SimulatedFailures, clicks: int = CLICKS) -> NDArray[np.float64]:
    """Dice of every case (rows) after 0, 1, 2 … clicks (columns)."""
    rows = []
    for start in range(0, len(cases), 20):
        batch = collate(cases.__getitems__(list(range(start, min(start + 20, len(cases))))))
        logits = finite_logit(batch.coarse_probability).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        answers = simulate_corrections(logits, batch.masks, clicks=clicks, correction=correction)
        rows.append(torch.stack([dice_of_images(one.logits.sigmoid(), batch.masks) for one in answers], 1))
    return torch.cat(rows).double().numpy()


def chosen_rule(cases: SimulatedFailures, scale: Scale) -> WrittenClicks:
    """The rule with the number of pixels that is best for the choosing phantoms after some clicks."""
    rules = [WrittenClicks(count=max(1, round(share * scale.side**2)), radius=scale.radius) for share in SHARES]
    return max(rules, key=lambda rule: float(curve(rule, cases, CHOOSING_CLICKS)[:, -1].mean()))


def trained(args: argparse.Namespace, scale: Scale, out: Path) -> GRUCorrection:
    """The correction, with the weights that are best for the choosing phantoms after some clicks."""
    torch.manual_seed(args.seed)
    correction = GRUCorrection(points=scale.points, hidden=scale.hidden, dimensions=2, radius=scale.radius)
    recipe = ImageCorrectionRecipe(
        None,
        correction,
        largest_logit=LARGEST_LOGIT,
        learning_rate=3e-3,
        augmentation=None,
        clicks=CHOOSING_CLICKS,
    )
    result = train(
        recipe,
        failures(args, scale, 0),
        validation=failures(args, scale, 1),
        folder=out / "correction",
        epochs=args.epochs or scale.epochs,
        epoch_size=scale.epoch_size,
        batch_size=8,
        seed=args.seed,
    )
    recipe.module.load_state_dict(read_tensors(result.best)["model"])
    return correction.cpu().eval()


def main() -> None:
    args = arguments()
    scale = SMALL if args.small else FULL
    out = args.out / ("small" if args.small else "full") / f"seed{args.seed}"
    correction = trained(args, scale, out)
    rule, reported = chosen_rule(failures(args, scale, 1), scale), failures(args, scale, 2)
    name = f"rule ({rule.count} pixels)"
    curves = {name: curve(rule, reported), "correction": curve(correction, reported)}
    curves = {"coarse": np.repeat(curves[name][:, :1], CLICKS + 1, axis=1), **curves}
    table = click_table(curves, reported.names, against=name, seed=args.seed)
    (out / "clicks.md").write_text(table, encoding="utf-8")
    click_figure(curves, out / "clicks.png", groups=reported.names, seed=args.seed)
    print(f"ultrarefiner {ur.__version__}, failures of phantoms that nobody has trained on\n\n{table}")
    print(f"the picture and the table: {out}")


if __name__ == "__main__":
    main()
