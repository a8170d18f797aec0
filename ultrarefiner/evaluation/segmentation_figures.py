"""A picture of one model's masks: image, truth, probability as a heat map, prediction on truth, one row a case."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ultrarefiner.data.palette import REFINED, TRUTH
from ultrarefiner.evaluation.drawing import as_array, contour, note, short_name, show_image, write_figure
from ultrarefiner.evaluation.metrics import CaseMetrics
from ultrarefiner.evaluation.panel_check import check_row

_COLUMNS = 4
_SIDE, _GAP, _TITLE, _FOOT = 2.6, 0.06, 0.3, 0.58  # inches: a picture's width, between, above each row, below all
_COLOURS = "viridis"


@dataclass(frozen=True)
class SegmentationPanel:
    """What one row shows. All of it lies on the pixels of ``image``.

    Attributes:
        name: of the case.
        image: grey or RGB in [0, 1].
        probability: the predicted soft mask in [0, 1].
        target: the true mask, 0 or 1.
        metrics: of the mask, written above it.
        threshold: probability from which on a pixel is lesion, where the prediction's contour is drawn.
    """

    name: str
    image: Float[Tensor, "c h w"]
    probability: Float[Tensor, "1 h w"]
    target: Float[Tensor, "1 h w"]
    metrics: CaseMetrics
    threshold: float = 0.5


def segmentation_figure(
    panels: Sequence[SegmentationPanel], path: str | os.PathLike[str], *, dots_per_inch: int = 150
) -> None:
    """Draw one row a case and write the picture.

    From left to right: the image; the true mask; the probability, all rows on one scale from 0 to 1, with the threshold
    marked on the colour bar; the prediction's contour, blue, and the truth's, dashed, on the image, below the scores.
    An empty mask says so.

    Args:
        panels: the cases, from top to bottom; `evaluate_segmentation` has chosen some.
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        dots_per_inch: resolution; an image is 2.6 inches wide.

    Raises:
        ValueError: if there is no panel, an image is not grey or RGB, a mask is not on its image's pixels, or a
            threshold is not between 0 and 1.

    Example:
        >>> import pathlib, tempfile, torch
        >>> mask = torch.zeros(1, 16, 16)
        >>> mask[:, 4:12, 4:12] = 1.0
        >>> metrics = CaseMetrics(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 64, 64)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "segmentation.png"
        >>> panel = SegmentationPanel("a", torch.rand(3, 16, 16), 0.9 * mask, mask, metrics)
        >>> segmentation_figure([panel], path, dots_per_inch=50)
        >>> path.stat().st_size > 1000
        True
    """
    if not panels:
        message = "panels must hold at least one case to draw; got none."
        raise ValueError(message)
    for panel in panels:
        masks = {"probability": panel.probability, "target": panel.target}
        check_row(panel.name, panel.image, masks, panel.threshold)
    heights = [_SIDE * min(max(p.image.shape[1] / p.image.shape[2], 0.3), 3.0) for p in panels]
    width, height = _COLUMNS * (_SIDE + _GAP) + _GAP, sum(heights) + len(panels) * _TITLE + _FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    bottom = height
    for panel, side in zip(panels, heights, strict=True):
        bottom -= side + _TITLE
        lefts = [_GAP + column * (_SIDE + _GAP) for column in range(_COLUMNS)]
        places = [(left / width, bottom / height, _SIDE / width, side / height) for left in lefts]
        _draw_row([figure.add_axes(place) for place in places], panel)
    thresholds = sorted({panel.threshold for panel in panels})
    left, share = places[2][0], places[2][2]
    _colour_bar(figure.add_axes((left + 0.05 * share, (_FOOT - 0.22) / height, 0.9 * share, 0.1 / height)), thresholds)
    entries = [
        Line2D([], [], color=REFINED, linewidth=1.5, label=f"prediction ≥ {', '.join(f'{t:g}' for t in thresholds)}"),
        # A white line would vanish on the page: the legend draws the truth in black.
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="truth (white)"),
    ]
    middle = (places[3][0] + places[3][2] / 2, (_FOOT - 0.05) / height)
    figure.legend(handles=entries, loc="upper center", bbox_to_anchor=middle, ncols=2, frameon=False, fontsize=8)
    write_figure(figure, path, dots_per_inch=dots_per_inch)


def _draw_row(axes: Sequence[Any], panel: SegmentationPanel) -> None:
    image, truth, heat, outlines = axes
    metrics = panel.metrics
    for axis in (image, outlines):
        show_image(axis, panel.image)
    truth.imshow(as_array(panel.target)[0] >= 0.5, cmap="gray", vmin=0, vmax=1)
    if metrics.target_pixels == 0:
        note(truth, "empty", "white")
    heat.imshow(as_array(panel.probability)[0], cmap=_COLOURS, vmin=0, vmax=1)
    contour(heat, panel.target, TRUTH, "--", 0.9)
    contour(outlines, panel.probability, REFINED, "-", 1.8, level=panel.threshold, say_empty=True)
    contour(outlines, panel.target, TRUTH, "--", 0.9)
    titles = (
        short_name(panel.name, 32),
        f"truth: {metrics.target_pixels} px",
        f"probability: up to {float(panel.probability.max()):.2f}",
        f"Dice {metrics.dice:.3f}, IoU {metrics.iou:.3f}, HD95 {metrics.hd95:.1f} px",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=8, pad=3)
        axis.set(xlim=(-0.5, panel.image.shape[2] - 0.5), ylim=(panel.image.shape[1] - 0.5, -0.5))
        axis.set_axis_off()
    image.title.set_fontweight("bold")


def _colour_bar(axis: Any, thresholds: Sequence[float]) -> None:
    scale = ScalarMappable(cmap=_COLOURS)
    scale.set_clim(0, 1)
    bar = axis.figure.colorbar(scale, cax=axis, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.set_label("probability", fontsize=8, labelpad=1)
    axis.tick_params(labelsize=8, pad=2)
    for threshold in thresholds:
        axis.axvline(threshold, color=TRUTH, linewidth=1.5)
