"""A progress bar over the windows of a `VolumeSegmenter`, for as long as it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ultrarefiner.data.progress import progress_bar
from ultrarefiner.systems import InteractiveModel, VolumeSegmenter


@contextmanager
def window_bar(model: InteractiveModel, *, shown: bool) -> Iterator[None]:
    """Draw a bar over windows while the block asks for one answer, where the model has windows.

    A model with a ``progress`` of its own keeps it and gets no bar. Without windows nothing is drawn.

    Args:
        model: whatever answers; all but `VolumeSegmenter` are left alone.
        shown: whether a bar is wanted.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> segmenter = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> with window_bar(segmenter, shown=True):
        ...     segmenter.progress is None
        False
        >>> segmenter.progress is None
        True
    """
    if not shown or not isinstance(model, VolumeSegmenter) or model.progress is not None:
        yield
        return
    with ExitStack() as bars:
        drawn: list[Any] = []

        def report(_: int, total: int) -> None:
            if not drawn:
                drawn.append(bars.enter_context(progress_bar(total, "segment", "window", shown=True)))
            drawn[0].update(1)

        model.progress = report
        try:
            yield
        finally:
            model.progress = None
