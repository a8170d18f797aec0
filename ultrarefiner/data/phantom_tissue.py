"""What a phantom is made of: a map of echo strength in decibels, with lesions whose mask is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Tissue:
    """A drawn piece of tissue.

    Attributes:
        echo: strength of the echo of each place, in decibels.
        loss: what is lost on the way to each place and back, in decibels; negative where more arrives than
            elsewhere.
        mask: 1 in lesions.
    """

    echo: Float[Tensor, "h w"]
    loss: Float[Tensor, "h w"]
    mask: Float[Tensor, "h w"]


def draw_tissue(size: tuple[int, int], generator: torch.Generator, *, malignant: bool) -> Tissue:
    """Layers, dark lobules, one or two lesions, shadows.

    Example:
        >>> tissue = draw_tissue((64, 64), torch.Generator().manual_seed(0), malignant=True)
        >>> tissue.mask.unique().tolist()
        [0.0, 1.0]
    """
    draw = _Draw(size, generator)
    echo = _layers(draw)
    for _ in range(draw.integer(2, 6)):
        _add_dark_lobule(draw, echo)
    mask = torch.zeros(size)
    loss = _shadows(draw)
    for _ in range(1 + (draw.number(0.0, 1.0) < 0.15)):
        echo, loss, mask = _lesion(draw, echo, loss, mask, malignant=malignant)
    return Tissue(echo=echo, loss=loss, mask=mask)


class _Draw:
    """Random numbers and the coordinates of one picture; lengths are in units of its shorter side."""

    def __init__(self, size: tuple[int, int], generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator
        unit = min(size)
        self.y = ((torch.arange(size[0]) + 0.5) / unit)[:, None]
        self.x = ((torch.arange(size[1]) + 0.5) / unit)[None, :]
        self.height, self.width = size[0] / unit, size[1] / unit

    def number(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def field(self, rows: int, columns: int) -> Tensor:
        """Smooth noise with mean 0 and standard deviation near 1, made of so many hills down and across."""
        coarse = torch.randn(rows + 3, columns + 3, generator=self.generator)
        return 2.0 * _spline_weights(self.size[0], rows) @ coarse @ _spline_weights(self.size[1], columns).T

    def curve(self, hills: int) -> Tensor:
        """Smooth noise along x, (1, w)."""
        coarse = torch.randn(1, hills + 3, generator=self.generator)
        return 1.4 * coarse @ _spline_weights(self.size[1], hills).T


@lru_cache(maxsize=64)
def _spline_weights(length: int, hills: int) -> Tensor:
    """Cubic B-spline weights, (length, hills + 3), that spread so many steps over so many pixels."""
    position = (torch.arange(length) + 0.5) / length * hills + 1
    distance = (position[:, None] - torch.arange(hills + 3)[None, :]).abs()
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, inner, outer)


def _layers(draw: _Draw) -> Tensor:
    """Skin, fat, gland, fat, muscle, chest wall; each border wavy and lined by a thin bright fascia."""
    height = draw.height
    depths = [
        draw.number(0.02, 0.05),
        draw.number(0.12, 0.32) * height,
        draw.number(0.5, 0.72) * height,
        draw.number(0.74, 0.84) * height,
        draw.number(0.88, 1.05) * height,
    ]
    strengths = [
        4.0,
        draw.number(-16.0, -10.0),
        draw.number(-7.0, -1.0),
        draw.number(-16.0, -9.0),
        draw.number(-12.0, -7.0),
        -22.0,
    ]
    echo = torch.full(draw.size, strengths[0])
    for depth, above, below in zip(depths, strengths[:-1], strengths[1:], strict=True):
        roughness = 0.004 if depth < 0.06 else draw.number(0.012, 0.035)
        below_border = draw.y - (depth + roughness * draw.curve(5) + 0.35 * roughness * draw.curve(16))
        echo += (below - above) * torch.sigmoid(below_border / draw.number(0.004, 0.012))
        echo += _bump(below_border / 0.006) * (draw.number(2.0, 9.0) * torch.sigmoid(2 * draw.curve(6)))
    patches = draw.number(1.0, 3.5) * draw.field(7, 6) + draw.number(1.0, 3.0) * draw.field(20, 14)
    streaks = draw.number(1.0, 2.5) * draw.field(48, 8)
    return echo + patches + streaks + _septa(draw) + _septa(draw)


def _septa(draw: _Draw) -> Tensor:
    """Bright thin lines of connective tissue: where a smooth random field, flat and wide, is zero."""
    lines = _bump(draw.field(draw.integer(8, 16), draw.integer(2, 3)) / draw.number(0.06, 0.14))
    return draw.number(3.0, 11.0) * lines * torch.sigmoid(3 * draw.field(5, 4) - 1)


def _bump(distance: Tensor) -> Tensor:
    """1 at 0, a quarter at 1, and no slow denormal numbers far out, as a Gaussian has."""
    return (1 / (1 + distance.square())).square()


def _outline(draw: _Draw, y: Tensor, x: Tensor, radii: tuple[float, float], *, waves: int, roughness: float) -> Tensor:
    """About the distance to a random contour around the origin, negative inside, in shorter sides."""
    tilt = draw.number(-0.4, 0.4)
    along = (x * math.cos(tilt) + y * math.sin(tilt)) / radii[0]
    across = (y * math.cos(tilt) - x * math.sin(tilt)) / radii[1]
    angles = torch.arange(1024) * (2 * math.pi / 1024)
    orders = torch.arange(2, waves + 1)[:, None]
    amplitudes = roughness * torch.randn(waves - 1, 1, generator=draw.generator) / orders**1.3
    phases = 2 * math.pi * torch.rand(waves - 1, 1, generator=draw.generator)
    inverse = torch.exp(-(amplitudes * torch.cos(orders * angles + phases)).sum(0))
    bins = (torch.atan2(across, along) * (1023 / (2 * math.pi)) + 511.5).long()
    return (torch.hypot(along, across) * inverse[bins] - 1) * math.sqrt(radii[0] * radii[1])


def _add_dark_lobule(draw: _Draw, echo: Tensor) -> None:
    """Draw a fat lobule or a duct into the map: dark and blurred like a lesion, flatter, and none."""
    radius, flatness = draw.number(0.03, 0.09), draw.number(1.3, 3.5)
    x, y = draw.x - draw.number(0.0, draw.width), draw.y - draw.number(0.08, 0.95) * draw.height
    radii = (radius * flatness**0.5, radius / flatness**0.5)
    rows, columns = (
        (y[:, 0].abs() < 3 * radii[0]).nonzero()[:, 0],
        (x[0].abs() < 3 * radii[0]).nonzero()[:, 0],
    )
    window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    outside = _outline(draw, y[window[0]], x[:, window[1]], radii, waves=5, roughness=0.25)
    echo[window] -= draw.number(3.0, 12.0) * torch.sigmoid(-outside / draw.number(0.005, 0.02))


def _lesion(draw: _Draw, echo: Tensor, loss: Tensor, mask: Tensor, *, malignant: bool) -> tuple[Tensor, Tensor, Tensor]:
    radius = 0.07 * (0.23 / 0.07) ** draw.number(0.0, 1.0)
    ratio = draw.number(0.75, 1.35) if malignant else draw.number(1.1, 2.0)
    x, y = draw.x - draw.number(0.2, 0.8) * draw.width, draw.y - draw.number(0.26, 0.6) * draw.height
    waves, roughness = (11, draw.number(0.3, 0.6)) if malignant else (6, draw.number(0.15, 0.5))
    outside = _outline(draw, y, x, (radius * ratio**0.5, radius / ratio**0.5), waves=waves, roughness=roughness)
    lesion = (outside <= 0).float()
    softness = draw.number(0.008, 0.028) if malignant else draw.number(0.003, 0.014)
    inside = torch.sigmoid(-outside / softness)
    within = float((echo * lesion).sum() / lesion.sum().clamp(min=1))
    own = within - draw.number(4.0, 14.0) + draw.number(1.0, 3.0) * draw.field(12, 12)
    rim = draw.number(0.0, 5.0) * _bump((outside - 1.5 * softness) / (1.5 * softness))
    echo = echo + inside * (own - echo) + rim
    path = torch.cumsum(inside, dim=0) / min(draw.size)
    rate = draw.number(10.0, 50.0) if malignant else draw.number(-35.0, 10.0)
    return echo, loss + rate * path, torch.maximum(mask, lesion)


def _shadows(draw: _Draw) -> Tensor:
    """Loss with depth, shadows that hang from bright places, and poor contact at the sides."""
    depth = draw.y / draw.height
    loss = draw.number(0.0, 12.0) * depth + draw.number(5.0, 25.0) * (depth - draw.number(0.3, 0.7)).clamp(min=0) * 2
    loss = loss.expand(draw.size)
    for _ in range(draw.integer(0, 2)):
        middle, half = draw.number(0.0, draw.width), draw.number(0.02, 0.09)
        profile = torch.sigmoid((half - (draw.x - middle).abs()) / (0.3 * half))
        start = torch.sigmoid((draw.y - draw.number(0.05, 0.6) * draw.height) / 0.02)
        loss = loss + draw.number(4.0, 14.0) * profile * start
    for side in (draw.x, draw.width - draw.x):
        if draw.number(0.0, 1.0) < 0.35:
            loss = loss + draw.number(6.0, 18.0) * torch.sigmoid((draw.number(0.02, 0.12) - side) / 0.03)
    return loss
