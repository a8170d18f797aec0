"""A picture of volumes: the best, the middle and the worst slice of each, with truth and prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ultrarefiner.data.palette import REFINED, TRUTH
from ultrarefiner.evaluation.drawing import contour, note, short_name, write_figure
from ultrarefiner.evaluation.metrics import CaseMetrics, Spacing

_WIDTH = 3.0  # inches a picture


@dataclass(frozen=True)
class SlicePanel:
    """One slice of a picture.

    Attributes:
        name: of the slice.
        rank: "best", "middle" or "worst" of its volume.
        image: grey in [0, 1].
        prediction: the predicted mask.
        target: the true one.
        metrics: of the slice.
        spacing: (row, column) size of a pixel in mm; the picture has these proportions.
    """

    name: str
    rank: str
    image: Float[Tensor, "1 h w"]
    prediction: Bool[Tensor, "1 h w"]
    target: Bool[Tensor, "1 h w"]
    metrics: CaseMetrics
    spacing: Spacing


def volume_figure(
    rows: Sequence[Sequence[SlicePanel]], path: str | os.PathLike[str], *, dots_per_inch: int = 150
) -> None:
    """Draw one row a volume, one column a slice, and write the picture.

    The prediction is a blue line, the truth a thin dashed white one upon it; an empty mask says so.

    Args:
        rows: of each volume its slices, up to three.
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        dots_per_inch: resolution; a slice is 3 inches wide.

    Raises:
        ValueError: there is nothing to draw, or a mask is not on its image's pixels.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from ultrarefiner.evaluation import SlicePanel, volume_figure
        >>> mask = torch.zeros(1, 16, 16, dtype=torch.bool)
        >>> mask[:, 4:12, 4:12] = True
        >>> metrics = CaseMetrics(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 64, 64)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "volumes.png"
        >>> slice_panel = SlicePanel("p1/slice_003", "best", torch.rand(1, 16, 16), mask, mask, metrics, (0.5, 0.5))
        >>> volume_figure([[slice_panel]], path, dots_per_inch=50)
        >>> path.stat().st_size > 1000
        True
    """
    panels = [panel for row in rows for panel in row]
    if not panels:
        message = "rows must hold at least one slice to draw; got none."
        raise ValueError(message)
    for panel in panels:
        _check(panel)
    # Inches: wide volumes get low rows, so that no slice is torn out of its proportions.
    heights = [0.35 + _WIDTH * max(_proportion(panel) for panel in row) for row in rows if row]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(_WIDTH * columns, sum(heights) + 0.35), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for index, row in enumerate([row for row in rows if row]):
        for column, panel in enumerate(row):
            _draw(figure.add_subplot(grid[index, column]), panel)
    entries = [
        Line2D([], [], color=REFINED, linewidth=1.5, label="prediction"),
        # A white line would vanish on the page: the legend draws the truth in black.
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="truth (white)"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    write_figure(figure, path, dots_per_inch=dots_per_inch)


def _draw(axis: Any, panel: SlicePanel) -> None:
    picture = panel.image[0].detach().float().cpu().clamp(0, 1).numpy()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=panel.spacing[0] / panel.spacing[1])
    contour(axis, panel.prediction, REFINED, "-", 1.8)
    contour(axis, panel.target, TRUTH, "--", 0.8)
    missing = [
        name for name, mask in (("truth", panel.target), ("prediction", panel.prediction)) if not bool(mask.any())
    ]
    if missing:
        note(axis, f"{' and '.join(missing)} empty", "white")
    axis.set_title(
        f"{short_name(panel.name, 34)}\n{panel.rank}: Dice {panel.metrics.dice:.3f}, HD95 {panel.metrics.hd95:.2f} mm",
        fontsize=7,
        pad=3,
    )
    axis.set_axis_off()


def _proportion(panel: SlicePanel) -> float:
    height, width = panel.image.shape[-2:]
    return float(np.clip(height * panel.spacing[0] / (width * panel.spacing[1]), 0.3, 3.0))


def _check(panel: SlicePanel) -> None:
    for name, mask in (("prediction", panel.prediction), ("target", panel.target)):
        if mask.shape != panel.image.shape:
            message = (
                f"{name} of slice {panel.name!r} must be on the image's pixels, {tuple(panel.image.shape)}; got "
                f"{tuple(mask.shape)}. Bring it back to the image first."
            )
            raise ValueError(message)
