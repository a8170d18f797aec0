"""Panels: what is drawn lies where it should, at any size of picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from ultrarefiner.prediction import panel
from ultrarefiner.prediction.panel import Drawing, draw_panel, shown_image, shown_size

WHITE = (255, 255, 255)


def drawing(size: tuple[int, int] = (100, 200), *, told: bool = True, masks: bool = True) -> Drawing:
    """A mask in the picture's middle half; point, box and region around it."""
    height, width = shown_size(size)
    mask = torch.zeros(height, width, dtype=torch.bool)
    if masks:
        mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    down, across = float(size[0]), float(size[1])
    return Drawing(
        image=shown_image(torch.zeros(1, *size)),
        size=size,
        coarse=mask,
        refined=mask,
        points=torch.tensor([[across / 2 - 0.5, down / 2 - 0.5], [0.0, 0.0]]) if told else None,
        labels=torch.tensor([1, -1]) if told else None,
        box=torch.tensor([across / 8, down / 8, across * 7 / 8, down * 7 / 8]) - 0.5 if told else None,
        region=torch.tensor([0.0, 0.0, across, down]) if told else None,
        caption=("a name", "an area"),
    )


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def where(picture: Image.Image, colour: str) -> np.ndarray:
    """(row, column) of all pixels of a colour below the titles."""
    found = np.argwhere((np.asarray(picture) == rgb(colour)).all(-1))
    return found[found[:, 0] >= 32]


def test_contours_box_point_and_region_lie_where_they_should() -> None:
    picture = draw_panel(drawing())
    # The picture is shown at (180, 360) from row 32 on; columns of pictures begin at 12, 384 and 756.
    coarse, refined = where(picture, panel.COARSE), where(picture, panel.REFINED)
    assert coarse.min(0).tolist() == [32 + 45, 384 + 90]
    assert coarse.max(0).tolist() == [32 + 134, 384 + 269]
    assert refined.min(0).tolist() == [32 + 45, 756 + 90]
    assert where(picture, panel.BOX).min(0) == pytest.approx([32 + 22.5, 756 + 45], abs=1.5)
    assert where(picture, panel.BOX).max(0) == pytest.approx([32 + 157.5, 756 + 315], abs=1.5)
    assert where(picture, panel.LESION).mean(0) == pytest.approx([32 + 90, 756 + 180], abs=1.5)
    assert where(picture, panel.REGION).min(0) == pytest.approx([32, 756], abs=1.5)
    assert not len(where(picture, panel.BACKGROUND))
    assert np.asarray(picture)[32:212, 12:372].max() == 0


def test_points_at_the_same_place_are_both_seen() -> None:
    plain = drawing()
    both = Drawing(
        **{**plain.__dict__, "points": plain.points[:1].expand(2, 2), "labels": torch.tensor([1, 0])}  # type: ignore[index]
    )
    picture = draw_panel(both)
    for colour in (panel.LESION, panel.BACKGROUND):
        found = where(picture, colour)
        assert len(found) > 10
        assert found.mean(0) == pytest.approx([32 + 90, 756 + 180], abs=1.5)


def test_empty_masks_say_so() -> None:
    one, other = draw_panel(drawing(masks=False, told=False)), draw_panel(drawing(told=False))
    assert 0 < len(where(one, panel.COARSE)) < len(where(other, panel.COARSE))
    assert not len(where(one, panel.REGION))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (700, 500)])
def test_any_size_is_legible(size: tuple[int, int]) -> None:
    picture = draw_panel(drawing(size))
    assert picture.width == 1128
    assert 100 < picture.height < 500
    assert len(where(picture, panel._INK)) > 20


def test_colours_are_shown() -> None:
    shown = drawing()
    red = torch.zeros(3, 180, 360)
    red[0] = 1
    picture = draw_panel(Drawing(red, *(getattr(shown, name) for name in list(shown.__dataclass_fields__)[1:])))
    assert picture.getpixel((100, 100)) == (255, 0, 0)


def test_long_and_odd_captions_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = drawing()
    odd = Drawing(**{**plain.__dict__, "caption": ("乳腺 \udcff " + "word " * 60,)})
    assert draw_panel(odd).height > draw_panel(Drawing(**{**plain.__dict__, "caption": ("short",)})).height
    letters = ImageFont.load_default_imagefont()
    monkeypatch.setattr(ImageFont, "load_default", lambda size=None: letters)
    assert draw_panel(odd).width == 1128
