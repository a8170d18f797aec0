"""A comparison as files: a CSV with every case, a Markdown table with the means."""

from __future__ import annotations

import csv
import io
import os

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.evaluation.bootstrap import Estimate
from ultrarefiner.evaluation.comparison import (
    DICE_POINT,
    FOUND_DICE,
    METRICS,
    Comparison,
    MetricComparison,
    case_detection,
    case_outcome,
)

_DISTANCES = ("hd95", "assd")
_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "assd": "ASSD",
}


def write_csv(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Write one row a case: its name, every metric of both masks, the change of Dice and what became of it.

    Columns: ``name``; ``coarse_dice`` to ``coarse_assd``; ``refined_dice`` to ``refined_assd``;
    ``dice_difference``; ``outcome`` (gained, unchanged, harmed); ``detection`` (kept, lost, found, missed,
    no lesion); ``coarse_pixels``, ``refined_pixels``, ``target_pixels``. The file appears whole or not at all.

    Args:
        path: the file; its folder is made.
        comparison: what `compare` returned.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ultrarefiner.evaluation import CaseMetrics, compare
        >>> case = CaseMetrics(0.5, 0.4, 0.5, 0.5, 2.0, 1.0, 10, 10)
        >>> path = Path(tempfile.mkdtemp()) / "cases.csv"
        >>> write_csv(path, compare(["a"], [case], [case], resamples=10))
        >>> path.read_text().splitlines()[1]
        'a,0.5,0.4,0.5,0.5,2.0,1.0,0.5,0.4,0.5,0.5,2.0,1.0,0.0,unchanged,kept,10,10,10'
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "name",
            *(f"coarse_{metric}" for metric in METRICS),
            *(f"refined_{metric}" for metric in METRICS),
            *("dice_difference", "outcome", "detection", "coarse_pixels", "refined_pixels", "target_pixels"),
        ]
    )
    for name, coarse, refined in zip(comparison.names, comparison.coarse, comparison.refined, strict=True):
        writer.writerow(
            [
                name,
                *(getattr(coarse, metric) for metric in METRICS),
                *(getattr(refined, metric) for metric in METRICS),
                refined.dice - coarse.dice,
                case_outcome(coarse, refined),
                case_detection(coarse, refined),
                coarse.prediction_pixels,
                refined.prediction_pixels,
                refined.target_pixels,
            ]
        )
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def markdown_table(comparison: Comparison, *, unit: str = "px") -> str:
    """Means with intervals, differences and p-values, then the counts and how all of it was computed.

    Args:
        comparison: what `compare` returned.
        unit: of the distances, that is, of the spacing the metrics were given.

    Returns:
        Markdown, ending in a newline.

    Example:
        >>> from ultrarefiner.evaluation import CaseMetrics, compare
        >>> case = CaseMetrics(0.5, 0.4, 0.5, 0.5, 2.0, 1.0, 10, 10)
        >>> print(markdown_table(compare(["a"], [case], [case], resamples=10)).splitlines()[2])
        | Dice ↑ | 0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] | +0.000 [+0.000, +0.000] | 1.0000 |
    """
    lines = ["| Metric | Coarse | Refined | Refined - coarse | p |", "|:--|--:|--:|--:|--:|"]
    lines += [_row(metric, unit) for metric in comparison.metrics]
    cases = len(comparison.names)
    grouped = "" if comparison.groups == cases else f" in {comparison.groups} groups"
    lines += [
        "",
        f"{cases} cases{grouped}: {comparison.gained} gained, {comparison.unchanged} unchanged, "
        f"{comparison.harmed} harmed (Dice changed by more than {DICE_POINT:g}); {comparison.lost} lesions lost, "
        f"{comparison.found} found (Dice of at least {FOUND_DICE:g} before or after only). Empty masks where there "
        f"is a lesion: {comparison.coarse_empty} coarse, {comparison.refined_empty} refined.",
        "",
        f"[ ]: 95 % bootstrap interval of the mean ({comparison.resamples} resamples of "
        f"{'cases' if comparison.groups == cases else 'groups'}); p: paired Wilcoxon signed-rank test. Where exactly "
        "one mask is empty, HD95 and ASSD are the image's diagonal; no case is left out.",
        "",
    ]
    return "\n".join(lines)


def _row(metric: MetricComparison, unit: str) -> str:
    distance = metric.name in _DISTANCES
    title = f"{_TITLES[metric.name]} {'↓' if distance else '↑'}" + (f" ({unit})" if distance else "")
    digits = 2 if distance else 3
    p_value = "< 0.0001" if metric.p_value < 1e-4 else f"{metric.p_value:.4f}"
    cells = [
        title,
        _cell(metric.coarse, f".{digits}f"),
        _cell(metric.refined, f".{digits}f"),
        _cell(metric.difference, f"+.{digits}f"),
        p_value,
    ]
    return f"| {' | '.join(cells)} |"


def _cell(estimate: Estimate, form: str) -> str:
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
