"""A picture of what a network looks at: image and contours, then each map over the image, one row an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ultrarefiner.data.palette import COARSE, REGION, TRUTH
from ultrarefiner.evaluation.drawing import contour, note, show_image

_SIDE = 2.3  # inches a picture
_STRENGTH = 0.75  # opacity of a map where it is 1
_COLOURS = "viridis"


def draw_saliency(
    images: Float[Tensor, "b c h w"],
    targets: Float[Tensor, "b 1 h w"],
    probability: Float[Tensor, "b 1 h w"],
    maps: Mapping[str, Float[Tensor, "b 1 h w"]],
    *,
    asked: Mapping[str, Float[Tensor, "b 1 h w"]] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw one row an image: the image with the true and the predicted contour, then each map over the image.

    A map is the more opaque the larger it is; where it is 0 the image alone is seen, and a map without any value over 0
    says so. All maps share one colour bar. Truth and prediction are drawn at 0.5; an empty prediction says so.

    Args:
        images: grey or RGB in [0, 1].
        targets: the true masks, drawn dashed in every picture.
        probability: the predicted masks.
        maps: titles to maps in [0, 1], from left to right.
        asked: for some of the titles, the pixels that the map was asked about; their outline is drawn.
        names: what to write left of each row; None for nothing.

    Returns:
        The figure; write it with ``figure.savefig(path, dpi=110)``.

    Raises:
        ValueError: there is no image or no map, a tensor is not on the images' pixels, a title of ``asked`` is no
            map's, or there is not one name an image.

    Example:
        >>> import torch
        >>> mask = torch.zeros(2, 1, 16, 16)
        >>> mask[..., 4:12, 4:12] = 1.0
        >>> figure = draw_saliency(torch.rand(2, 1, 16, 16), mask, 0.9 * mask, {"Grad-CAM": mask})
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['truth and prediction', 'Grad-CAM']
    """
    asked = asked or {}
    _check(images, {"targets": targets, "probability": probability}, maps, asked)
    if names is not None and len(names) != len(images):
        message = f"names must hold one name an image, {len(images)}; got {len(names)}: {list(names)}."
        raise ValueError(message)
    rows, columns = len(images), 1 + len(maps)
    height = _SIDE * min(max(images.shape[-2] / images.shape[-1], 0.3), 3.0)
    figure = Figure(figsize=(columns * _SIDE + 0.7, rows * height + 1.0), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, image in enumerate(images):
        first, *others = axes[row]
        _picture(first, image, "truth and prediction", titled=row == 0)
        if names is not None:
            first.text(
                -0.04, 0.5, names[row], fontsize=9, rotation=90, ha="right", va="center", transform=first.transAxes
            )
        contour(first, targets[row], TRUTH, "--", 1.2)
        contour(first, probability[row], COARSE, "-", 1.6, say_empty=True)
        for axis, (title, values) in zip(others, maps.items(), strict=True):
            _picture(axis, image, title, titled=row == 0)
            seen = values[row, 0].detach().float().cpu().clamp(0, 1).numpy()
            axis.imshow(seen, cmap=_COLOURS, vmin=0, vmax=1, alpha=_STRENGTH * seen)
            if not (seen > 0).any():
                note(axis, "0 everywhere", "white")
            contour(axis, targets[row], TRUTH, "--", 0.9)
            if title in asked:
                contour(axis, asked[title][row], REGION, "-", 1.4, say_empty=True)
    scale = ScalarMappable(cmap=_COLOURS)
    scale.set_clim(0, 1)
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.01, aspect=30, ticks=[0, 0.5, 1])
    bar.set_label("of each map's maximum", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.legend(handles=_legend(bool(asked)), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _picture(axis: Any, image: Tensor, title: str, *, titled: bool) -> None:
    show_image(axis, image)
    axis.set_axis_off()
    if titled:
        axis.set_title(title, fontsize=9, pad=4)


def _legend(asked: bool) -> list[Line2D]:
    # White lines would vanish on the page: the legend draws the truth in black.
    entries = [
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="truth (white)"),
        Line2D([], [], color=COARSE, linewidth=1.5, label="prediction"),
    ]
    if asked:
        entries.append(Line2D([], [], color=REGION, linewidth=1.5, label="pixels asked about"))
    return entries


def _check(
    images: Tensor, masks: Mapping[str, Tensor], maps: Mapping[str, Tensor], asked: Mapping[str, Tensor]
) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        message = f"images must be (b, 1 or 3, h, w) in [0, 1] with at least one image; got {tuple(images.shape)}."
        raise ValueError(message)
    if not maps:
        message = "maps must hold at least one map to draw; got none. Make one with attention_map or grad_cam."
        raise ValueError(message)
    unknown = sorted(set(asked) - set(maps))
    if unknown:
        message = f"asked must have titles of maps, {sorted(maps)}; got {unknown}."
        raise ValueError(message)
    expected = (len(images), 1, *images.shape[-2:])
    named = {
        **masks,
        **{f"maps[{title!r}]": values for title, values in maps.items()},
        **{f"asked[{title!r}]": values for title, values in asked.items()},
    }
    for name, values in named.items():
        if tuple(values.shape) != expected:
            message = f"{name} must be on the images' pixels, {expected}; got {tuple(values.shape)}. Resize it first."
            raise ValueError(message)
