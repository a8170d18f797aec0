"""After phase 2: which training masks made the better refiner? Coarse and refined, on cases that no phase has seen.

Takes over what phase1_coarse.py and phase2_refiner.py --failures ... left in --out, of one fold or of several, and
measures every refiner behind the fold's coarse network. Nothing is trained here.
Full size, on a GPU:      python examples/phase2_compare.py --data BUSI --folds-measured 0 1 2 3 4
Small, on two CPU cores:  python examples/phase2_compare.py --small
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import setting

import ultrarefiner as ur
from ultrarefiner.evaluation import (
    CaseMetrics,
    Comparison,
    MetricComparison,
    compare,
    evaluate,
    panel_figure,
    write_csv,
)
from ultrarefiner.training import load_coarse, load_refiner

KINDS = {"simple": "the simple set", "simulated": "the full simulation", "mixed": "that and out-of-fold predictions"}


@dataclass
class Measured:
    """Cases of all folds in one order."""

    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    coarse: list[CaseMetrics] = field(default_factory=list)
    refined: list[CaseMetrics] = field(default_factory=list)


def main() -> None:
    args = setting.arguments(__doc__, more=add_arguments)
    if args.data is None and len(args.folds_measured) > 1:
        raise SystemExit("phantoms have no folds; measure one.")
    measured = {kind: Measured() for kind in KINDS}
    for fold in args.folds_measured:
        args.fold = fold
        for kind, cases in measured.items():
            if (setting.folder(args, f"refiner_{kind}") / "best.pt").exists():
                measure(args, kind, cases)
    measured = {kind: cases for kind, cases in measured.items() if cases.names}
    if not measured:
        raise SystemExit(f"{args.out} holds no refiner of these folds; run phase2_refiner.py first.")
    if len({tuple(cases.names) for cases in measured.values()}) > 1:
        raise SystemExit("not every kind was trained in every fold; train the missing ones, or measure fewer folds.")
    report = table(measured, len(args.folds_measured))
    (args.out / "phase2.md").write_text(report)
    print(report)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folds-measured", type=int, nargs="+", default=[0], help="tested folds, their cases pooled")


def measure(args: argparse.Namespace, kind: str, into: Measured) -> None:
    """One refiner of one fold on the fold's test cases."""
    sizes, cases = setting.scale(args), setting.split(args)
    model = ur.UltraRefiner(coarse=setting.coarse_network(args), refiner=setting.refiner(args))
    unseen = (cases.validation, cases.test)
    load_coarse(model.coarse, setting.folder(args, "coarse") / "best.pt", unseen=unseen)
    load_refiner(model.refiner, setting.folder(args, f"refiner_{kind}") / "best.pt", unseen=unseen)
    found = evaluate(model, cases.test, size=sizes.image, batch_size=sizes.batch)
    folder = setting.folder(args, f"measured_{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "cases.csv", found.comparison)
    panel_figure(found.panels, folder / "panels.png")
    into.names += found.comparison.names
    into.groups += cases.test.groups
    into.coarse += found.comparison.coarse
    into.refined += found.comparison.refined


def table(measured: dict[str, Measured], folds: int) -> str:
    """One row for the coarse masks and one for each refiner, with paired differences."""
    first = next(iter(measured.values()))
    lines = [
        "| phase 2 on | Dice | HD95 (px) | Dice - coarse | HD95 - coarse | Dice - simple | HD95 - simple |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    against = against_coarse(first)
    cells = [f"{spread(metric, 'coarse', form)}" for metric, form in shown(against)]
    lines.append(f"| (coarse masks) | {' | '.join(cells)} | | | | |")
    for kind, cases in measured.items():
        own = shown(against_coarse(cases))
        cells = [spread(metric, "refined", form) for metric, form in own]
        cells += [spread(metric, "difference", f"+{form}") for metric, form in own]
        if kind != "simple" and "simple" in measured:
            pair = compare(cases.names, measured["simple"].refined, cases.refined, groups=cases.groups)
            cells += [spread(metric, "difference", f"+{form}") for metric, form in shown(pair)]
        else:
            cells += ["", ""]
        lines.append(f"| {KINDS[kind]} | {' | '.join(cells)} |")
    counts = "; ".join(
        f"{KINDS[kind]}: {found.gained} gained, {found.harmed} harmed, {found.found} found, {found.lost} lost"
        for kind, found in ((kind, against_coarse(cases)) for kind, cases in measured.items())
    )
    lines += [
        "",
        f"{len(first.names)} cases in {len(set(first.groups))} groups of {folds} folds. [ ]: 95 % bootstrap interval "
        f"of the mean, groups resampled; differences are paired. {counts}.",
        "",
    ]
    return "\n".join(lines)


def against_coarse(cases: Measured) -> Comparison:
    return compare(cases.names, cases.coarse, cases.refined, groups=cases.groups)


def shown(found: Comparison) -> list[tuple[MetricComparison, str]]:
    metrics = {metric.name: metric for metric in found.metrics}
    return [(metrics["dice"], ".3f"), (metrics["hd95"], ".1f")]


def spread(metric: MetricComparison, which: str, form: str) -> str:
    estimate = getattr(metric, which)
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


if __name__ == "__main__":
    main()
