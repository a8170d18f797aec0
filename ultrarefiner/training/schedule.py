"""The learning rate's course over a run: a cosine after a warm-up, or a polynomial."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


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


def polynomial_factor(step: int, total: int, *, power: float = 0.9) -> float:
    r"""The factor on every learning rate in one step, of the "poly" schedule.

    .. math:: f(s) = (1 - s / n)^p

    Args:
        step: the step s, from 0 to ``total - 1``.
        total: the number n of steps.
        power: the exponent p.

    Returns:
        A factor in (0, 1]; 1 in the first step.

    Example:
        >>> [round(polynomial_factor(step, 4), 2) for step in range(4)]
        [1.0, 0.77, 0.54, 0.29]

    Chen et al., "DeepLab", TPAMI 2018; TransUNet and MicroSegNet use it with p = 0.9.
    """
    return float((1 - step / total) ** power)


class Schedule(ABC):
    """How the learning rates change over a run: a function of the step and the number of steps alone.

    A schedule is a frozen dataclass that derives from this class; its fields are its settings.
    """

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """The factor on every learning rate in one of all the optimiser's steps, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """`cosine_factor`, its warm-up as a share of the run.

    Args:
        warmup: share of all steps in which the learning rate rises.
        floor: share of the learning rate that is left in the last step.

    Raises:
        ValueError: the warm-up is not in [0, 1), or the floor not in (0, 1].

    Example:
        >>> round(Cosine(warmup=0.5).factor(0, 4), 2)
        0.33
    """

    warmup: float = 0.05
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 < self.floor <= 1):
            message = (
                "warmup must be the share of all steps that warms up, in [0, 1), and floor the share of the "
                f"learning rate that is left at the end, in (0, 1]; they are {self.warmup} and {self.floor}."
            )
            raise ValueError(message)

    def factor(self, step: int, total: int) -> float:
        """See `cosine_factor`."""
        return cosine_factor(step, total, warmup=math.ceil(self.warmup * total), floor=self.floor)


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """`polynomial_factor`.

    Args:
        power: the exponent.

    Raises:
        ValueError: the exponent is not positive.

    Example:
        >>> Polynomial().factor(0, 10)
        1.0
    """

    power: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            message = f"power must be a positive exponent, but it is {self.power}; TransUNet uses 0.9."
            raise ValueError(message)

    def factor(self, step: int, total: int) -> float:
        """See `polynomial_factor`."""
        return polynomial_factor(step, total, power=self.power)
