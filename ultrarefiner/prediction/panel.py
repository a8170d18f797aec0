"""A picture of one prediction: the image, the coarse mask, the refined mask and what SAM was told; Pillow alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ultrarefiner.data.fit import FitToSquare
from ultrarefiner.data.palette import BACKGROUND, BOX, COARSE, LESION, REFINED, REGION

_SIDE = 360  # pixels of a column
_GAP = 12
_PAPER, _INK = "#111111", "#F2F2F2"
_TEXT, _LINE = 15, 20


@dataclass(frozen=True)
class Drawing:
    """What a panel shows. Coordinates are those of the picture's own pixels, whatever size it is shown at.

    Attributes:
        image: as shown (`shown_image`), grey or RGB in [0, 1].
        size: (height, width) of the picture itself.
        coarse: the coarse mask as shown.
        refined: the final mask as shown.
        points: (x, y) of the point prompts in pixel indices, or None.
        labels: 1 for lesion, 0 for background, -1 for no point; None with ``points=None``.
        box: the box prompt in pixel indices, or None.
        region: what SAM looked at in pixel edges, or None for all of it.
        caption: lines below the pictures.
    """

    image: Float[Tensor, "c h w"]
    size: tuple[int, int]
    coarse: Bool[Tensor, "h w"]
    refined: Bool[Tensor, "h w"]
    points: Float[Tensor, "n 2"] | None
    labels: Int[Tensor, " n"] | None
    box: Float[Tensor, " 4"] | None
    region: Float[Tensor, " 4"] | None
    caption: tuple[str, ...]


def shown_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) at which a picture is shown: its longer side fills a column of 360 pixels.

    Example:
        >>> shown_size((4000, 6000)), shown_size((1, 1))
        ((240, 360), (360, 360))
    """
    return FitToSquare(_SIDE).content_size(size)


def shown_image(image: Float[Tensor, "c h w"]) -> Float[Tensor, "c shown_h shown_w"]:
    """A picture at the size at which it is shown.

    Example:
        >>> shown_image(torch.zeros(1, 400, 600)).shape
        torch.Size([1, 240, 360])
    """
    height, width = shown_size(image.shape[-2:])
    return FitToSquare(_SIDE).image(image)[:, :height, :width].clamp(0, 1)


