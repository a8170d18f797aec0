"""Measure what light_pair.py trained, and pack the pair that comes with the package.

    python examples/light_pair_results.py measure --data BUSI --run joint
    python examples/light_pair_results.py table   --data BUSI --runs refiner joint
    python examples/light_pair_results.py pack    --data BUSI

Every image is measured by networks that never saw it, nor an image of its group, on its own pixels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import light_pair
import torch
from tqdm import tqdm

import ultrarefiner as ur
from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import CaseDataset
from ultrarefiner.evaluation import CaseMetrics, Comparison, compare, markdown_table, segmentation_metrics, write_csv
from ultrarefiner.prediction import segment

NAME = "breast-ultrasound-light"
MINIMUM_IOU = 0.5
"""Of the acceptance rule: chosen in a pilot (trained on fold 1 alone, looked at on fold 2)."""


@dataclass(frozen=True)
class Measured:
    """One image: both masks against the truth, and SAM's estimate of its own."""

    name: str
    group: str
    coarse: CaseMetrics
    refined: CaseMetrics
    iou: float

    @property
    def lesion(self) -> bool:
        """Whether there is one."""
        return self.coarse.target_pixels > 0

    def kept(self, minimum_iou: float) -> CaseMetrics:
        """The refined mask, or the coarse one where the acceptance rule keeps that.

        Where SAM was asked nothing its estimate is 0 and both masks are the same.
        """
        return self.refined if self.iou >= minimum_iou else self.coarse


def main() -> None:
    shared, parts = light_pair.shared_arguments()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    measuring = stages.add_parser("measure", parents=[shared, parts], help="every image by networks that never saw it")
    measuring.add_argument("--run", default="joint", help="folder of the run inside each fold's")
    measuring.add_argument("--pilot", type=int, help="the pilot of this fold in the place of the folds' own runs")
    measuring.add_argument("--label", help="folder of the figures, if not the run's: for parts left out in use alone")
    measuring.add_argument("--folds", type=int, nargs="+", default=range(light_pair.FOLDS), help="which are measured")
    measuring.set_defaults(stage=measure)
    listing = stages.add_parser("table", parents=[shared], help="runs side by side")
    listing.add_argument("--pilot", type=int, help="as for measure")
    listing.add_argument("--runs", nargs="+", default=["refiner", "joint"], help="that were measured")
    listing.add_argument("--minimum-iou", type=float, default=MINIMUM_IOU, help="of the acceptance rule")
    listing.add_argument("--folds", type=int, nargs="+", default=range(light_pair.FOLDS), help="which are reported")
    listing.set_defaults(stage=table)
    packing = stages.add_parser("pack", parents=[shared, parts], help="the pair of all folds, as package data")
    packing.add_argument("--run", default="joint", help="folder of the run inside all")
    packing.add_argument("--to", type=Path, default=Path("ultrarefiner/pretrained") / NAME, help="folder")
    packing.set_defaults(stage=pack)
    args = parser.parse_args()
    args.stage(args)


def measure(args: argparse.Namespace) -> None:
    cases, folds = light_pair.open_busi(args)
    for fold in args.folds:
        place = place_of(args, fold) / (args.label or args.run)
        left_out = cases.subset(folds.validation(fold))
        model = model_of_fold(args, fold, left_out)
        rows = []
        for index, case in enumerate(tqdm(left_out, desc=f"fold {fold}", total=len(left_out), disable=None)):
            found = segment(model, case.image)
            both = [segmentation_metrics(mask, case.mask >= 0.5) for mask in (found.coarse_mask, found.mask)]
            rows.append(asdict(Measured(case.name, left_out.groups[index], *both, iou=float(found.iou[0]))))
        place.mkdir(exist_ok=True)
        (place / "measured.json").write_text(json.dumps(rows))
        print(f"{place / 'measured.json'}: {len(rows)} images")


def model_of_fold(args: argparse.Namespace, fold: int, left_out: CaseDataset) -> ur.UltraRefiner:
    """The whole model of a run, refused if it has seen a case of those that are left out."""
    place = place_of(args, fold)
    alone = place.parent / (place.name if args.pilot is None else f"single{args.pilot}")
    return model_of(args, place, alone, unseen=(left_out,))


def place_of(args: argparse.Namespace, fold: int) -> Path:
    """Where the runs are that never saw this fold."""
    if args.pilot == fold:
        message = f"--pilot {fold} was trained on fold {fold}; measure it on others, --folds."
        raise SystemExit(message)
    return Path(args.out / (f"fold{fold}" if args.pilot is None else f"pilot{args.pilot}"))


def model_of(
    args: argparse.Namespace, place: Path, alone: Path, unseen: tuple[CaseDataset, ...] = ()
) -> ur.UltraRefiner:
    """The whole model of a run of phase 3, or of one of phase 2 and the coarse network of phase 1."""
    model = light_pair.assembled(args)
    path = light_pair.finished(place / args.run)
    trained_jointly = "coarse" in read_tensors(path)["parts"]
    coarse = path if trained_jointly else light_pair.finished(alone / "coarse")
    light_pair.load_parts(model, path, coarse, unseen=unseen)
    return model


