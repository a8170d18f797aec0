"""What all pictures share, and which cases they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from ultrarefiner.evaluation.drawing import short_name, show_image, write_figure
from ultrarefiner.evaluation.panel_check import check_row
from ultrarefiner.evaluation.ranking import evenly_ranked


def test_a_picture_has_the_format_of_its_ending_and_the_resolution(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    for name, kind in (("a.png", "PNG"), ("no ending", "PNG"), ("new/b.jpg", "JPEG")):
        write_figure(figure, tmp_path / name, dots_per_inch=30)
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.size) == (kind, (60, 30))
    write_figure(figure, str(tmp_path / "a.png"), dots_per_inch=60, facecolor="red")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.size, picture.convert("RGB").getpixel((0, 0))) == ((120, 60), (255, 0, 0))


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.nothing").write_text("old")
    with pytest.raises(ValueError, match="nothing"):
        write_figure(Figure(), tmp_path / "a.nothing", dots_per_inch=30)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_images_are_shown_grey_or_in_colour_and_never_stretched() -> None:
    axis = Figure().add_subplot()
    show_image(axis, torch.full((1, 2, 3), 0.25))
    show_image(axis, torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 2, 3))
    grey, colour = axis.images
    assert grey.get_array().shape == (2, 3)
    assert grey.cmap(grey.norm(0.25))[:3] == pytest.approx((0.25, 0.25, 0.25), abs=0.01)
    assert np.asarray(colour.get_array())[0, 0].tolist() == [0, 0.5, 1]


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=40), st.integers(2, 30))
def test_names_are_cut_at_their_front(name: str, length: int) -> None:
    short = short_name(name, length)
    assert len(short) == min(len(name), length)
    assert short == name or (short[0] == "…" and name.endswith(short[1:]))


def test_a_row_that_cannot_be_drawn_is_refused() -> None:
    image, mask = torch.rand(3, 4, 5), torch.zeros(1, 4, 5)
    check_row("a", image, {"target": mask, "probability": mask}, 0.5)
    for wrong in (torch.rand(2, 4, 5), torch.rand(4, 5)):
        with pytest.raises(ValueError, match=r"image of panel 'a' must be \(1 or 3, h, w\) in \[0, 1\]; got"):
            check_row("a", wrong, {}, 0.5)
    with pytest.raises(ValueError, match=r"probability of panel 'a' must be on the image's pixels, \(1, 4, 5\); got"):
        check_row("a", image, {"target": mask, "probability": mask[:, 1:]}, 0.5)
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"threshold of panel 'a' must be between 0 and 1.*got {threshold}"):
            check_row("a", image, {}, threshold)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1, 1), max_size=20, unique=True), st.integers(0, 25))
def test_cases_are_drawn_from_the_lowest_to_the_highest(values: list[float], count: int) -> None:
    chosen = [values[index] for index in evenly_ranked(values, count)]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(values))
    if chosen:
        assert chosen[0] == min(values)
    if len(chosen) > 1:
        assert chosen[-1] == max(values)
    if len(chosen) > 2:
        ranks = np.diff([sorted(values).index(value) for value in chosen])
        assert ranks.max() - ranks.min() <= 1
