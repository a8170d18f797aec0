"""Draw what light_pair.py trained: the curves of all folds, and where the pair fails.

    python examples/light_pair_pictures.py curves
    python examples/light_pair_pictures.py cases --data BUSI --run joint

The cases are drawn as outlines alone: the images may not be passed on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import light_pair
import light_pair_results
import torch
from light_pair_results import Measured
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ultrarefiner.evaluation import read_run_log
from ultrarefiner.prediction import segment

PHASES = {"coarse": "1: coarse network", "refiner": "2: refiner", "joint": "3: together"}
COLOURS = ("#0072b2", "#d55e00", "#009e73")


@dataclass(frozen=True)
class Outlines:
    """One case as it is drawn."""

    title: str
    truth: torch.Tensor
    coarse: torch.Tensor
    refined: torch.Tensor


def main() -> None:
    shared, parts = light_pair.shared_arguments()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    curves = stages.add_parser("curves", help="training curves of the three phases, a line a fold")
    curves.add_argument("--out", type=Path, default=Path("outputs/light"), help="folder of all stages")
    curves.add_argument("--to", type=Path, default=Path("docs/pictures/light_pair_curves.png"), help="the picture")
    curves.add_argument("--folds", type=int, nargs="+", default=range(light_pair.FOLDS), help="which are drawn")
    curves.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="which are drawn")
    curves.set_defaults(stage=draw_curves)
    cases = stages.add_parser("cases", parents=[shared, parts], help="what fails, and what gains most")
    cases.add_argument("--run", default="joint", help="folder of the run inside each fold's")
    cases.add_argument("--to", type=Path, default=Path("docs/pictures/light_pair_cases.png"), help="the picture")
    cases.add_argument("--folds", type=int, nargs="+", default=range(light_pair.FOLDS), help="whose cases")
    cases.set_defaults(stage=draw_cases, pilot=None)
    args = parser.parse_args()
    args.stage(args)


def draw_curves(args: argparse.Namespace) -> None:
    """Loss and Dice of what each phase trains on, epoch by epoch; nothing here is validation."""
    figure = _figure(3.5 * len(args.phases), 4.6)
    axes = figure.subplots(2, len(args.phases), sharex="col", squeeze=False)
    for column, phase in enumerate(args.phases):
        for fold in args.folds:
            rows = read_run_log(args.out / f"fold{fold}" / phase).epochs
            epochs = [row["epoch"] + 1 for row in rows]
            for axis, name in zip(axes[:, column], ("epoch/loss", "epoch/dice"), strict=True):
                axis.plot(epochs, [row[name] for row in rows], color=COLOURS[fold], label=f"without fold {fold}")
        axes[0, column].set_title(f"phase {PHASES[phase]}", fontsize=10)
        axes[1, column].set_xlabel("epochs")
    axes[0, 0].set_ylabel("loss, training")
    axes[1, 0].set_ylabel("Dice, training")
    axes[1, 0].legend(frameon=False, fontsize=8)
    _save(figure, args.to)


def draw_cases(args: argparse.Namespace) -> None:
    """Four cases that the refiner harms most, the two worst masks of all, two that gain most."""
    lesions = [row for row in light_pair_results.read(args, args.run) if row.lesion]
    by_change = sorted(lesions, key=_change)
    chosen = {row.name: "harmed" for row in by_change[:4]}
    rest = [row for row in sorted(lesions, key=lambda row: _kept(row).dice) if row.name not in chosen]
    chosen |= {row.name: "worst" for row in rest[:2]}
    chosen |= {row.name: "gained" for row in by_change[::-1][:2]}
    measured = {row.name: row for row in lesions}
    figure = _figure(11, 6.2)
    cases = outlines(args, chosen, measured)
    grid = figure.subplots(2, 4).flatten()
    for axis, name in zip(grid, chosen, strict=False):  # a small set may have fewer than eight
        _draw(axis, cases[name])
    for axis in grid[len(chosen) :]:
        axis.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    _save(figure, args.to)


def outlines(args: argparse.Namespace, chosen: dict[str, str], measured: dict[str, Measured]) -> dict[str, Outlines]:
    """The masks of the chosen cases, each by the networks of the fold that left it out."""
    cases, folds = light_pair.open_busi(args)
    found: dict[str, Outlines] = {}
    for fold in args.folds:
        names = [name for name in folds.validation(fold) if name in chosen]
        if not names:
            continue
        left_out = cases.subset(names)
        model = light_pair_results.model_of_fold(args, fold, left_out)
        for case in left_out:
            masks = segment(model, case.image)
            row = measured[case.name]
            accepted = row.iou >= light_pair_results.MINIMUM_IOU
            title = f"{chosen[case.name]}: {case.name}\nDice {row.coarse.dice:.2f} to {_kept(row).dice:.2f}"
            refined = masks.mask if accepted else masks.coarse_mask
            found[case.name] = Outlines(title, case.mask[0] >= 0.5, masks.coarse_mask[0], refined[0])
    return found


def _kept(row: Measured) -> Any:
    return row.kept(light_pair_results.MINIMUM_IOU)


def _change(row: Measured) -> float:
    return float(_kept(row).dice - row.coarse.dice)


def _draw(axis: Any, case: Outlines) -> None:
    lines = {"truth": ("black", "dashed"), "coarse": ("#e69f00", "solid"), "refined": ("#0072b2", "solid")}
    for name, (colour, style) in lines.items():
        mask = getattr(case, name)
        axis.plot([], [], color=colour, linestyle=style, label=name)
        if mask.any():
            axis.contour(mask.float().numpy(), levels=[0.5], colors=colour, linestyles=style, linewidths=1.4)
    height, width = case.truth.shape
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
    axis.set_title(case.title, fontsize=9)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
