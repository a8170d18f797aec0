"""A run's curves: loss and its terms, Dice, learning rates."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ultrarefiner.evaluation.curve_panels import VALIDATION, CurvePanel, curve_panels
from ultrarefiner.evaluation.drawing import write_figure
from ultrarefiner.evaluation.finished_epoch import FinishedEpoch, check_every, is_due
from ultrarefiner.evaluation.run_log import RunLog, read_run_log


def draw_curves(
    folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None, *, dots_per_inch: int = 110
) -> Path:
    r"""Draw the curves of a run from its tables, whether it is finished, running or was killed (`curves_figure`).

    Args:
        folder: of the run.
        path: the picture; its ending decides the format (png, pdf, svg). None for ``curves.png`` in the folder. It
            appears whole or not at all, and is drawn anew each time.
        dots_per_inch: resolution.

    Returns:
        The picture's file.

    Raises:
        FileNotFoundError: the folder has no table.
        ValueError: no row is complete, or a line is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.csv").write_text("epoch,epoch/loss,epoch/dice\n0,1.5,0.2\n1,1.0,0.6\n")
        >>> draw_curves(folder, dots_per_inch=40).name
        'curves.png'
    """
    folder = Path(folder)
    path = folder / "curves.png" if path is None else Path(path)
    figure = curves_figure(read_run_log(folder), title=folder.resolve().name)
    write_figure(figure, path, dots_per_inch=dots_per_inch)
    return path


def curves_figure(log: RunLog, *, title: str = "") -> Figure:
    """Draw a panel for the loss, for the Dice, for the learning rates and for each term of the loss.

    The axis counts the epochs that are finished: what epoch 0 reached stands at 1. Before the end of the first it
    counts steps. Means over a few steps are faint, means over an epoch strong; the Dice of a few steps is drawn only
    before the end of the first epoch. The best epoch in validation has a star around it. The Dice is called what the
    run calls it, perhaps "Dice of boxes". A panel without a value is left out, and so is a term that is the loss
    itself. Values of very different size, all positive, get a logarithmic axis.

    Args:
        log: what `read_run_log` read.
        title: above all panels, before the number of epochs and steps.

    Returns:
        The figure; one panel an axis.

    Raises:
        ValueError: there is nothing to draw.

    Example:
        >>> row = {"epoch": 0.0, "step": 9.0, "epoch/loss": 1.5, "epoch/dice": 0.2, "validation/dice": 0.4}
        >>> [axis.get_title() for axis in curves_figure(RunLog((row,), ())).axes]
        ['loss', 'Dice: best 0.4000 after 1 epoch']
    """
    panels = curve_panels(log)
    if not panels:
        message = "log must have a loss, a Dice or a learning rate to draw, but its rows have none of them."
        raise ValueError(message)
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_heading(log, title), fontsize=11)
    limits = _limits(panels)
    for index, panel in enumerate(panels):
        axis = figure.add_subplot(rows, columns, index + 1)
        _draw(axis, panel)
        axis.set_xlim(*limits)
        axis.set_xlabel("epochs finished" if log.epochs else "steps finished", fontsize=9)
    return figure


@dataclass(frozen=True)
class Curves:
    """A watcher of `ultrarefiner.training.train` that keeps ``curves.png`` up to date (`draw_curves`).

    It draws the run's tables, so a resumed run's curves are whole.

    Args:
        every: epochs between two pictures; it is drawn after the last epoch in any case.

    Raises:
        ValueError: every is below 1.

    Example:
        >>> Curves(every=5)
        Curves(every=5)
    """

    every: int = 1

    def __post_init__(self) -> None:
        check_every(self.every)

    def __call__(self, moment: FinishedEpoch) -> None:
        """Draw if it is time."""
        if is_due(moment, self.every):
            draw_curves(moment.folder)


def _draw(axis: Any, panel: CurvePanel) -> None:
    for line in panel.lines:
        style = dict(line.style)
        if len(line.y) == 1:
            style |= {"marker": "o", "markersize": 3.5}
        axis.plot(line.x, line.y, label=line.label, **style)
    if panel.star is not None:
        x, y = panel.star
        # White and below the lines: it surrounds the points of its epoch and hides none.
        options = {"marker": "*", "s": 220, "c": "white", "edgecolors": VALIDATION, "linewidths": 1.1, "zorder": 1.9}
        axis.scatter([x], [y], label="best", **options)
    if panel.logarithmic:
        axis.set_yscale("log")
    else:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if panel.named:
        axis.legend(fontsize=7, framealpha=0.8)
    axis.set_title(panel.title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _heading(log: RunLog, title: str) -> str:
    epochs = int(log.epochs[-1]["epoch"]) + 1 if log.epochs else 0
    steps = int(max([row.get("step", 0) for row in (*log.epochs[-1:], *log.steps[-1:])]))
    counts = f"{epochs} epoch{'' if epochs == 1 else 's'}, {steps:,} step{'' if steps == 1 else 's'}"
    return f"{title}: {counts}" if title else counts


def _limits(panels: Sequence[CurvePanel]) -> tuple[float, float]:
    """Of the axis that all panels share: where there are points, from 0 if one is near; one place is in the middle."""
    places = np.concatenate([line.x for panel in panels for line in panel.lines])
    places = places[np.isfinite(places)]
    first, last = (float(places.min()), float(places.max())) if len(places) else (0.0, 0.0)
    margin = 0.04 * (last - first) if last > first else 1.0
    return 0.0 if first < 1 else first - margin, last + margin
