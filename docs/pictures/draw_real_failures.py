"""How real coarse failures compare with simulated ones: a table, histograms, and both on the same lesions.

    python docs/pictures/draw_real_failures.py --data BUSI --predictions outputs/phases/predictions.pt

The predictions are what examples/phase1_out_of_fold.py writes: each case by a network that never saw it. Prints the
comparison with the preset "default" and the distances of all presets, and writes docs/pictures/real_failures.png and
docs/pictures/real_failures_gallery.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ultrarefiner.data import BUSI, CoarsePredictions, FittedCases, StretchToSquare
from ultrarefiner.evaluation import (
    FailureStatistics,
    compare_failures,
    failure_comparison_figure,
    failure_statistics,
    failures_table,
)
from ultrarefiner.simulation import PRESETS, FailureSimulator

HERE = Path(__file__).parent
COLUMNS = 8
LINE = "#56B4E9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of BUSI in the Kaggle layout")
    parser.add_argument("--predictions", type=Path, required=True, help="file of coarse predictions")
    parser.add_argument(
        "--copies", type=int, choices=range(2, 100), metavar="N", default=4, help="simulated masks for each real one"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures")
    args = parser.parse_args()
    images, masks, probability = loaded(args.data, args.predictions)
    real = failure_statistics(probability, masks)
    made, found = {}, {}
    for name in PRESETS:
        made[name] = simulated(FailureSimulator.preset(name), masks, args.copies, args.seed)
        found[name] = failure_statistics(made[name], masks.repeat(args.copies, 1, 1))
    print(failures_table(compare_failures(real, found["default"])))
    print(distances_table(real, found))
    failure_comparison_figure(real, found["default"], args.out / "real_failures.png")
    first, second = made["default"][: 2 * len(masks)].split(len(masks))
    gallery(real, images, masks, {"real": probability, "simulated": first, "another": second}, args.out)


def loaded(data: Path, file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Images, true masks and predicted ones of all lesions, (n, s, s) each, on the pixels that the network made."""
    stored = CoarsePredictions.load(file)
    size = stored.logits.shape[-1]
    cases = BUSI(data).subset(stored.names)
    fit = StretchToSquare(size) if stored.fit == "StretchToSquare" else size
    fitted = FittedCases(cases, fit, keep_in_memory=False)
    few = [fitted[index] for index in range(len(fitted))]
    images, masks = (
        torch.stack([case.image for case in few])[:, 0],
        torch.stack([case.mask for case in few])[:, 0] > 0.5,
    )
    probability = stored.of(fitted.names).logits.float().sigmoid()[:, 0]
    there = masks.flatten(1).any(1)
    return images[there], masks[there], probability[there]


def simulated(simulator: FailureSimulator, masks: Tensor, copies: int, seed: int) -> Tensor:
    """So many failures of each mask: all masks once, then all once more."""
    index = torch.arange(copies * len(masks))
    return simulator.simulate(masks.repeat(copies, 1, 1), seed=seed, index=index).probability


def distances_table(real: FailureStatistics, found: Mapping[str, FailureStatistics]) -> str:
    """How far each preset is from the real masks, in each measure."""
    columns = [compare_failures(real, one).measures for one in found.values()]
    lines = [f"| Distance from real | {' | '.join(found)} |", f"|:--|{'--:|' * len(found)}"]
    for row in zip(*columns, strict=True):
        lines.append(f"| {row[0].measure} | {' | '.join(f'{one.distance:.2f}' for one in row)} |")
    return "\n".join(lines)


def gallery(real: FailureStatistics, images: Tensor, masks: Tensor, rows: Mapping[str, Tensor], folder: Path) -> None:
    """Lesions from the worst to the best predicted one; below each what the network and the simulation made of it."""
    order = real.index[real.dice.argsort()]
    places = torch.linspace(0.03, 0.9, COLUMNS).mul(len(order) - 1).round().int().tolist()
    chosen = torch.from_numpy(order.copy())[places]
    shown = {"image": images, **rows}
    figure = Figure(figsize=(1.3 * COLUMNS + 0.3, 1.42 * len(shown)))
    axes = figure.subplots(len(shown), COLUMNS)
    for row, (name, values) in zip(axes, shown.items(), strict=True):
        for axis, value, mask in zip(row, values[chosen], masks[chosen], strict=True):
            axis.imshow(value, cmap="gray", vmin=0, vmax=1)
            axis.contour(mask.float(), levels=[0.5], colors=LINE, linewidths=1.0)
            if name != "image":
                inside = value > 0.5
                dice = 2 * (inside & mask).sum() / (inside.sum() + mask.sum())
                axis.set_title(f"Dice {dice:.2f}", fontsize=7, pad=2)
            axis.set_axis_off()
        row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=0.025, right=0.998, top=0.995, bottom=0.005, wspace=0.03, hspace=0.12)
    figure.savefig(folder / "real_failures_gallery.png", dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
