"""What all pictures have in common: colours, contours, notes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

# Okabe and Ito's palette: told apart with any colour vision, and on grey.
COARSE = "#E69F00"
REFINED = "#56B4E9"
TRUTH = "#FFFFFF"
REGION = "#CC79A7"


def contour(
    axis: Any, mask: Tensor, colour: str, style: str, width: float, *, level: float = 0.5, say_empty: bool = False
) -> None:
    """Draw where a mask crosses a level; a mask below it everywhere draws nothing, or the word "empty"."""
    values = as_array(mask)[0]
    if not (values >= level).any():
        if say_empty:
            note(axis, "empty", colour)
        return
    # A border of zeros closes the contour of a mask that touches the frame.
    x, y = np.arange(-1, values.shape[1] + 1), np.arange(-1, values.shape[0] + 1)
    lines = axis.contour(
        x, y, np.pad(values, 1), levels=[level], colors=[colour], linestyles=[style], linewidths=[width]
    )
    lines.set_path_effects([outline(width)])


def note(axis: Any, text: str, colour: str) -> None:
    """Write into the lower middle of a picture."""
    written = axis.text(0.5, 0.04, text, color=colour, fontsize=8, ha="center", transform=axis.transAxes)
    written.set_path_effects([outline(1.0)])


def outline(width: float) -> Any:
    """A dark rim: a line of any colour is seen on bright tissue too."""
    return withStroke(linewidth=width + 1.2, foreground="#00000080")


def as_array(tensor: Tensor) -> NDArray[np.float64]:
    """For matplotlib, from any device."""
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
