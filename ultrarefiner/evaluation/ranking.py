"""Which cases to draw: evenly spaced in rank, so that no case is picked by hand."""

from __future__ import annotations

from collections.abc import Sequence


def evenly_ranked(values: Sequence[float], count: int) -> list[int]:
    """Indices from the lowest value to the highest, evenly spaced in rank; a single one is the lowest.

    Example:
        >>> evenly_ranked([0.9, 0.1, 0.5, 0.7], 3), evenly_ranked([0.9, 0.1], 5), evenly_ranked([0.9, 0.1], 0)
        ([1, 3, 0], [1, 0], [])
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    count = min(count, len(order))
    if count < 2:
        return order[:count]
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]
