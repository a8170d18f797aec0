"""Simulated failures a second at 224 px, whatever the lesion's size: edits, solving and softening included.

    python benchmarks/simulation.py [--device cuda] [--batch 64] [--repeats 9] [--threads 1]

Prints a Markdown table and writes it to benchmarks/results/simulation.md with the machine's name. The two ways are
those of a true mask whose signed distance is known already and of one whose signed distance is computed, too.
"""

from __future__ import annotations

import argparse
import math
import statistics

import torch
from measure import paired_times, write
from torch import Tensor

from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.simulator import FailureSimulator

SIDE = 224
AREAS = (400, 2_000, 16_000, 40_000)


def lesions(area: int, count: int) -> Tensor:
    """Lobed ovals of about that many pixels, each another, (n, h, w)."""
    generator = torch.Generator().manual_seed(area)
    aspect, turn, x, y = torch.rand(4, count, 1, 1, generator=generator)
    axis = torch.arange(SIDE) + 0.5 - SIDE / 2
    room = max(0.0, SIDE / 2 - 1.3 * math.sqrt(area / math.pi))
    dx, dy = axis - room * (x - 0.5), axis[:, None] - room * (y - 0.5)
    angle, stretch = torch.atan2(dy, dx), (1 + 0.3 * aspect).sqrt()
    along = (dx * (6.28 * turn).cos() + dy * (6.28 * turn).sin()) / stretch
    across = (dy * (6.28 * turn).cos() - dx * (6.28 * turn).sin()) * stretch
    reach = (along.square() + across.square()).sqrt() / (1 + 0.1 * (3 * angle + 6.28 * turn).sin())
    limit = reach.flatten(1).kthvalue(area, dim=1).values
    return reach <= limit[:, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    simulator = FailureSimulator.preset("default")
    rows = [
        f"Masks a second, {SIDE} x {SIDE}, default preset, batches of {args.batch} (lowest to highest round).",
        "Other work may have shared the machine.",
        "",
        "| lesion | distances known | distances computed, too | wanted bin reached |",
        "|---|--:|--:|--:|",
    ]
    index = torch.arange(args.batch)
    for area in AREAS:
        masks = lesions(area, args.batch).to(args.device)
        known = Lesions.of(masks)

        def make(measures: Lesions | None, masks: Tensor = masks) -> Tensor:
            return simulator.simulate(masks, seed=0, index=index, lesions=measures).reached

        reached = make(None).float().mean().item()
        times = paired_times(
            (lambda known=known, make=make: make(known), lambda make=make: make(None)), args.repeats, args.device
        )
        rates = [sorted(args.batch / second for second in seconds) for seconds in times]
        told = [f"{statistics.median(rate):,.0f} ({rate[0]:,.0f} to {rate[-1]:,.0f})" for rate in rates]
        rows.append(f"| {area:,} px | {told[0]} | {told[1]} | {100 * reached:.0f} % |")
    options = f"--device {args.device} --batch {args.batch} --repeats {args.repeats} --threads {args.threads}"
    write("simulation", f"python benchmarks/simulation.py {options}", args.device, rows)


if __name__ == "__main__":
    main()
