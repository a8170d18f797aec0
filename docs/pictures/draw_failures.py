"""Draw every kind of simulated failure, on the masks of five phantoms: docs/pictures/failures.png.

    python docs/pictures/draw_failures.py

Seed 0; each row has one kind of error alone, at a Dice of 0.75 to 0.85 where the kind has one.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import torch

from ultrarefiner.data import FittedCases, Phantoms
from ultrarefiner.simulation import PRESETS, DiceBin, FailureSimulator

mpl.use("Agg")
import matplotlib.pyplot as plt

SIDE, COLUMNS = 160, 6


def main() -> None:
    cases = FittedCases(Phantoms(40, seed=3), SIDE)
    masks = [cases[index].mask[0] > 0.5 for index in range(len(cases))]
    masks = torch.stack(
        sorted((mask for mask in masks if mask.any()), key=lambda mask: int(mask.sum()))[3::6][:COLUMNS]
    )
    kinds = PRESETS["default"]
    rows = [*kinds.edits, *kinds.complete]
    figure, axes = plt.subplots(len(rows), len(masks), figsize=(1.15 * len(masks) + 1.4, 1.2 * len(rows)))
    for row, kind in zip(axes, rows, strict=True):
        if kind in kinds.complete:
            simulator = FailureSimulator(complete={kind: 1.0}, complete_share=1.0)
        else:
            simulator = FailureSimulator(
                edits={kind: 1.0}, complete={}, bins=[DiceBin(0.75, 0.85, 1.0)], counts=(1.0, 0.0, 0.0, 0.0)
            )
        made = simulator.simulate(masks, seed=0, index=torch.arange(len(masks)))
        for axis, soft, mask, dice in zip(row, made.probability, masks, made.dice.tolist(), strict=True):
            axis.imshow(soft, cmap="gray", vmin=0, vmax=1)
            axis.contour(mask.float(), levels=[0.5], colors="#56B4E9", linewidths=0.9)
            axis.set_title(f"Dice {dice:.2f}", fontsize=6, pad=1.5)
            axis.set_axis_off()
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", type(kind).__name__)
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(
        left=1.4 / figure.get_figwidth(), right=0.995, top=0.985, bottom=0.005, wspace=0.03, hspace=0.16
    )
    figure.savefig(Path(__file__).with_name("failures.png"), dpi=85, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