def draw_panel(drawing: Drawing) -> Image.Image:
    """Draw the image, the coarse contour, and the refined contour with box, points and region, with a caption below.

    Contours are drawn inside the masks. An empty mask says so. The panel is 1128 pixels wide whatever the picture's
    size.

    Args:
        drawing: what to show.

    Returns:
        An RGB picture.

    Example:
        >>> shown, mask = torch.zeros(1, 240, 360), torch.zeros(240, 360, dtype=torch.bool)
        >>> draw_panel(Drawing(shown, (40, 60), mask, mask, None, None, None, None, ("nothing",))).size[0]
        1128
    """
    height = max(drawing.image.shape[-2], 3 * _LINE)
    lines = [part for line in drawing.caption for part in textwrap.wrap(_printable(line), 132) or [""]]
    below = 2 * _GAP + _LINE + height
    canvas = Image.new("RGB", (3 * _SIDE + 4 * _GAP, below + (len(lines) + 1) * _LINE + _GAP), _PAPER)
    pen = ImageDraw.Draw(canvas)
    titles = (("image", _INK), ("coarse", COARSE), ("refined", REFINED))
    for column, (title, colour) in enumerate(titles):
        left = _GAP + column * (_SIDE + _GAP)
        _write(pen, (float(left), _GAP - 4.0), title, colour)
        picture = _column(drawing, column)
        top = _GAP + _LINE + (height - picture.height) // 2
        canvas.paste(picture, (left + (_SIDE - picture.width) // 2, top))
        if (column == 1 and not drawing.coarse.any()) or (column == 2 and not drawing.refined.any()):
            _write(pen, (left + 8.0, _GAP + _LINE + 6.0), "empty", colour)
    _legend(pen, drawing, 2.0 * (_SIDE + _GAP) + _GAP + 70, _GAP - 4.0)
    for number, line in enumerate(lines):
        _write(pen, (float(_GAP), float(below + number * _LINE)), line, _INK)
    return canvas.crop((0, 0, canvas.width, below + len(lines) * _LINE + _GAP // 2))


def _column(drawing: Drawing, column: int) -> Image.Image:
    numbers = (drawing.image.expand(3, -1, -1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()
    if column == 1:
        _outline(numbers, drawing.coarse, COARSE)
    if column == 2:
        _outline(numbers, drawing.refined, REFINED)
    picture = Image.fromarray(numbers)
    if column == 2:
        _prompts(ImageDraw.Draw(picture), drawing, (picture.height, picture.width))
    return picture


def _outline(numbers: np.ndarray, mask: Tensor, colour: str, *, width: int = 2) -> None:
    """Colour the pixels of a mask that lie within ``width`` of its border; the picture's border is one."""
    inside = mask.numpy()
    core = inside
    for _ in range(width):
        framed = np.pad(core, 1)
        core = core & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    numbers[inside & ~core] = _rgb(colour)


def _prompts(pen: ImageDraw.ImageDraw, drawing: Drawing, shown: tuple[int, int]) -> None:
    """Region, box and points, from the picture's pixels to those shown."""
    scale = torch.tensor([shown[1] / drawing.size[1], shown[0] / drawing.size[0]])
    limits = torch.tensor([shown[1] - 1.0, shown[0] - 1.0]).repeat(2)

    def place(edges: Tensor) -> list[float]:
        inside = (edges.reshape(-1, 2) * scale).flatten() - 0.5
        numbers: list[float] = torch.minimum(inside.clamp(min=0), limits[: len(inside)]).tolist()
        return numbers

    if drawing.region is not None:
        _dashed(pen, place(drawing.region), REGION)
    if drawing.box is not None:
        x0, y0, x1, y1 = place(drawing.box + 0.5)
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=BOX, width=1)
    if drawing.points is not None and drawing.labels is not None:
        # The lesion's on top and smaller: a background point at the same place, which some rules give, is seen around.
        for label, point in sorted(zip(drawing.labels.tolist(), drawing.points, strict=True), key=lambda one: one[0]):
            if label == 1:
                _marker(pen, place(point + 0.5), LESION)
            elif label == 0:
                _marker(pen, place(point + 0.5), BACKGROUND, radius=8)


def _dashed(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: str, *, dash: int = 6) -> None:
    x0, y0, x1, y1 = box
    for start in np.arange(x0, x1, 2 * dash):
        for y in (y0, y1):
            pen.line((start, y, min(start + dash, x1), y), fill=colour, width=2)
    for start in np.arange(y0, y1, 2 * dash):
        for x in (x0, x1):
            pen.line((x, start, x, min(start + dash, y1)), fill=colour, width=2)


def _marker(pen: ImageDraw.ImageDraw, centre: Sequence[float], colour: str, *, radius: int = 5) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")


def _legend(pen: ImageDraw.ImageDraw, drawing: Drawing, left: float, top: float) -> None:
    """What the lines of the third picture are, those that are there."""
    entries = [
        ("box", BOX, drawing.box is not None),
        ("lesion", LESION, drawing.labels is not None and bool((drawing.labels == 1).any())),
        ("background", BACKGROUND, drawing.labels is not None and bool((drawing.labels == 0).any())),
        ("region", REGION, drawing.region is not None),
    ]
    for title, colour, there in entries:
        if not there:
            continue
        middle = top + 10
        if title == "box":
            pen.rectangle((left, middle - 5, left + 12, middle + 5), outline=colour)
        elif title == "region":
            _dashed(pen, (left, middle - 5, left + 12, middle + 5), colour, dash=3)
        else:
            _marker(pen, (left + 6, middle), colour)
        left += 17
        _write(pen, (left, top), title, colour)
        left += float(pen.textlength(title, font=_font())) + 14


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str) -> None:
    try:
        pen.text(place, text, fill=colour, font=_font())
    except UnicodeEncodeError:  # Pillow without FreeType knows Latin letters alone
        pen.text(place, text.encode("latin-1", "replace").decode("latin-1"), fill=colour, font=_font())


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(_TEXT)
    except (TypeError, OSError):  # Pillow 10.0 has one size
        return ImageFont.load_default()


def _printable(line: str) -> str:
    """Names may hold bytes that are no text."""
    return line.encode("utf-8", "replace").decode()


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)
