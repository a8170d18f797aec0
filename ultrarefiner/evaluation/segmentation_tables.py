"""Evaluations of segmentation models as files: a CSV with every case, a Markdown table with a row a model."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

import numpy as np

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates
from ultrarefiner.evaluation.comparison import Comparison, compare
from ultrarefiner.evaluation.metrics import CaseMetrics
from ultrarefiner.evaluation.segmentation import SegmentationEvaluation
from ultrarefiner.evaluation.structure_measures import StructureMeasures

_STRUCTURE = {
    "s_measure": "S ↑",
    "mean_e_measure": "mean E ↑",
    "weighted_f_measure": "weighted F ↑",
    "mean_f_measure": "mean F ↑",
    "sensitivity": "Sensitivity ↑",
    "mean_dice": "mean Dice ↑",
    "mean_iou": "mean IoU ↑",
    "mae": "MAE ↓",
}


def write_segmentation_csv(path: str | os.PathLike[str], evaluation: SegmentationEvaluation) -> None:
    """Write one row a case: ``name``, ``group``, the fields of `CaseMetrics`, and of `StructureMeasures` if there.

    The file appears whole or not at all.

    Args:
        path: the file; its folder is made.
        evaluation: what `evaluate_segmentation` returned.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> case = CaseMetrics(0.5, 0.4, 0.5, 0.5, 2.0, 1.0, 10, 10)
        >>> path = Path(tempfile.mkdtemp()) / "cases.csv"
        >>> write_segmentation_csv(path, SegmentationEvaluation(("a",), ("p1",), (case,), None, ()))
        >>> path.read_text().splitlines()[1]
        'a,p1,0.5,0.4,0.5,0.5,2.0,1.0,10,10'
    """
    columns = ["name", "group", *(field.name for field in fields(CaseMetrics))]
    if evaluation.structure is not None:
        columns += [field.name for field in fields(StructureMeasures)]
    structure = evaluation.structure or [None] * len(evaluation.names)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for name, group, metrics, measures in zip(
        evaluation.names, evaluation.groups, evaluation.metrics, structure, strict=True
    ):
        more = {} if measures is None else asdict(measures)
        writer.writerow({"name": name, "group": group, **asdict(metrics), **more})
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def segmentation_table(
    evaluations: Mapping[str, SegmentationEvaluation],
    *,
    against: str | None = None,
    unit: str = "px",
    resamples: int = 10_000,
    seed: int = 0,
) -> str:
    """Means over images with intervals, a row a model, and how much better each is than one of them.

    A second table has the structure measures of those models that have them. Intervals and differences are those of
    `compare`: whole groups are resampled, and a difference is case by case.

    Args:
        evaluations: titles to evaluations of the same cases, in the order of the rows.
        against: the title of the row that Dice of the others is compared with, case by case; None for no comparison.
        unit: of the distances.
        resamples: how often the bootstrap draws.
        seed: of the bootstrap.

    Returns:
        Markdown, ending in a newline.

    Raises:
        ValueError: there is no evaluation, ``against`` is none of the titles, or the evaluations have different cases,
            groups or targets.

    Example:
        >>> case = CaseMetrics(0.5, 0.4, 0.5, 0.5, 2.0, 1.0, 10, 10)
        >>> found = SegmentationEvaluation(("a",), ("p1",), (case,), None, ())
        >>> table = segmentation_table({"AutoSAM": found, "filled box": found}, against="filled box", resamples=10)
        >>> print(table.splitlines()[2])
        | AutoSAM | 0.500 [0.500, 0.500] | 0.400 [0.400, 0.400] | 2.00 [2.00, 2.00] | +0.000 [+0.000, +0.000] |
    """
    first = _check(evaluations, against)
    header = ["Model", "Dice ↑", "IoU ↑", f"HD95 ↓ ({unit})"]
    if against is not None:
        header.append(f"Dice minus {_cell_text(against)}")
    rows = []
    for title, evaluation in evaluations.items():
        base = evaluation if against is None else evaluations[against]
        comparison = compare(
            first.names, base.metrics, evaluation.metrics, groups=first.groups, resamples=resamples, seed=seed
        )
        rows.append(_row(title, comparison, against))
    lines = [*_table(header, rows), "", *_structure(evaluations, resamples, seed)]
    return "\n".join([*lines, _notes(evaluations, resamples), ""])


def _row(title: str, comparison: Comparison, against: str | None) -> list[str]:
    by_name = {metric.name: metric for metric in comparison.metrics}
    cells = [_cell_text(title)]
    cells += [_cell(by_name[name].refined, form) for name, form in (("dice", ".3f"), ("iou", ".3f"), ("hd95", ".2f"))]
    if against is not None:
        cells.append("" if title == against else _cell(by_name["dice"].difference, "+.3f"))
    return cells


def _structure(evaluations: Mapping[str, SegmentationEvaluation], resamples: int, seed: int) -> list[str]:
    rows = []
    for title, evaluation in evaluations.items():
        if evaluation.structure is not None:
            values = np.array([[getattr(one, name) for name in _STRUCTURE] for one in evaluation.structure])
            estimates = bootstrap_estimates(values, evaluation.groups, resamples=resamples, seed=seed)
            rows.append([_cell_text(title), *(_cell(estimate, ".3f") for estimate in estimates)])
    return [*_table(["Model", *_STRUCTURE.values()], rows), ""] if rows else []


def _notes(evaluations: Mapping[str, SegmentationEvaluation], resamples: int) -> str:
    first = next(iter(evaluations.values()))
    cases, groups = len(first.names), len(set(first.groups))
    alone = groups == cases
    empty = ", ".join(
        f"{title} {sum(case.prediction_pixels == 0 < case.target_pixels for case in evaluation.metrics)}"
        for title, evaluation in evaluations.items()
    )
    notes = (
        f"{cases} cases{'' if alone else f' in {groups} groups'}. [ ]: 95 % bootstrap interval of the mean over images "
        f"({resamples} resamples of {'cases' if alone else 'groups'}). Where exactly one mask is empty, HD95 is the "
        f"image's diagonal; no case is left out. Empty masks where there is a lesion: {empty}."
    )
    if any(evaluation.structure is not None for evaluation in evaluations.values()):
        notes += (
            " Mean E, mean F, sensitivity, mean Dice and mean IoU are means over 256 thresholds; no map was stretched "
            "to 0 to 1 first, as published numbers are."
        )
    return notes


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = "|".join([":--", *["--:"] * (len(header) - 1)])
    return [f"| {' | '.join(header)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _cell(estimate: Estimate, form: str) -> str:
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _cell_text(title: str) -> str:
    return title.replace("|", "\\|")


def _check(evaluations: Mapping[str, SegmentationEvaluation], against: str | None) -> SegmentationEvaluation:
    if not evaluations:
        message = "evaluations must hold at least one evaluation; got none. Make one with evaluate_segmentation."
        raise ValueError(message)
    if against is not None and against not in evaluations:
        message = f"against must be one of the titles, {sorted(evaluations)}; got {against!r}."
        raise ValueError(message)
    title, first = next(iter(evaluations.items()))
    for other, evaluation in evaluations.items():
        if (evaluation.names, evaluation.groups) != (first.names, first.groups):
            message = (
                f"evaluations must be of the same cases in the same order, with the same groups; {other!r} "
                f"({len(evaluation.names)} cases) has others than {title!r} ({len(first.names)} cases). Evaluate both "
                "on the same data set, or the same subset of it."
            )
            raise ValueError(message)
    return first
