"""How strong an edit must be for a wanted Dice."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_STEPS = 18


def flip_strength(true: Float[Tensor, "n h w"], edited: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    r"""The strength at which each pixel of an edited mask becomes wrong.

    An edit of strength s is :math:`\phi_s = \phi + s (\phi' - \phi)`. A pixel's value is a straight line in s, so its
    sign changes at most once, at :math:`s = \phi / (\phi - \phi')` if that is positive. Before it the pixel is right,
    after it wrong: what is wrong only grows, and Dice only falls, with s.

    Args:
        true: signed distance of the true mask, never 0.
        edited: the same after edits.

    Returns:
        Positive numbers; infinity where the sign never changes.

    Example:
        >>> flip_strength(torch.tensor([[[-2.0, -2.0, 1.0]]]), torch.tensor([[[2.0, -4.0, 0.5]]]))
        tensor([[[0.5000,    inf, 2.0000]]])
    """
    strength = true / (true - edited)
    return torch.where(strength > 0, strength, torch.inf)


def solve_strength(
    flips: Float[Tensor, "n h w"], inside: Bool[Tensor, "n h w"], low: Float[Tensor, " n"],
    dice: Float[Tensor, " n"], high: Float[Tensor, " n"], *, largest: float,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:  # fmt: skip
    """The strength whose mask has the wanted Dice, by bisection; of both ends, that in the bin and nearer to it.

    It is kept off the strengths at which the pixels next to it flip, where rounding would decide what they are.

    Args:
        flips: the strength at which each pixel becomes wrong.
        inside: the true masks.
        low: lower end of the bin.
        dice: the wanted Dice.
        high: upper end of the bin.
        largest: strengths are not larger.

    Returns:
        Strength, and the Dice it has; outside of the bin where no strength reaches it, NaN for an empty true mask.

    Example:
        >>> inside = torch.tensor([[[True, True, True, False]]])
        >>> flips = torch.tensor([[[torch.inf, torch.inf, 0.5, 1.5]]])
        >>> wanted = torch.tensor([0.75]), torch.tensor([0.78]), torch.tensor([0.85])
        >>> strength, dice = solve_strength(flips, inside, *wanted, largest=2.0)
        >>> round(strength.item(), 3), round(dice.item(), 3)  # one of three is missing: 2 * 2 / (2 + 3)
        (1.25, 0.8)
    """
    flips = flips.flatten(1)
    inner = torch.where(inside.flatten(1), flips, torch.inf)
    area = inside.flatten(1).sum(1, dtype=torch.float32)
    # Written over again and again: on a CPU new memory would take longer than what is done in it.
    flipped = torch.empty_like(flips)

    def dice_at(strength: Tensor) -> Tensor:
        wrong = torch.le(flips, strength[:, None], out=flipped).sum(1)
        missing = torch.le(inner, strength[:, None], out=flipped).sum(1)
        return 2 * (area - missing) / (2 * area - 2 * missing + wrong)

    weak = torch.zeros_like(dice)
    strong = torch.full_like(dice, largest)
    for _ in range(_STEPS):
        middle = (weak + strong) / 2
        enough = dice_at(middle) <= dice
        weak, strong = torch.where(enough, weak, middle), torch.where(enough, middle, strong)
    of_weak, of_strong = dice_at(weak), dice_at(strong)
    first = distance_to_bin(of_weak, low, dice, high) <= distance_to_bin(of_strong, low, dice, high)
    strength, found = torch.where(first, weak, strong), torch.where(first, of_weak, of_strong)
    before = flips <= strength[:, None]
    last = torch.where(before, flips, 0.0).amax(1)
    following = torch.where(before, torch.inf, flips).amin(1).clamp(max=largest)
    margin = (following - last) / 4
    return torch.maximum(torch.minimum(strength, following - margin), last + margin), found


def distance_to_bin(
    found: Float[Tensor, " n"], low: Float[Tensor, " n"], dice: Float[Tensor, " n"], high: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """How far a Dice is from the wanted one: outside of the bin farther than all inside, and perfect still farther.

    Example:
        >>> low, dice, high = torch.tensor([0.6]), torch.tensor([0.7]), torch.tensor([0.8])
        >>> [round(distance_to_bin(torch.tensor([found]), low, dice, high).item(), 2) for found in (0.65, 0.5, 1.0)]
        [0.05, 1.2, 3.3]
    """
    return (found - dice).abs() + ((found < low) | (found > high)) + 2 * (found >= 1)
