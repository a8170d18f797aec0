"""The log-barrier that can be crossed: a constraint x <= 0 as a smooth price, finite on both sides."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def log_barrier(x: Float[Tensor, "*shape"], *, t: float = 5.0, margin: float | None = None) -> Float[Tensor, "*shape"]:
    r"""The price of x where x should be at most 0: a logarithm well below 0, a straight line from there on.

    .. math::
        \psi_t(x) = \begin{cases} -\frac{1}{t} \ln(-x) & x \le -\frac{1}{t^2} \\
        t x - \frac{1}{t} \ln \frac{1}{t^2} + \frac{1}{t} & \text{otherwise} \end{cases}

    Value and slope are continuous. The slope is t where the constraint is broken and 1 / (t |x|) where it is met: it
    gets small, and never 0. So a met constraint still pulls; for x < -1 the price is even negative, without a lower
    bound. With a ``margin`` it stops pulling: below ``-margin`` the price stays that of ``-margin`` and the gradient is
    exactly 0. A margin of 1 also keeps the price from falling below 0.

    Source: Kervadec et al., "Constrained deep networks: Lagrangian optimization via log-barrier extensions",
    arXiv 1904.04205. The margin is ours.

    Args:
        x: by how much each constraint is broken; met at 0 and below. NaN stays NaN.
        t: how steep a broken constraint is and how sharp the bend, above 0.
        margin: above 0 and in the unit of x: a constraint met by more than this has no gradient. None: the formula as
            it is published.

    Returns:
        Values of the shape of x, in float32 or wider.

    Raises:
        ValueError: if ``t`` or ``margin`` is not a finite number above 0.

    Example:
        >>> import torch
        >>> log_barrier(torch.tensor([-2.0, -1.0, 0.0, 0.5])).round(decimals=4)
        tensor([-0.1386, -0.0000,  0.8438,  3.3438])
        >>> log_barrier(torch.tensor([-2.0, 0.5]), margin=1.0).round(decimals=4)
        tensor([-0.0000,  3.3438])
    """
    check_barrier(t, margin)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if margin is not None:
        x = x.clamp(min=-margin)
    bend = -1 / t**2
    # Each branch sees only its own side of the bend: no logarithm of a negative number, so no NaN in the gradient.
    met = -(-x.where(x <= bend, bend)).log() / t
    broken = t * x + (1 + 2 * math.log(t)) / t
    return met.where(x <= bend, broken)


class LogBarrier(nn.Module):
    """`log_barrier` with its options kept.

    Args:
        t: how steep a broken constraint is, above 0; 5 in the paper.
        margin: a constraint met by more than this has no gradient; None: the formula as it is published.

    Raises:
        ValueError: if ``t`` or ``margin`` is not a finite number above 0.

    Example:
        >>> import torch
        >>> round(LogBarrier(t=1.0)(torch.tensor(1.0)).item(), 4)
        2.0
    """

    def __init__(self, *, t: float = 5.0, margin: float | None = None) -> None:
        super().__init__()
        check_barrier(t, margin)
        self.t = t
        self.margin = margin

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The price; see `log_barrier`."""
        return log_barrier(x, t=self.t, margin=self.margin)


def check_barrier(t: float, margin: float | None) -> None:
    """Check the numbers of a log-barrier.

    Raises:
        ValueError: if one of them is not a finite number above 0 (``margin`` may be None).

    Example:
        >>> check_barrier(0.0, None)
        Traceback (most recent call last):
        ValueError: t must be a finite number above 0, the slope of a broken constraint; got 0.0. The paper's is 5.
    """
    if not 0 < t < math.inf:
        message = f"t must be a finite number above 0, the slope of a broken constraint; got {t}. The paper's is 5."
        raise ValueError(message)
    if margin is not None and not 0 < margin < math.inf:
        message = (
            f"margin must be a finite number above 0, or None for a barrier that never goes flat; got {margin}. "
            "It is in the unit of the constraint: pixels, or shares of a box."
        )
        raise ValueError(message)
