"""What a run's curves show: the lines of each panel, from its log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrarefiner.data.palette import LINES
from ultrarefiner.evaluation.run_log import Row, RunLog

_TRAINING, VALIDATION = LINES[:2]
_RATES = LINES[:6]
_FAINT = 0.35  # opacity of what is not yet a mean over an epoch
_MARKED = 40  # epochs up to which each has a dot
_DECADES = 100.0  # from this ratio of largest to smallest on an axis is logarithmic

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line: its name in the legend, its points and how it looks."""

    label: str
    x: Values
    y: Values
    style: dict[str, Any]


@dataclass(frozen=True)
class CurvePanel:
    """One panel: its lines, its scale, and where its best epoch lies."""

    title: str
    lines: list[Line]
    logarithmic: bool = False
    star: tuple[float, float] | None = None
    named: bool = False  # whether each line needs its name


def curve_panels(log: RunLog) -> list[CurvePanel]:
    """What a run's log gives to draw; a panel without a finite value is left out.

    Args:
        log: what `ultrarefiner.evaluation.read_run_log` read.

    Returns:
        Loss, Dice, learning rates, then each term of the loss.

    Example:
        >>> row = {"epoch": 0.0, "step": 9.0, "epoch/loss": 1.5, "validation/dice": 0.25}
        >>> [(panel.title, panel.lines[0].y.tolist()) for panel in curve_panels(RunLog((row,), ()))]
        [('loss', [1.5]), ('Dice: best 0.2500 after 1 epoch', [0.25])]
    """
    terms = _terms(log)
    alone = len(terms) == 1 and _is_the_loss(log, terms[0])
    title = f"loss ({terms[0]})" if alone else "loss"
    panels = [
        _loss(log, "loss", title),
        _dice(log),
        _rates(log),
        *(_loss(log, name, f"loss term: {name}") for name in terms if not alone),
    ]
    return [panel for panel in panels if panel.lines]


def _terms(log: RunLog) -> list[str]:
    """Of the loss, in the tables' order; a Dice beside the masks' own is a score and no term."""
    names = [name.split("/", 1)[1] for row in (*log.epochs, *log.steps) for name in row if _is_training(name)]
    return [name for name in dict.fromkeys(names) if name != "loss" and not name.endswith("dice")]


def _is_training(name: str) -> bool:
    return name.startswith(("epoch/", "train/"))


def _is_the_loss(log: RunLog, term: str) -> bool:
    pairs = [
        (row[f"{prefix}/loss"], row.get(f"{prefix}/{term}"))
        for prefix, rows in (("epoch", log.epochs), ("train", log.steps))
        for row in rows
        if f"{prefix}/loss" in row
    ]
    return bool(pairs) and all(loss == value for loss, value in pairs)


def _loss(log: RunLog, name: str, title: str) -> CurvePanel:
    steps = _line(log, log.steps, f"train/{name}", "steps", _faint())
    epochs = _line(log, log.epochs, f"epoch/{name}", "epochs", _strong(log, _TRAINING))
    lines = [line for line in (steps, epochs) if line]
    # Where there are epochs, they and not the uneven steps decide the scale.
    scale = [line.y for line in lines[-1:]]
    return CurvePanel(title, lines, _spans_decades(scale), named=len(lines) > 1 and name == "loss")


def _dice(log: RunLog) -> CurvePanel:
    lines = []
    for prefix, label, colour in (("epoch", "training", _TRAINING), ("validation", "validation", VALIDATION)):
        dashed = {"color": colour, "linestyle": "--", "linewidth": 1.2}
        lines.append(_line(log, log.epochs, f"{prefix}/dice", label, _strong(log, colour)))
        lines.append(_line(log, log.epochs, f"{prefix}/coarse_dice", f"{label}, coarse", dashed))
    drawn = [line for line in lines if line]
    if not drawn:  # single steps are so uneven that they hide all else
        steps = _line(log, log.steps, "train/dice", "training, steps", _faint())
        drawn = [steps] if steps else []
    best = log.best
    if best is None:
        return CurvePanel(log.score_name, drawn, named=True)
    done = best.epoch + 1
    title = f"{log.score_name}: best {best.dice:.4f} after {done} epoch{'s' if done > 1 else ''}"
    return CurvePanel(title, drawn, star=(float(done), best.dice), named=True)


def _rates(log: RunLog) -> CurvePanel:
    names = list(dict.fromkeys(name for row in log.steps for name in row if name.startswith("learning_rate/")))
    styles = [{"color": _RATES[index % len(_RATES)], "linewidth": 1.5} for index in range(len(names))]
    drawn = [
        _line(log, log.steps, name, name.split("/", 1)[1], style) for name, style in zip(names, styles, strict=True)
    ]
    lines = [line for line in drawn if line]
    # Two groups at rates of different size; one group's way down to zero is no reason.
    apart = len(lines) > 1 and _spans_decades([line.y.max(keepdims=True) for line in lines], ratio=20.0)
    positive = all(bool((line.y > 0).all()) for line in lines)
    return CurvePanel("learning rate", lines, apart and positive, named=len(lines) > 1)


def _line(log: RunLog, rows: Sequence[Row], name: str, label: str, style: dict[str, Any]) -> Line | None:
    """None without a finite value; one of a run's infinite values leaves a gap."""
    found = [row for row in rows if name in row]
    y = np.array([row[name] if math.isfinite(row[name]) else math.nan for row in found])
    if not np.isfinite(y).any():
        return None
    return Line(label, _places(log, found, of_epochs=rows is log.epochs), y, style)


def _places(log: RunLog, rows: Sequence[Row], *, of_epochs: bool) -> Values:
    """On the axis of finished epochs, or of steps where no epoch is finished yet."""
    if of_epochs:
        return np.array([row["epoch"] + 1 for row in rows])
    steps = np.array([row["step"] for row in rows])
    ends = [(row["step"], row["epoch"] + 1) for row in log.epochs if row.get("step", 0) > 0]
    if not ends:
        return steps if not log.epochs else np.array([row.get("epoch", math.nan) + 1 for row in rows])
    at, done = np.array([(0.0, 0.0), *ends]).T
    # An epoch that is not finished goes on at the pace of the others.
    return np.where(steps > at[-1], steps * done[-1] / at[-1], np.interp(steps, at, done))


def _spans_decades(values: Sequence[Values], *, ratio: float = _DECADES) -> bool:
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.zeros(0)
    return bool(len(finite) and finite.min() > 0 and finite.max() > ratio * finite.min())


def _faint() -> dict[str, Any]:
    return {"color": _TRAINING, "alpha": _FAINT, "linewidth": 0.9}


def _strong(log: RunLog, colour: str) -> dict[str, Any]:
    dot = "o" if len(log.epochs) <= _MARKED else None
    return {"color": colour, "linewidth": 1.8, "marker": dot, "markersize": 3.5}
