"""A case of the challenge as its own script writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIZE = (5, 8, 9)


BOX = {
    "z_min": 1,
    "z_max": 4,
    "z_mid": 2,
    "z_mid_x_min": 3,
    "z_mid_y_min": 2,
    "z_mid_x_max": 7,
    "z_mid_y_max": 6,
}


def entries(**changes: Any) -> dict[str, Any]:
    """What the challenge's own script writes (np.savez_compressed of lists of dictionaries)."""
    generator = np.random.default_rng(0)
    gts = np.zeros(SIZE, np.uint8)
    gts[1:5, 2:7, 3:8] = 1
    gts[0, 0, 0] = 2
    whole = {
        "imgs": generator.integers(0, 256, SIZE).astype(np.uint8),
        "gts": gts,
        "spacing": (3.0, 0.8, 0.8),
        "boxes": [BOX, {**BOX, "z_min": np.int64(0)}],
        "clicks": [{"fg": [[2, 3, 4], [3, 3, 4]], "bg": [list(np.argwhere(gts == 2)[0])]}, {"fg": [], "bg": []}],
        "prev_pred": gts * 0,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def save(path: Path, **changes: Any) -> Path:
    np.savez_compressed(path, **entries(**changes))
    return path
