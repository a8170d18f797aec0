"""Signed distances of the shapes that edits add and take away; negative inside, in pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.simulation.lesions import Lesions


def between(limits: tuple[float, float], uniform: Tensor) -> Tensor:
    """Numbers drawn evenly from a range, one for each uniform number.

    Example:
        >>> between((2.0, 4.0), torch.tensor([0.5]))
        tensor([3.])
    """
    low, high = limits
    return low + (high - low) * uniform


def turns_of(direction: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """The angle of (x, y) from the x axis, in whole turns from -0.5 to 0.5; 0 for no direction.

    Without torch.atan2, which rounds otherwise at the end of a tensor, so that the batch would change the last bit.

    Example:
        >>> turns_of(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, -1.0]]))
        tensor([ 0.0000,  0.2500,  0.5000, -0.1250])
    """
    x, y = direction.unbind(1)
    half = (y / (x.abs() + (x.square() + y.square()).sqrt()).clamp(min=1e-12)).atan() / torch.pi
    return torch.where(x >= 0, half, torch.where(y >= 0, 0.5, -0.5) - half)


def ellipse(
    lesions: Lesions,
    centre: Float[Tensor, "n 2"],
    radius: Float[Tensor, " n"],
    aspect: Float[Tensor, " n"],
    turn: Float[Tensor, " n"],
) -> Float[Tensor, "n h w"]:
    """An ellipse of the area of a disc; exact for a disc, else about right near the border.

    Args:
        lesions: for the pixels.
        centre: (x, y).
        radius: of the disc.
        aspect: long axis over short axis.
        turn: of the long axis from the x axis, in whole turns.
    """
    along, across = _turned(lesions, centre, turn)
    stretch = aspect.sqrt()[:, None, None]
    radius = radius.clamp(min=0.5)[:, None, None]
    reach = ((along / stretch).square() + (across * stretch).square()).sqrt()
    return (reach - radius) / stretch


def capsule(
    lesions: Lesions,
    start: Float[Tensor, "n 2"],
    turn: Float[Tensor, " n"],
    length: Float[Tensor, " n"],
    half_width: Float[Tensor, " n"],
) -> Float[Tensor, "n h w"]:
    """All within ``half_width`` of a line that starts at a point and runs in a direction."""
    along, across = _turned(lesions, start, turn)
    beyond = along - along.clamp(min=0).minimum(length[:, None, None])
    return (beyond.square() + across.square()).sqrt() - half_width[:, None, None]


def strip(
    lesions: Lesions, centre: Float[Tensor, "n 2"], turn: Float[Tensor, " n"], half_width: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """All within ``half_width`` of an endless line through a point."""
    _, across = _turned(lesions, centre, turn)
    return across.abs() - half_width[:, None, None]


def wedge(
    lesions: Lesions, apex: Float[Tensor, "n 2"], turn: Float[Tensor, " n"], span: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """A sector of less than half a turn, open outwards from its apex.

    Args:
        lesions: for the pixels.
        apex: (x, y).
        turn: of its middle from the x axis, in whole turns.
        span: its angle, in whole turns.
    """
    along, across = _turned(lesions, apex, turn)
    half = (torch.pi * span)[:, None, None]
    return across.abs() * half.cos() - along * half.sin()


def _turned(lesions: Lesions, origin: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's position along and across a direction, from an origin."""
    cosine, sine = (2 * torch.pi * turn).cos()[:, None, None], (2 * torch.pi * turn).sin()[:, None, None]
    x, y = lesions.x - origin[:, 0, None, None], lesions.y - origin[:, 1, None, None]
    return cosine * x + sine * y, cosine * y - sine * x
