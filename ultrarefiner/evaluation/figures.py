"""A picture to judge by: image, coarse mask, prompts, refined mask and truth, one row a case."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from ultrarefiner.data.palette import BACKGROUND, BOX, COARSE, LESION, REFINED, REGION, TRUTH
from ultrarefiner.evaluation.drawing import (
    as_array,
    contour,
    note,
    outline,
    short_name,
    show_image,
    write_figure,
)
from ultrarefiner.evaluation.panel_check import check_row

_COLUMNS = ("image", "coarse", "prompts", "refined", "truth")
_SIDE = 2.3  # inches a picture

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Panel:
    """What one row shows. All of it lies on the pixels of ``image``.

    Attributes:
        name: of the case.
        image: grey or RGB in [0, 1].
        coarse_probability: the coarse mask in [0, 1].
        refined_probability: the refined mask.
        target: the true mask.
        points: (x, y) of the point prompts in pixel indices of the image (the first pixel's centre is 0), or None.
        labels: 1 for lesion, 0 for background, -1 for no point, which is not drawn; None with ``points=None``.
        box: the box prompt (x0, y0, x1, y1) in pixel indices of the image, or None.
        region: the region of interest (x0, y0, x1, y1) in pixel edges (the first pixel spans 0 to 1), or None.
        coarse_dice: of the coarse mask.
        refined_dice: of the refined mask.
        threshold: probability from which on a pixel of the two masks is lesion, where their contours are drawn.
    """

    name: str
    image: Float[Tensor, "c h w"]
    coarse_probability: Float[Tensor, "1 h w"]
    refined_probability: Float[Tensor, "1 h w"]
    target: Float[Tensor, "1 h w"]
    points: Float[Tensor, "n 2"] | None
    labels: Int[Tensor, " n"] | None
    box: Float[Tensor, " 4"] | None
    region: Float[Tensor, " 4"] | None
    coarse_dice: float
    refined_dice: float
    threshold: float = 0.5


def panel_figure(panels: Sequence[Panel], path: str | os.PathLike[str], *, dots_per_inch: int = 150) -> None:
    """Draw one row a case and write the picture.

    The first picture is the whole image; the others show the part in which anything is drawn, which the white frame
    marks. Masks are contours, so that nothing is hidden: coarse and refined ones at the panel's threshold, which the
    titles name, the true one, dashed, at 0.5. An empty mask says so.

    Args:
        panels: the cases, from top to bottom.
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        dots_per_inch: resolution; an image is 2.3 inches wide.

    Raises:
        ValueError: if there is no panel, a mask is not on its image's pixels, points and labels do not match, or a
            threshold is not between 0 and 1.

    Example:
        >>> import pathlib, tempfile, torch
        >>> mask = torch.zeros(1, 16, 16)
        >>> mask[:, 4:12, 4:12] = 1.0
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "panels.png"
        >>> panel = Panel("a", torch.rand(1, 16, 16), mask, mask, mask, None, None, None, None, 1.0, 1.0)
        >>> panel_figure([panel], path, dots_per_inch=50)
        >>> path.stat().st_size > 1000
        True
    """
    if not panels:
        message = "panels must hold at least one case to draw; got none."
        raise ValueError(message)
    for panel in panels:
        _check(panel)
    heights = [_SIDE * min(max(p.image.shape[1] / p.image.shape[2], 0.3), 3.0) + 0.3 for p in panels]
    legend = 0.45
    total = sum(heights) + legend
    figure = Figure(figsize=(len(_COLUMNS) * _SIDE, total), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(panels),
        len(_COLUMNS),
        height_ratios=heights,
        left=0.01,
        right=0.99,
        top=1 - 0.28 / total,
        bottom=legend / total,
        wspace=0.04,
        hspace=0.3 * len(panels) / max(total - legend - 0.28, 0.1),
    )
    for row, panel in enumerate(panels):
        _draw_row([figure.add_subplot(grid[row, column]) for column in range(len(_COLUMNS))], panel)
    figure.legend(handles=_legend(panels), loc="lower center", ncols=8, frameon=False, fontsize=8)
    write_figure(figure, path, dots_per_inch=dots_per_inch)


def _draw_row(axes: Sequence[Any], panel: Panel) -> None:
    image, coarse, prompts, refined, truth = axes
    change = panel.refined_dice - panel.coarse_dice
    window, level = _window(panel), panel.threshold
    _picture(image, panel, short_name(panel.name, 30))
    _picture(coarse, panel, f"coarse ≥ {level:g}: Dice {panel.coarse_dice:.3f}", window)
    _picture(prompts, panel, "prompts", window)
    _picture(refined, panel, f"refined ≥ {level:g}: Dice {panel.refined_dice:.3f} ({change:+.3f})", window)
    _picture(truth, panel, "truth", window)
    image.title.set_fontweight("bold")
    if window != (0, 0, *panel.image.shape[:0:-1]):
        _rectangle(image, window, TRUTH, "-", 0.8)
    for axis, mask, colour in (
        (coarse, panel.coarse_probability, COARSE),
        (refined, panel.refined_probability, REFINED),
    ):
        contour(axis, panel.target, TRUTH, "--", 0.9)
        contour(axis, mask, colour, "-", 1.6, level=level, say_empty=True)
    contour(truth, panel.target, TRUTH, "--", 1.2, say_empty=True)
    contour(prompts, panel.coarse_probability, COARSE, "-", 0.8, level=level)
    _draw_prompts(prompts, panel)


def _picture(axis: Any, panel: Panel, title: str, window: Window | None = None) -> None:
    show_image(axis, panel.image)
    x0, y0, x1, y1 = window or (0, 0, panel.image.shape[2], panel.image.shape[1])
    axis.set_xlim(x0 - 0.5, x1 - 0.5)
    axis.set_ylim(y1 - 0.5, y0 - 0.5)
    axis.set_title(title, fontsize=8, pad=3)
    axis.set_axis_off()


def _window(panel: Panel) -> Window:
    """The part of the image, in pixel edges and of the image's own shape, that holds all that is drawn."""
    height, width = panel.image.shape[-2:]
    corners = [as_array(box) for box in (panel.region, panel.box) if box is not None]
    masks = ((panel.coarse_probability, panel.threshold), (panel.refined_probability, panel.threshold))
    for mask, level in (*masks, (panel.target, 0.5)):
        rows, columns = np.nonzero(as_array(mask)[0] >= level)
        if rows.size:
            corners.append(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))
    if panel.points is not None and panel.labels is not None:
        corners += [np.concatenate([p, p + 1]) for p in as_array(panel.points)[panel.labels.cpu().numpy() >= 0]]
    if not corners:
        return 0, 0, width, height
    low, high = np.min([c[:2] for c in corners], 0), np.max([c[2:] for c in corners], 0)
    # A tenth of room on each side; never under a third of the image, so that one still knows where one is.
    share = float(np.clip(1.2 * ((high - low) / (width, height)).max(), 1 / 3, 1.0))
    size = np.array([share * width, share * height])
    start = np.clip((low + high - size) / 2, 0, (width, height) - size)
    x0, y0 = np.floor(start).astype(int).tolist()
    return x0, y0, min(math.ceil(start[0] + size[0]), width), min(math.ceil(start[1] + size[1]), height)


