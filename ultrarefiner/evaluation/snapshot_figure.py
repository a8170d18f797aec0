"""A picture of predicted masks beside the truth, one row a case: boxes, truth, heat map, mask, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from ultrarefiner.data.palette import REFINED, TRUTH
from ultrarefiner.evaluation.drawing import as_array, contour, outline, short_name
from ultrarefiner.ops.boxes import fill_box, tight_box

_SIDE = 2.3  # inches a picture
_TEXT = 2.0  # inches for the scores
_LOWEST = 1.0  # inches a row, for the scores
_GAP = 0.08  # inches between two pictures
_LEFTS = tuple(_GAP + column * (_SIDE + _GAP) for column in range(5))
_TOP, _BOTTOM = 0.6, 0.6  # inches for the titles, for the legend and the colour bar
_COLOURS = "viridis"
_FILL = 0.45  # opacity of a mask over the image
_DASHES = (0, (4, 2))


@dataclass(frozen=True)
class SnapshotRow:
    """What one row shows; masks are lesion where they are at least 0.5, as in evaluation.

    Attributes:
        name: of the case.
        image: grey or RGB in [0, 1].
        target: the true mask, on the image's pixels.
        probability: the predicted mask.
        height_over_width: of the picture as it is drawn; None for square pixels.
    """

    name: str
    image: Float[Tensor, "c h w"]
    target: Float[Tensor, "1 h w"]
    probability: Float[Tensor, "1 h w"]
    height_over_width: float | None = None


@dataclass(frozen=True)
class SnapshotScores:
    """How good one predicted mask is, and its tight box.

    Attributes:
        dice: of the masks; 1 where both are empty.
        iou: of the masks; 1 where both are empty.
        box_dice: of the two tight boxes, filled; 1 where both masks are empty, 0 where one is.
        share_of_box: pixels of the predicted mask over those of the true box, which a constraint on the size bounds;
            None without a lesion.
    """

    dice: float
    iou: float
    box_dice: float
    share_of_box: float | None


def snapshot_scores(row: SnapshotRow) -> SnapshotScores:
    """Measure one row's predicted mask.

    Args:
        row: probability and truth of one case.

    Returns:
        Dice and IoU of the masks from 0.5 on, Dice of their boxes, and the masks' share of the boxes.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 8, 8)
        >>> target[:, 2:6, 2:6] = 1.0
        >>> snapshot_scores(SnapshotRow("a", target, target, 0.9 * target.roll(2, -1)))
        SnapshotScores(dice=0.5, iou=0.333..., box_dice=0.5, share_of_box=1.0)
    """
    predicted, true = row.probability >= 0.5, row.target >= 0.5
    boxes = [fill_box(mask) > 0 for mask in (predicted, true)]
    area = int(boxes[1].sum())
    union = int((predicted | true).sum())
    return SnapshotScores(
        dice=_dice(predicted, true),
        iou=int((predicted & true).sum()) / union if union else 1.0,
        box_dice=_dice(*boxes),
        share_of_box=int(predicted.sum()) / area if area else None,
    )


def draw_snapshot(rows: Sequence[SnapshotRow], *, title: str = "", boxes_only: bool = False) -> Figure:
    """Draw one row a case: image with boxes, truth, soft mask, mask over the image, scores.

    The colours are those of `segmentation_figure`: the truth white, with dashed boxes and contours, the prediction at
    0.5 blue. A mask without a pixel has no box, and its picture says "empty". The soft mask is a heat map from 0 to 1
    with the true contour.

    Args:
        rows: the cases, from top to bottom.
        title: above all.
        boxes_only: the targets are filled boxes and no masks: their column is called "box" and only boxes are scored.

    Returns:
        The figure; write it with ``figure.savefig(path, dpi=110)``. Its axes are five a row and the colour bar's.

    Raises:
        ValueError: there is no case, or a mask is not on its image's pixels.

    Example:
        >>> import torch
        >>> from ultrarefiner.evaluation import SnapshotRow, draw_snapshot
        >>> mask = torch.zeros(1, 16, 16)
        >>> mask[:, 4:12, 4:12] = 1.0
        >>> figure = draw_snapshot([SnapshotRow("a", torch.rand(1, 16, 16), mask, 0.9 * mask)])
        >>> [axis.get_title() for axis in figure.axes[:4]]
        ['image and boxes', 'truth', 'soft mask', 'mask ≥ 0.5']
    """
    if not rows:
        message = "rows must hold at least one case to draw; got none."
        raise ValueError(message)
    for row in rows:
        _check(row)
    heights = [_SIDE * float(np.clip(_shape(row), 0.3, 3.0)) for row in rows]
    width = _LEFTS[-1] + _TEXT
    total = sum(max(height, _LOWEST) + _GAP for height in heights) + _TOP + _BOTTOM
    figure = Figure(figsize=(width, total), facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.text(0.5, 1 - 0.1 / total, title, fontsize=11, ha="center", va="top")
    top = total - _TOP
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        axes = [
            figure.add_axes((left / width, (top - height) / total, side / width, height / total))
            for left, side in zip(_LEFTS, (*[_SIDE] * 4, _TEXT), strict=True)
        ]
        _draw_row(axes, row, titled=index == 0, boxes_only=boxes_only)
        top -= max(height, _LOWEST) + _GAP
    _draw_key(figure, width, total, boxes_only=boxes_only)
    return figure


def _draw_row(axes: Sequence[Any], row: SnapshotRow, *, titled: bool, boxes_only: bool) -> None:
    boxed, truth, soft, hard, text = axes
    predicted, true = (row.probability >= 0.5).float(), (row.target >= 0.5).float()
    titles = ("image and boxes", "box" if boxes_only else "truth", "soft mask", "mask ≥ 0.5")
    for axis, name in zip((boxed, truth, soft, hard), titles, strict=True):
        _picture(axis, row, heat=axis is soft)
        if titled:
            axis.set_title(name, fontsize=9, pad=4)
    # The dashed truth is on top, so that both are seen where they are one.
    _box(boxed, predicted, REFINED, "-", 1.8)
    _box(boxed, true, TRUTH, _DASHES, 1.2)
    for axis, mask, colour in ((truth, true, TRUTH), (hard, predicted, REFINED)):
        _fill(axis, mask, colour)
        contour(axis, mask, colour, "-", 1.0, say_empty=True)
    for axis in (soft, hard):
        contour(axis, true, TRUTH, "--", 0.9)
    text.set_axis_off()
    text.text(0.02, 1.0, short_name(row.name, 20), fontsize=9, fontweight="bold", va="top", transform=text.transAxes)
    lines = _scores(snapshot_scores(row), boxes_only=boxes_only)
    # Points, not shares of the row: rows are of different height.
    text.annotate(
        lines, (0.02, 1.0), (0, -16), xycoords="axes fraction", textcoords="offset points", fontsize=9, va="top"
    )


def _picture(axis: Any, row: SnapshotRow, *, heat: bool) -> None:
    height, width = row.image.shape[-2:]
    if heat:  # opaque, so that its colours are those of the bar
        picture, colours = as_array(row.probability)[0], _COLOURS
    else:
        picture, colours = as_array(row.image.clamp(0, 1).permute(1, 2, 0)), "gray"
    axis.imshow(picture, cmap=colours, vmin=0, vmax=1, aspect=_shape(row) * width / height)
    # A contour around a mask at the border would widen the axis.
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), anchor="N")
    axis.set_axis_off()


def _box(axis: Any, mask: Tensor, colour: str, style: Any, width: float) -> None:
    if not (mask > 0).any():
        return
    x0, y0, x1, y1 = tight_box(mask[0] > 0).tolist()
    # From pixel edges, where the first pixel spans 0 to 1, to imshow's frame, where it spans -0.5 to 0.5.
    frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour)
    # A box at the border of the image is seen whole.
    frame.set(linewidth=width, linestyle=style, path_effects=[outline(width)], clip_on=False)
    axis.add_patch(frame)


def _fill(axis: Any, mask: Tensor, colour: str) -> None:
    layer = np.zeros((*mask.shape[-2:], 4))
    layer[..., :3] = to_rgb(colour)
    layer[..., 3] = _FILL * as_array(mask)[0]
    axis.imshow(layer, aspect=axis.get_aspect(), interpolation="nearest")


def _scores(scores: SnapshotScores, *, boxes_only: bool) -> str:
    lines = [] if boxes_only else [f"Dice  {scores.dice:.3f}", f"IoU  {scores.iou:.3f}"]
    share = "no lesion" if scores.share_of_box is None else f"mask / true box  {scores.share_of_box:.2f}"
    return "\n".join([*lines, f"Dice of the boxes  {scores.box_dice:.3f}", share])


def _draw_key(figure: Figure, width: float, total: float, *, boxes_only: bool) -> None:
    """Colour bar under the heat maps, legend left of it."""
    axis = figure.add_axes(((_LEFTS[2] + 0.1) / width, 0.4 / total, (_SIDE - 0.2) / width, 0.1 / total))
    scale = ScalarMappable(cmap=_COLOURS)
    scale.set_clim(0, 1)
    bar = figure.colorbar(scale, cax=axis, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.set_label("probability", fontsize=8, labelpad=1)
    axis.tick_params(labelsize=8, pad=1)
    what = "box" if boxes_only else "tight box"
    handles = [
        Line2D([], [], color=REFINED, linewidth=1.8, label="predicted tight box"),
        # A white line would vanish on the page: the legend draws the truth in black.
        Line2D([], [], color="black", linewidth=1.2, linestyle=_DASHES, label=f"true {what} (white)"),
    ]
    place = (0.0, 0.5 * _BOTTOM / total)
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=place, borderaxespad=0.6, ncols=2, frameon=False, fontsize=8
    )


def _shape(row: SnapshotRow) -> float:
    height, width = row.image.shape[-2:]
    return height / width if row.height_over_width is None else row.height_over_width


def _dice(first: Tensor, second: Tensor) -> float:
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def _check(row: SnapshotRow) -> None:
    size, name = tuple(row.image.shape[-2:]), row.name
    if row.image.ndim != 3 or row.image.shape[0] not in (1, 3) or not row.image.numel():
        message = f"image of row {name!r} must be (1 or 3, h, w) in [0, 1]; got {tuple(row.image.shape)}."
        raise ValueError(message)
    for field in ("target", "probability"):
        shape = tuple(getattr(row, field).shape)
        if shape != (1, *size):
            message = f"{field} of row {name!r} must be on the image's pixels, {(1, *size)}; got {shape}."
            raise ValueError(message)
