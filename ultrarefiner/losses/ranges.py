"""The numbers of a loss: refused where they would turn it round or make it NaN."""

from __future__ import annotations


def check_not_negative(**numbers: float) -> None:
    """Check that each number, a weight for example, is finite and at least 0.

    Args:
        numbers: each under the name by which the user passed it.

    Raises:
        ValueError: if one is negative, infinite or NaN.

    Example:
        >>> check_not_negative(smooth=1.0, dice_weight=0.0)
        >>> check_not_negative(smooth=-1.0)
        Traceback (most recent call last):
        ValueError: smooth must be a finite number of at least 0; got -1.0.
    """
    for name, number in numbers.items():
        if not 0 <= number < float("inf"):
            message = f"{name} must be a finite number of at least 0; got {number}."
            raise ValueError(message)


def check_share(name: str, number: float | None) -> None:
    """Check that a number lies in [0, 1], or is None.

    Raises:
        ValueError: if it does not.

    Example:
        >>> check_share("alpha", 0.25)
        >>> check_share("alpha", 1.5)
        Traceback (most recent call last):
        ValueError: alpha must be in [0, 1], or None; got 1.5.
    """
    if number is not None and not 0 <= number <= 1:
        message = f"{name} must be in [0, 1], or None; got {number}."
        raise ValueError(message)


def check_start(start: float) -> None:
    """Check that the Dice where protection begins leaves room above it.

    Raises:
        ValueError: if it is outside [0, 1).

    Example:
        >>> check_start(1.0)
        Traceback (most recent call last):
        ValueError: start must be a Dice in [0, 1), where protection begins; got 1.0.
    """
    if not 0 <= start < 1:
        message = f"start must be a Dice in [0, 1), where protection begins; got {start}."
        raise ValueError(message)