def _draw_prompts(axis: Any, panel: Panel) -> None:
    if panel.region is not None:
        _rectangle(axis, as_array(panel.region).tolist(), REGION, (0, (4, 2)), 1.6)
    if panel.box is not None:
        _rectangle(axis, (as_array(panel.box) + 0.5).tolist(), BOX, "-", 1.6)
    if panel.points is None or panel.labels is None:
        if panel.box is None:
            note(axis, "no points, no box", "white")
        return
    points, labels = as_array(panel.points), panel.labels.detach().cpu().numpy()
    for label, colour, marker, size in ((1, LESION, "*", 140), (0, BACKGROUND, "X", 60)):
        x, y = points[labels == label].T
        axis.scatter(x, y, s=size, c=colour, marker=marker, edgecolors="white", linewidths=0.8, zorder=5)


def _rectangle(axis: Any, edges: Sequence[float | int], colour: str, style: Any, width: float) -> None:
    x0, y0, x1, y1 = edges
    frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour)
    frame.set(linewidth=width, linestyle=style, path_effects=[outline(width)])
    axis.add_patch(frame)


def _legend(panels: Sequence[Panel]) -> list[Line2D]:
    def marker(colour: str, sign: str, label: str) -> Line2D:
        size = 12 if sign == "*" else 9
        return Line2D([0], [0], color=colour, marker=sign, ms=size, mec="white", linestyle="", label=label)

    entries = [
        Line2D([], [], color=COARSE, linewidth=1.5, label="coarse"),
        Line2D([], [], color=REFINED, linewidth=1.5, label="refined"),
        # White lines would vanish on the page: the legend draws the truth in black.
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="truth (white)"),
    ]
    if any(panel.points is not None for panel in panels):
        entries += [marker(LESION, "*", "lesion point"), marker(BACKGROUND, "X", "background point")]
    if any(panel.box is not None for panel in panels):
        entries.append(Line2D([], [], color=BOX, linewidth=1.5, label="box prompt"))
    if any(panel.region is not None for panel in panels):
        entries.append(Line2D([], [], color=REGION, linewidth=1.5, linestyle=(0, (4, 2)), label="region SAM sees"))
    return entries


def _check(panel: Panel) -> None:
    fields = ("coarse_probability", "refined_probability", "target")
    check_row(panel.name, panel.image, {field: getattr(panel, field) for field in fields}, panel.threshold)
    if panel.points is not None and (panel.labels is None or len(panel.labels) != len(panel.points)):
        message = f"labels of panel {panel.name!r} must give one label a point; got {panel.labels}."
        raise ValueError(message)
