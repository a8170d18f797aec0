"""The exact distance transform against compiled ones on the CPU: scipy, MONAI (which calls scipy) and edt.

    python benchmarks/distance.py [--device cuda] [--repeats 9] [--threads 1]

Prints a Markdown table and writes it to benchmarks/results/distance.md with the machine's name. The answers are
compared first. The others take one mask at a time, so they are called in a loop over the batch. A way that is not
installed is left out (``pip install edt``). With a GPU ours runs there and scipy on the CPU, transfers left out.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

import numpy as np
import torch
from measure import median_times, write
from scipy import ndimage
from torch import Tensor

from ultrarefiner.ops import distance_transform, signed_distance

Loop = Callable[[np.ndarray], np.ndarray]


def lesions(count: int, size: tuple[int, ...]) -> Tensor:
    """Round blobs with lobes, a tenth to a third of the frame across, each another: (count, 1, *size)."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[(torch.arange(length) + 0.5) / length for length in size], indexing="ij")
    masks = []
    for _ in range(count):
        centre, radii = torch.rand(2, len(size), generator=generator).tolist()
        places = [(axis - 0.35 - 0.3 * c) / (0.08 + 0.22 * r) for axis, c, r in zip(axes, centre, radii, strict=True)]
        lobes = 1 + 0.2 * torch.sin(3 * torch.atan2(places[-2], places[-1]) + 6 * torch.rand(1, generator=generator))
        masks.append(sum(place.square() for place in places) <= lobes.square())
    return torch.stack(masks)[:, None]


def noise(count: int, size: tuple[int, ...]) -> Tensor:
    """One pixel in a hundred outside, without any pattern."""
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0)) < 0.99


def others(threads: int) -> dict[str, Loop]:
    """Distance of one mask, (h, w) or (d, h, w), in the ways that are installed."""
    found: dict[str, Loop] = {"scipy": ndimage.distance_transform_edt}
    try:
        edt = importlib.import_module("edt")
        found["edt"] = lambda mask: edt.edt(mask, parallel=threads)
    except ImportError:
        pass
    try:
        monai = importlib.import_module("monai.transforms.utils")
        found["MONAI"] = lambda mask: monai.distance_transform_edt(mask[None])[0]
    except ImportError:
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ways = others(args.threads)
    rows = [
        "Milliseconds a batch; in brackets how many times as long as ours. Other work may have shared the machine.",
        "",
        "| masks | work | this library | " + " | ".join(ways) + " |",
        "|---|---|--:|" + "--:|" * len(ways),
    ]

    def compare(title: str, work: str, mask: Tensor, spacing: tuple[float, ...] | None = None) -> None:
        on_device, plain = mask.to(args.device), list(mask[:, 0].numpy())

        def ours() -> Tensor:
            return signed_distance(on_device) if work == "signed" else distance_transform(on_device, spacing)

        def loop(one: Loop) -> np.ndarray:
            if work == "signed":
                return np.stack([np.where(mask, 0.5 - one(mask), one(~mask) - 0.5) for mask in plain])
            return np.stack([one(mask) for mask in plain])

        cells = []
        for one in ways.values():
            difference = np.abs(ours().cpu().numpy()[:, 0] - loop(one)).max()
            if difference > 1e-3:
                message = f"{title}, {work}: the answers differ by {difference}"
                raise RuntimeError(message)
            our_time, time = median_times((ours, lambda one=one: loop(one)), args.repeats, args.device)
            cells.append((our_time, time))
        fastest = min(our_time for our_time, _ in cells)
        told = [f"{1e3 * time:.1f} ({time / our_time:.2f})" for our_time, time in cells]
        rows.append(f"| {title} | {work} | {1e3 * fastest:.1f} | " + " | ".join(told) + " |")

    for count, size in ((16, (224, 224)), (4, (512, 512)), (1, (32, 128, 128))):
        name = f"{count} of " + " x ".join(str(length) for length in size)
        blobs = lesions(count, size)
        compare(f"lesions, {name}", "inside", blobs)
        compare(f"lesions, {name}", "outside", ~blobs)
        compare(f"lesions, {name}", "signed", blobs)
        compare(f"noise, {name}", "inside", noise(count, size))
    command = f"python benchmarks/distance.py --device {args.device} --repeats {args.repeats} --threads {args.threads}"
    write("distance", command, args.device, rows)


if __name__ == "__main__":
    main()
