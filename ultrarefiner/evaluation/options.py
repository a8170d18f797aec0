"""The options that every evaluation has, refused in sentences."""

from __future__ import annotations

from collections.abc import Sized


def check_options(batch_size: int, panels: int, threshold: float) -> None:
    """Raise unless an evaluation's options make sense.

    Raises:
        ValueError: the threshold is not between 0 and 1, batch_size is not positive, or panels is negative.

    Example:
        >>> check_options(8, 0, 0.5)
    """
    if batch_size < 1 or panels < 0:
        message = (
            f"batch_size must be at least 1 and panels at least 0; got {batch_size} and {panels}. Use a batch_size of "
            "1 for the least memory, and panels=0 to draw nothing."
        )
        raise ValueError(message)
    if not 0 < threshold < 1:
        message = (
            f"threshold must be a probability between 0 and 1, both excluded; got {threshold}. At 0 every pixel would "
            "be lesion. It is compared with probabilities, not with logits."
        )
        raise ValueError(message)


def check_cases(cases: Sized) -> None:
    """Raise unless there is a case.

    Raises:
        ValueError: there is none.

    Example:
        >>> check_cases(["case"])
    """
    if len(cases) == 0:
        message = "cases must hold at least one case, but it is empty; check the folder, or the fold's names."
        raise ValueError(message)
