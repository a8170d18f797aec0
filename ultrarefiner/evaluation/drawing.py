"""What all pictures have in common: the image, contours, notes, names, and how a picture is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from ultrarefiner.checkpoints.files import replaced_file


def write_figure(figure: Figure, path: str | os.PathLike[str], *, dots_per_inch: int, **options: Any) -> None:
    """Write a picture, whole or not at all.

    Args:
        figure: what was drawn.
        path: the file; its ending decides the format, without one it is PNG. Its folder is made.
        dots_per_inch: resolution.
        options: more for matplotlib's ``savefig``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "empty.svg"
        >>> write_figure(Figure(figsize=(1, 1)), path, dots_per_inch=40)
        >>> "<svg" in path.read_text()
        True
    """
    with replaced_file(path) as file:
        figure.savefig(file, format=Path(path).suffix.lstrip(".") or "png", dpi=dots_per_inch, **options)


def show_image(axis: Any, image: Float[Tensor, "c h w"]) -> None:
    """Show a grey or RGB image, 0 black and 1 white whatever its own range."""
    picture = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    grey = picture.shape[2] == 1
    axis.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1)


def short_name(name: str, length: int) -> str:
    """A name in at most so many letters: of a longer one its end, which tells cases of one folder apart.

    Example:
        >>> short_name("benign (7)", 10), short_name("benign (17)", 10)
        ('benign (7)', '…nign (17)')
    """
    return name if len(name) <= length else f"…{name[1 - length :]}"


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
