"""An evaluation of volumes as files: a CSV with every volume, a Markdown table with the means."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, fields

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.evaluation.bootstrap import Estimate
from ultrarefiner.evaluation.volume_metrics import VolumeMeans, VolumeMetrics


def write_volumes_csv(path: str | os.PathLike[str], volumes: Sequence[VolumeMetrics]) -> None:
    """Write one row a volume: the fields of `VolumeMetrics`, in their order; empty where one is None.

    The file appears whole or not at all.

    Args:
        path: the file; its folder is made.
        volumes: what `evaluate_volumes` measured.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "volumes.csv"
        >>> write_volumes_csv(path, [VolumeMetrics("p1", "p1", 4, 0.5, 0.5, 2.0, 4, 0, None, None, 0.0, 1.0)])
        >>> path.read_text().splitlines()[1]
        'p1,p1,4,0.5,0.5,2.0,4,0,,,0.0,1.0'
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(VolumeMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(volume) for volume in volumes)
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def volumes_table(means: VolumeMeans) -> str:
    """Means with intervals, then how many slices were missed, and how all of it was computed.

    Args:
        means: what `volume_means` returned.

    Returns:
        Markdown, ending in a newline.

    Example:
        >>> from ultrarefiner.evaluation.volume_metrics import volume_means
        >>> one = VolumeMetrics("p1", "p1", 4, 0.5, 0.5, 2.0, 4, 0, None, None, 0.0, 1.0)
        >>> print(volumes_table(volume_means([one], resamples=10)).splitlines()[2])
        | Dice of the volume ↑ | 0.500 [0.500, 0.500] |
    """
    grouped = "" if means.groups == means.volumes else f" of {means.groups} patients"
    drawn = "volumes" if means.groups == means.volumes else "patients"
    lines = [
        "| Metric | Mean over volumes |",
        "|:--|--:|",
        _row("Dice of the volume ↑", means.dice, 3),
        _row("Dice of a slice ↑", means.slice_dice, 3),
        _row("HD95 of a slice ↓ (mm)", means.slice_hd95_mm, 2),
        _row("neither empty: Dice of a slice ↑", means.nonempty_dice, 3),
        _row("neither empty: HD95 of a slice ↓ (mm)", means.nonempty_hd95_mm, 2),
        "",
        f"{means.volumes} volumes{grouped}, {means.slices} slices: {means.missed_slices} with a lesion were missed, "
        f"{means.hallucinated_slices} without one got a mask.",
        "",
        f"[ ]: 95 % bootstrap interval of the mean ({means.resamples} resamples of {drawn}). Slices where truth or "
        "prediction has a lesion count: a missed or hallucinated one with Dice 0 and its diagonal. Neither empty: only "
        f"slices where both have one, which {means.nonempty_volumes} volumes have; what was missed is not seen in it.",
        "",
    ]
    return "\n".join(lines)


def _row(title: str, estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return f"| {title} | none |"
    return f"| {title} | {estimate.mean:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}] |"
