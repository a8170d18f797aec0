"""The learning rate's course: a warm-up, then a cosine down to a floor."""

from __future__ import annotations

import math


def cosine_factor(step: int, total: int, *, warmup: int = 0, floor: float = 0.01) -> float:
    r"""The factor on every learning rate in one step.

    .. math::
        f(s) = \begin{cases} (s + 1) / (w + 1) & s < w \\
        f_0 + (1 - f_0) \, \tfrac12 \left( 1 + \cos \pi \tfrac{s - w}{n - 1 - w} \right) & s \ge w \end{cases}

    A function of the step alone: nothing of it needs storing, and a resumed run goes on where it was.

    Args:
        step: the step s, from 0 to ``total - 1``.
        total: the number n of steps.
        warmup: the number w of steps of linear warm-up.
        floor: the factor :math:`f_0` of the last step; above 0, so that the last epochs still learn.

    Returns:
        A factor in (0, 1].

    Example:
        >>> [round(cosine_factor(step, 6, warmup=2, floor=0.1), 2) for step in range(6)]
        [0.33, 0.67, 1.0, 0.78, 0.33, 0.1]

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017 (without the
    restarts).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, total - 1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
