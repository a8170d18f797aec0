"""``ultrarefiner simulate``: failures of the masks of a data set, as files, with a contact sheet."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch

from ultrarefiner.cli.cases import CaseFlags, open_cases
from ultrarefiner.data import (
    FittedCases,
    FitToSquare,
    SimulatedFailures,
    StretchToSquare,
    read_manifest,
    write_failures,
)
from ultrarefiner.simulation import FailureSimulator, mask_at_size

_ON_SHEET, _LOOKED_AT = 6, 24
_GOLDEN = 0.6180339887498949


def simulate(
    out: Path,
    phantoms: int | None = None,
    samples: int = 100_000,
    seed: int = 0,
    size: int = 224,
    fit: Literal["pad", "stretch"] = "pad",
    preset: Literal["default", "mild", "severe", "boundary", "structural"] = "default",
    complete_share: float | None = None,
    shard_size: int = 1000,
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
    sheet: bool = True,
    progress: bool = True,
    **options: Any,
) -> str:
    """Write simulated failures of true masks: shards of PNG pictures, a manifest, a contact sheet of every kind.

    The same command again goes on where it was stopped or killed. On several nodes with a file system in common, give
    each its part.

    Args:
        out: folder for the files.
        phantoms: this many made-up cases instead of a folder.
        samples: how many masks; all cases come equally often.
        seed: of all that is drawn; a mask is a seed and a number.
        size: side of the square in pixels.
        fit: how images come into the square, as in the training that reads the files: padded, or stretched.
        preset: which mixture of errors and ranges of Dice.
        complete_share: share of complete failures (empty, giant, scattered, collapsed); by default the preset's.
        shard_size: masks in one archive.
        part: which part of the shards to write, from 0.
        parts: in how many parts the work is shared.
        workers: processes that write; 0 for this one alone.
        sheet: draw sheet.png, every kind of error on six lesions; none where no case has a lesion.
        progress: show a progress bar on a terminal.
        options: which cases.

    Returns:
        What is there now, in a sentence.
    """
    cases = FittedCases(
        open_cases(CaseFlags(**options), phantoms=phantoms),
        FitToSquare(size) if fit == "pad" else StretchToSquare(size),
        keep_in_memory=False,
    )
    changes = {} if complete_share is None else {"complete_share": complete_share}
    simulator = FailureSimulator.preset(preset, **changes)
    failures = SimulatedFailures(cases, simulator, samples=samples, seed=seed)
    written = write_failures(
        failures, out, shard_size=shard_size, part=part, parts=parts, workers=workers, progress=progress
    )
    drawn = _typical(cases) if sheet and part == 0 and not (out / "sheet.png").exists() else None
    if drawn is not None:
        from ultrarefiner.evaluation import failure_sheet  # brings matplotlib, which workers do not need

        failure_sheet(simulator, drawn, out / "sheet.png", seed=seed)
    if not (out / "manifest.csv").exists():
        return f"{written} masks written to {out}; other parts are still missing."
    return f"{samples} masks in {out} ({written} written now). {_summary(out)}"


def _typical(cases: FittedCases) -> torch.Tensor | None:
    """Masks of a few lesions from all over the data set, small to large; None where there is no lesion."""
    found: list[torch.Tensor] = []
    stride = round(len(cases) * _GOLDEN) or 1
    while math.gcd(stride, len(cases)) > 1:
        stride += 1
    for turn in range(len(cases)):
        mask = mask_at_size(cases[turn * stride % len(cases)].mask[None], (cases.size, cases.size))[0, 0]
        if mask.any():
            found.append(mask)
        if len(found) == _LOOKED_AT:
            break
    if not found:
        return None
    found.sort(key=lambda mask: int(mask.sum()))
    count = min(_ON_SHEET, len(found))
    return torch.stack([found[round(place * (len(found) - 1) / max(1, count - 1))] for place in range(count)])


def _summary(folder: Path) -> str:
    """Shares of the wanted ranges, and what did not reach its own."""
    rows = read_manifest(folder)
    counts = Counter(row.bin for row in rows)
    shares = ", ".join(f"{name} {100 * count / len(rows):.2f} %" for name, count in sorted(counts.items()))
    missed = sum(not row.reached for row in rows)
    lesions = "" if any(row.bin != "no lesion" for row in rows) else " No case has a lesion at this size."
    return f"Dice: {shares}; {missed} outside of the wanted range.{lesions}"
