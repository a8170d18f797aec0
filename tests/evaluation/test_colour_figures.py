"""Pictures of colour images show their colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from ultrarefiner.evaluation.figures import Panel, panel_figure
from ultrarefiner.evaluation.saliency_figure import draw_saliency


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, Any]]:
    """What is given to matplotlib as an image, and its colour map."""
    seen: list[tuple[np.ndarray, Any]] = []
    own = Axes.imshow

    def imshow(axis: Axes, picture: np.ndarray, cmap: Any = None, **options: Any) -> Any:
        seen.append((np.asarray(picture), cmap))
        return own(axis, picture, cmap=cmap, **options)

    monkeypatch.setattr(Axes, "imshow", imshow)
    return seen


@pytest.mark.parametrize(("channels", "shape", "colours"), [(3, (16, 20, 3), None), (1, (16, 20), "gray")])
def test_panels(
    tmp_path: Path, shown: list[tuple[np.ndarray, Any]], channels: int, shape: tuple[int, ...], colours: str | None
) -> None:
    image, mask = torch.rand(channels, 16, 20), torch.zeros(1, 16, 20)
    mask[:, 4:12, 4:12] = 1
    panel_figure([Panel("a", image, mask, mask, mask, None, None, None, None, 1.0, 1.0)], tmp_path / "a.png")
    assert len(shown) == 5
    for picture, colour_map in shown:
        assert (picture.shape, colour_map) == (shape, colours)
        assert np.array_equal(picture, image.permute(1, 2, 0).numpy().reshape(shape))


def test_maps_of_saliency_lie_over_colours(shown: list[tuple[np.ndarray, Any]]) -> None:
    images, mask = torch.rand(1, 3, 16, 20), torch.zeros(1, 1, 16, 20)
    mask[..., 4:12, 4:12] = 1
    draw_saliency(images, mask, mask, {"map": mask})
    whole = [picture for picture, colour_map in shown if colour_map is None]
    assert len(whole) == 2
    assert all(np.array_equal(picture, images[0].permute(1, 2, 0).numpy()) for picture in whole)