def read(args: argparse.Namespace, run: str) -> list[Measured]:
    """What was measured of a run, all folds."""
    rows: list[dict[str, Any]] = []
    for fold in args.folds:
        rows += json.loads((place_of(args, fold) / run / "measured.json").read_text())
    return [
        Measured(row["name"], row["group"], CaseMetrics(**row["coarse"]), CaseMetrics(**row["refined"]), row["iou"])
        for row in rows
    ]


def table(args: argparse.Namespace) -> None:
    """The first run's coarse masks, which are those of phase 1 if it is one of phase 2, against each run's refined."""
    first = read(args, args.runs[0])
    lines = [
        "| | Dice | HD95 (px) | Dice - coarse of phase 1 | Dice - own coarse | HD95 - own coarse | gained, harmed | "
        "normals with a mask |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in args.runs:
        rows = read(args, run)
        for label, minimum_iou in ((run, -1.0), (f"{run}, accepted from IoU {args.minimum_iou}", args.minimum_iou)):
            lines.append(_line(label, rows, first, minimum_iou))
        found = _compared(rows, [row.coarse for row in rows if row.lesion], args.minimum_iou)
        write_csv(args.out / f"{run}.csv", found)
        (args.out / f"{run}.md").write_text(markdown_table(found))
        print(f"{run}, accepted from IoU {args.minimum_iou}:\n{markdown_table(found)}")
        print(_told_apart(rows, args.minimum_iou))
    print("\n".join(lines))


def _compared(rows: list[Measured], before: list[CaseMetrics], minimum_iou: float) -> Comparison:
    lesions = [row for row in rows if row.lesion]
    after = [row.kept(minimum_iou) for row in lesions]
    return compare([row.name for row in lesions], before, after, groups=[row.group for row in lesions])


def _line(label: str, rows: list[Measured], first: list[Measured], minimum_iou: float) -> str:
    own = _compared(rows, [row.coarse for row in rows if row.lesion], minimum_iou)
    phase1 = {row.name: row.coarse for row in first}
    all_in_all = _compared(rows, [phase1[row.name] for row in rows if row.lesion], minimum_iou)
    metrics = {metric.name: metric for metric in own.metrics}
    dice, distance = metrics["dice"], metrics["hd95"]
    gain = next(metric for metric in all_in_all.metrics if metric.name == "dice").difference
    share = distance.difference.mean / distance.coarse.mean
    normals = [row for row in rows if not row.lesion]
    masks = [sum(mask.prediction_pixels > 0 for mask in kind) for kind in _of_normals(normals, minimum_iou)]
    cells = [
        f"{dice.coarse.mean:.3f} to {dice.refined.mean:.3f}",
        f"{distance.coarse.mean:.1f} to {distance.refined.mean:.1f} ({share:+.0%})",
        _interval(gain, 100, 1),
        _interval(dice.difference, 100, 1),
        _interval(distance.difference, 1, 1),
        f"{own.gained}, {own.harmed}",
        f"{masks[0]} to {masks[1]} of {len(normals)}",
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _told_apart(rows: list[Measured], minimum_iou: float) -> str:
    """Whether SAM's estimate is lower where there is no lesion."""
    with_lesion, without = ([row.iou for row in rows if row.lesion is there] for there in (True, False))
    if not without:
        return ""
    higher = sum((one > other) + (one == other) / 2 for one in with_lesion for other in without)
    below = [sum(iou < minimum_iou for iou in kind) for kind in (with_lesion, without)]
    return (
        "SAM's estimate tells images with a lesion from those without at an area under the ROC curve of "
        f"{higher / len(with_lesion) / len(without):.3f}; below {minimum_iou} are {below[0]} of {len(with_lesion)} "
        f"with and {below[1]} of {len(without)} without.\n"
    )


def _of_normals(rows: list[Measured], minimum_iou: float) -> tuple[list[CaseMetrics], list[CaseMetrics]]:
    return [row.coarse for row in rows], [row.kept(minimum_iou) for row in rows]


def _interval(estimate: Any, factor: float, digits: int) -> str:
    numbers = (estimate.mean, estimate.low, estimate.high)
    mean, low, high = (f"{factor * number:+.{digits}f}" for number in numbers)
    return f"{mean} [{low}, {high}]"


def pack(args: argparse.Namespace) -> None:
    model = model_of(args, args.out / "all", args.out / "all")
    model.acceptance = ur.AcceptanceRule(minimum_iou=MINIMUM_IOU)
    model.eval().save_pretrained(args.to, dtype=torch.float16)
    print(f"{args.to}: {sum(file.stat().st_size for file in args.to.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
