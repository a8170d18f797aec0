"""Pictures of failures: every kind that a simulator makes, and the simulated beside the real in histograms."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from ultrarefiner.data.palette import COARSE, REFINED
from ultrarefiner.evaluation.drawing import as_array, write_figure
from ultrarefiner.evaluation.failures import TITLES, FailureStatistics
from ultrarefiner.simulation import DiceBin, Edit, FailureSimulator, SimulatedMasks

_PANELS = ("dice", "boundary_error", "area_ratio", "components", "centroid_shift", "softness")
_COUNTS = ("components",)
_MOST = 8  # of counts; more share one bar
_BARS = 24
_OUTSIDE = 0.98  # of the values of both sets lie in the histogram, the rest is in its last bar
_SHOWN = DiceBin(0.75, 0.85, 1.0)  # wrong enough to be seen, and the lesion still there


def failure_comparison_figure(
    real: FailureStatistics,
    simulated: FailureStatistics,
    path: str | os.PathLike[str],
    *,
    dots_per_inch: int = 110,
) -> None:
    """Draw histograms of both: Dice, boundary error, area ratio, components, shift and softness.

    Bars are shares of the masks for which a measure is defined, real ones filled, simulated ones a line, in the same
    bins. What is larger than nearly all (98 %) is in the last bar, whose label then has a "≥". A measure that is
    defined for no mask of a set is drawn for the other alone.

    Args:
        real: of a coarse network's masks.
        simulated: of simulated ones.
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        dots_per_inch: resolution; the picture is 9 by 5.4 inches.

    Raises:
        ValueError: a set has no mask.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.evaluation.failures import failure_statistics
        >>> target = torch.zeros(2, 16, 16, dtype=torch.bool)
        >>> target[:, 4:12, 4:12] = True
        >>> found = failure_statistics(target.roll(2, 2), target)
        >>> path = Path(tempfile.mkdtemp()) / "histograms.png"
        >>> failure_comparison_figure(found, found, path, dots_per_inch=40)
        >>> path.stat().st_size > 1000
        True
    """
    sets = {"real": real, "simulated": simulated}
    for name, one in sets.items():
        if len(one) == 0:
            message = f"{name} must hold at least one mask of a lesion to draw; got none."
            raise ValueError(message)
    figure = Figure(figsize=(9.0, 5.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for axis, measure in zip(axes.flat, _PANELS, strict=True):
        _histogram(axis, measure, real.defined(measure), simulated.defined(measure))
    for axis in axes[:, 0]:
        axis.set_ylabel("share of masks", fontsize=9)
    labels = [f"{name}: {len(one)} masks, {one.empty.mean():.1%} empty" for name, one in sets.items()]
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=10)
    _write(figure, path, dots_per_inch)


def _histogram(axis: Any, measure: str, real: np.ndarray, simulated: np.ndarray) -> None:
    values = np.concatenate([real, simulated])
    edges = _edges(measure, values)
    last = (edges[-2] + edges[-1]) / 2
    for mine, colour, kind, label in ((real, COARSE, "stepfilled", "real"), (simulated, REFINED, "step", "simulated")):
        options = {"alpha": 0.55} if kind == "stepfilled" else {"linewidth": 2.0}
        weights = np.full(len(mine), 1 / max(len(mine), 1))
        axis.hist(np.minimum(mine, last), edges, weights=weights, color=colour, histtype=kind, label=label, **options)
    axis.set_xlabel(TITLES[measure], fontsize=9)
    axis.set_xlim(edges[0], edges[-1])
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    _ticks(axis, measure, edges, more=bool((values > edges[-1]).any()))


def _edges(measure: str, values: np.ndarray) -> np.ndarray:
    """Of the bars: those of Dice are fixed, those of counts lie around whole numbers."""
    if measure == "dice":
        return np.linspace(0.0, 1.0, 21)
    if measure in _COUNTS:
        most = int(np.clip(values.max() if len(values) else 0, 2, _MOST))
        return np.arange(most + 2) - 0.5
    high = float(np.quantile(values, _OUTSIDE)) if len(values) else 1.0
    return np.linspace(0.0, max(high, 1e-3), _BARS + 1)


def _ticks(axis: Any, measure: str, edges: np.ndarray, *, more: bool) -> None:
    """One under each count; and the last bar says so if it holds all that is larger."""
    width = edges[1] - edges[0]
    if measure in _COUNTS:
        places = edges[:-1] + width / 2
    elif more:
        room = 0.12 * (edges[-1] - edges[0])
        places = [place for place in axis.get_xticks() if edges[0] <= place <= edges[-1] - room]
        places = [*places, edges[-1] - width / 2]
    else:
        return
    names = [f"{place:.3g}" for place in places]
    if more:
        least = places[-1] if measure in _COUNTS else edges[-2]
        names[-1] = f"≥{least:.2g}" if least < 100 else f"≥{least:.0f}"
    axis.set_xticks(places, names)


def failure_sheet(
    simulator: FailureSimulator,
    masks: Bool[Tensor, "n h w"],
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    dots_per_inch: int = 100,
) -> None:
    """Draw every kind of error alone, one row a kind, one column a mask.

    Each picture is the soft mask with the true contour, its Dice above it. Kinds that are scaled to a wanted Dice are
    drawn at 0.75 to 0.85, whatever the simulator's own bins; complete failures as they come. Softening is the
    simulator's.

    Args:
        simulator: its ``edits`` and then its ``complete`` failures are drawn.
        masks: true masks; a handful of different sizes shows most.
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        seed: of the failures; mask i is number i of each kind.
        dots_per_inch: resolution; a mask is about 1.1 inches wide.

    Raises:
        ValueError: the masks are not boolean (n, h, w), there is none, or one is empty.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.simulation import Shift
        >>> masks = torch.zeros(2, 32, 32, dtype=torch.bool)
        >>> masks[:, 8:22, 10:20] = True
        >>> path = Path(tempfile.mkdtemp()) / "sheet.png"
        >>> failure_sheet(FailureSimulator(edits={Shift(): 1.0}, complete={}), masks, path)
        >>> path.stat().st_size > 1000
        True
    """
    _check(masks)
    masks = masks.cpu()
    rows = {kind: _alone(simulator, kind, masks, seed) for kind in (*simulator.edits, *simulator.complete)}
    height = 1.07 * masks.shape[1] / masks.shape[2] + 0.16
    size = (1.1 * len(masks) + 1.4, height * len(rows) + 0.1)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(masks), squeeze=False)
    for row, (kind, made) in zip(axes, rows.items(), strict=True):
        _draw_row(row, made, masks)
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", type(kind).__name__)
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(
        left=1.4 / size[0], right=0.995, top=1 - 0.2 / size[1], bottom=0.05 / size[1], wspace=0.03, hspace=0.15
    )
    _write(figure, path, dots_per_inch)


def _alone(simulator: FailureSimulator, kind: Edit, masks: Tensor, seed: int) -> SimulatedMasks:
    """One kind of error, and no other."""
    if kind in simulator.complete:
        only = replace(simulator, complete={kind: 1.0}, complete_share=1.0)
    else:
        only = replace(
            simulator, edits={kind: 1.0}, complete={}, complete_share=0.0, bins=(_SHOWN,), counts=(1.0, 0.0, 0.0, 0.0)
        )
    return only.simulate(masks, seed=seed, index=torch.arange(len(masks)))


def _draw_row(axes: Any, made: SimulatedMasks, masks: Tensor) -> None:
    for axis, soft, mask, dice in zip(axes, made.probability, masks, made.dice.tolist(), strict=True):
        axis.imshow(as_array(soft), cmap="gray", vmin=0, vmax=1)
        # A border of zeros closes the contour of a lesion that touches the frame.
        x, y = (np.arange(-1, side + 1) for side in (mask.shape[1], mask.shape[0]))
        axis.contour(x, y, np.pad(as_array(mask), 1), levels=[0.5], colors=[REFINED], linewidths=[0.9])
        axis.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
        axis.set_title(f"Dice {dice:.2f}", fontsize=6, pad=1.5)
        axis.set_axis_off()


def _write(figure: Figure, path: str | os.PathLike[str], dots_per_inch: int) -> None:
    smaller = {"pil_kwargs": {"optimize": True}} if Path(path).suffix in ("", ".png") else {}
    write_figure(figure, path, dots_per_inch=dots_per_inch, **smaller)


def _check(masks: Tensor) -> None:
    if masks.dtype != torch.bool or masks.ndim != 3 or not len(masks):
        message = (
            f"masks must be boolean (n, h, w) with at least one mask; got {masks.dtype} {tuple(masks.shape)}. "
            "Threshold them, and take the channel of size 1 out."
        )
        raise ValueError(message)
    empty = (~masks.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        message = f"masks must each have a lesion to fail at; got empty ones at {empty}. Leave them out."
        raise ValueError(message)
