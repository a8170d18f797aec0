"""Draw every kind of simulated failure, on the masks of six phantoms: docs/pictures/failures.png.

    python docs/pictures/draw_failures.py

Seed 0; each row has one kind of error alone, at a Dice of 0.75 to 0.85 where the kind has one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ultrarefiner.data import FittedCases, Phantoms
from ultrarefiner.evaluation import failure_sheet
from ultrarefiner.simulation import FailureSimulator

SIDE, COLUMNS = 160, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    cases = FittedCases(Phantoms(40, seed=3), SIDE)
    masks = [cases[index].mask[0] > 0.5 for index in range(len(cases))]
    lesions = sorted((mask for mask in masks if mask.any()), key=lambda mask: int(mask.sum()))
    chosen = torch.stack(lesions[3::6][:COLUMNS])
    failure_sheet(FailureSimulator(), chosen, args.out / "failures.png", dots_per_inch=85)


if __name__ == "__main__":
    main()
