"""How much memory and time a session on a large file needs on a CPU: a box, five clicks, the mask saved.

    python benchmarks/session.py

A scan of 512 x 512 x 300 voxels is written as NIfTI with a flipped affine: air, a body of noise, and a bright ball that
is the object. A process of its own opens it with the tiny SegVol of random weights and a correction. Of each step the
seconds are reported, and the process's peak of resident memory so far, less what it had when everything was imported
and built, and less the volume itself, 0.29 GiB in float32. A network that has learnt nothing scatters its answer, and
so looks at more windows than an organ asks for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from measure import write

import ultrarefiner as ur
from ultrarefiner.evaluation import open_session

GIB = 2**30
AFFINE = np.array([[-0.8, 0, 0, 200.0], [0, 0.8, 0, -190.0], [0, 0, 1.5, -300.0], [0, 0, 0, 1.0]])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), help="columns, rows, slices")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)  # what the process of its own opens
    return parser.parse_args()


def made_scan(size: tuple[int, int, int], path: Path) -> None:
    """A ball in a body in air, slice by slice."""
    columns, rows, slices = size
    random = np.random.default_rng(0)
    scan = np.empty(size, np.int16)
    x, y = np.ogrid[:columns, :rows]
    body = np.hypot((x - columns / 2) / (0.45 * columns), (y - rows / 2) / (0.45 * rows)) < 1
    for z in range(slices):
        radius = np.sqrt(max(0.0, 1 - ((z - slices / 2) / (0.15 * slices)) ** 2))
        ball = np.hypot((x - columns / 2) / (0.15 * columns), (y - rows / 2) / (0.15 * rows)) < radius
        plane = np.where(body, 40.0, -1000.0) + 120.0 * ball + random.normal(0, 15, (columns, rows))
        scan[:, :, z] = plane.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(scan, AFFINE), path)


def peak() -> int:
    """Bytes that were resident at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def session(path: Path) -> list[tuple[str, float, float]]:
    """Of each step its name, its seconds, and the peak so far in GiB above what everything took before."""
    torch.manual_seed(0)
    model = ur.VolumeSegmenter(ur.build_segvol("tiny"), ur.GRUCorrection(points=200, hidden=128)).eval()
    open_before = peak()
    steps: list[tuple[str, float, float]] = []

    def timed(name: str, step: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = step()
        steps.append((name, time.perf_counter() - started, (peak() - open_before) / GIB))
        return result

    columns, rows, slices = nibabel.load(path).shape
    opened: ur.systems.InteractiveSession = timed("open", lambda: open_session(model, path))
    low = (columns * 7 // 20, rows * 7 // 20, slices * 7 // 20)
    timed("box", lambda: opened.box((*low, columns * 13 // 20, rows * 13 // 20, slices * 13 // 20)))
    for number, share in enumerate((0.5, 0.4, 0.55, 0.38, 0.6), 1):
        place = (columns // 2, int(rows * share), slices // 2)
        timed(f"click {number}", lambda at=place, positive=number != 4: opened.click(at, positive=positive))
    mask = path.with_name("mask.nii.gz")
    timed("save", lambda: opened.save(mask))
    saved = nibabel.load(mask)
    if saved.shape != (columns, rows, slices) or not np.allclose(saved.affine, AFFINE):
        raise RuntimeError("the mask is on another grid than the scan")
    return steps


def main() -> None:
    args = arguments()
    if args.scan is not None:
        print(json.dumps(session(args.scan)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.nii.gz"
        made_scan(tuple(args.size), scan)
        command = [sys.executable, __file__, "--scan", str(scan)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        steps = json.loads(answer.stdout.splitlines()[-1])
    volume = 4 * np.prod(args.size) / GIB
    table = ["| step | seconds | peak above the volume, GiB |", "|:--|--:|--:|"]
    table += [f"| {name} | {seconds:.1f} | {max(high - volume, 0.0):.2f} |" for name, seconds, high in steps]
    table.append(f"\nThe mask lies on the scan's grid of {' x '.join(map(str, args.size))}, with its flipped affine.")
    write("session", "python benchmarks/session.py", "cpu", table, how="one run")


if __name__ == "__main__":
    main()
