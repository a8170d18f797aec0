"""Pictures and volumes for the folders that tests make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from phantom_files import ORGANS, write_phantoms
from PIL import Image

from ultrarefiner.data import VolumeFiles, prepare_volumes

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Save a picture under tmp_path: of one value or colour in the box (top, bottom, left, right), black around it."""

    def save(
        name: str,
        value: int | tuple[int, int, int] = 255,
        *,
        size: tuple[int, int] = (6, 8),
        box: tuple[int, int, int, int] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.atleast_1d(np.array(value, dtype=np.uint8))
        pixels = np.zeros((*size, len(colour)), dtype=np.uint8)
        top, bottom, left, right = box or (0, size[0], 0, size[1])
        pixels[top:bottom, left:right] = colour
        Image.fromarray(pixels[..., 0] if len(colour) == 1 else pixels).save(path)
        return path

    return save


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VolumeFiles]]:
    """A folder of prepared volumes, and the files that they were made of."""
    root = tmp_path_factory.mktemp("volumes")
    files = write_phantoms(root)
    prepare_volumes(files, root / "ready", organs=ORGANS, dtype="float32", progress=False)
    return root / "ready", files
