"""A progress bar where one is wanted and can be drawn."""

from __future__ import annotations

from typing import Any


def progress_bar(total: int, what: str, unit: str, *, shown: bool) -> Any:
    """A bar on a terminal, if tqdm is installed (an extra of training and evaluation); otherwise nothing is drawn.

    Args:
        total: how many there are to do.
        what: stands before the bar.
        unit: what is counted.
        shown: whether one is wanted.

    Returns:
        A context with ``update(count)``.

    Example:
        >>> with progress_bar(3, "read", "case", shown=False) as bar:
        ...     bar.update(1)
    """
    if shown:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return _NoBar()
        return tqdm(total=total, desc=what, unit=unit, disable=None)
    return _NoBar()


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: int) -> None:
        """Nothing is drawn."""
