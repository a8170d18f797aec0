"""Draw phases.png: what trains in each phase, where the gradient goes, and which cases each network may have seen.

python docs/pictures/draw_phases.py
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

ORANGE, GREEN, BLUE, GREY, RED = "#E69F00", "#009E73", "#56B4E9", "#d9d9d9", "#D55E00"
STATIONS = (
    ("image", 0.0),
    ("coarse\nnetwork", 1.35),
    ("soft mask", 2.75),
    ("prompts", 4.05),
    ("SAM", 5.25),
    ("refined\nmask", 6.5),
)
HALF = 0.48
PHASES = (
    ("phase 1", {"coarse\nnetwork"}, {"image", "soft mask"}, (("soft mask", "coarse\nnetwork"),)),
    (
        "phase 2",
        {"SAM"},
        {"image", "soft mask", "prompts", "refined\nmask"},
        (("refined\nmask", "SAM"),),
    ),
    (
        "phase 3",
        {"coarse\nnetwork", "SAM"},
        {"image", "soft mask", "prompts", "refined\nmask"},
        (("refined\nmask", "SAM"), ("SAM", "prompts"), ("prompts", "soft mask"), ("soft mask", "coarse\nnetwork")),
    ),
)


def walk(
    axis: Axes, y: float, name: str, trains: set[str], there: set[str], gradient: tuple[tuple[str, str], ...]
) -> None:
    """One phase: its stations, forward arrows, and the gradient's way back below them."""
    places = dict(STATIONS)
    axis.text(-0.75, y, name, ha="right", va="center", fontsize=11, weight="bold")
    present = [(station, x) for station, x in STATIONS if station in trains | there]
    for station, x in present:
        colour = ORANGE if station in trains else GREY
        axis.add_patch(
            FancyBboxPatch(
                (x - HALF, y - 0.2), 2 * HALF, 0.4, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="black"
            )
        )
        label = "failures:\nsimulated,\nout of fold" if name == "phase 2" and station == "soft mask" else station
        axis.text(x, y, label, ha="center", va="center", fontsize=7.5 if "\n" in label and "simul" in label else 9)
    for (first, start), (second, end) in pairwise(present):
        if (first, second) == ("image", "soft mask"):  # nothing made the failures of this image from it
            continue
        axis.annotate("", (end - HALF - 0.04, y), (start + HALF + 0.04, y), arrowprops={"arrowstyle": "->"})
    if "refined\nmask" in there:
        axis.add_patch(
            FancyArrowPatch(
                (places["image"], y + 0.24),
                (places["SAM"], y + 0.24),
                arrowstyle="->",
                mutation_scale=12,
                connectionstyle="arc3,rad=-0.1",
            )
        )
    for start, end in gradient:
        axis.add_patch(
            FancyArrowPatch(
                (places[start] - 0.15, y - 0.25),
                (places[end] + 0.15, y - 0.25),
                arrowstyle="->",
                mutation_scale=13,
                color=GREEN,
                lw=2,
                connectionstyle="arc3,rad=-0.25",
            )
        )


def phases(axis: Axes) -> None:
    for row, (name, trains, there, gradient) in enumerate(PHASES):
        walk(axis, 2.3 - 1.15 * row, name, trains, there, gradient)
    axis.add_patch(Rectangle((-0.45, -0.78), 0.25, 0.16, facecolor=ORANGE, edgecolor="black"))
    axis.text(-0.1, -0.7, "trains", va="center", fontsize=9)
    axis.annotate("", (1.1, -0.7), (1.6, -0.7), arrowprops={"arrowstyle": "->", "color": GREEN, "lw": 2})
    axis.text(1.7, -0.7, "gradient of the loss", va="center", fontsize=9)
    axis.set_xlim(-1.6, 7.1)
    axis.set_ylim(-0.95, 2.75)
    axis.set_axis_off()


ROWS = (
    ("phase 1", ("", "", "T", "T", "T")),
    ("out-of-fold network A", ("", "", "P", "T", "T")),
    ("out-of-fold network B", ("", "", "T", "P", "T")),
    ("out-of-fold network C", ("", "", "T", "T", "P")),
    ("phase 2, on masks by A, B, C", ("", "", "T", "T", "T")),
    ("phase 3", ("", "", "T", "T", "T")),
    ("which epoch", ("", "C", "", "", "")),
    ("the table", ("R", "", "", "", "")),
)
MEANING = {"T": (ORANGE, "trains"), "P": (BLUE, "is predicted"), "C": (GREY, "chooses"), "R": (RED, "is reported")}


def folds(axis: Axes) -> None:
    """Five folds of groups, and what each is for."""
    for row, (name, cells) in enumerate(ROWS):
        y = len(ROWS) - row
        axis.text(-0.15, y + 0.4, name, ha="right", va="center", fontsize=9)
        for column, kind in enumerate(cells):
            colour, meaning = MEANING.get(kind, ("white", ""))
            axis.add_patch(Rectangle((column, y), 0.94, 0.8, facecolor=colour, edgecolor="#b0b0b0"))
            axis.text(column + 0.47, y + 0.4, meaning, ha="center", va="center", fontsize=7.5)
    for column in range(5):
        axis.text(column + 0.47, len(ROWS) + 1.05, f"fold {column}", ha="center", fontsize=9)
    axis.set_xlim(-2.6, 5)
    axis.set_ylim(0.8, len(ROWS) + 1.5)
    axis.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[1.35, 1])
    phases(upper)
    folds(lower)
    figure.savefig(args.out / "phases.png", dpi=95, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
