"""What coarse networks get wrong, as edits of a signed distance: what is below 0 afterwards is the wrong mask.

Every edit is a frozen dataclass of ranges. Lengths are relative to the lesion: one radius is that of the disc of its
area, sqrt(area / pi). Edits that `FailureSimulator` scales to a wanted Dice are told the *severity*, 1 - Dice: moves of
the border are proportional to it, radii of what is added or taken away to the root of twice the severity, the share of
the area that must be wrong. So what is drawn is about right, and solving for the strength only settles the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.random_field import WAVES, random_field
from ultrarefiner.simulation.shapes import between, capsule, ellipse, strip, turns_of, wedge

Range = tuple[float, float]


class Edit(ABC):
    """One kind of error. To add one, derive a frozen dataclass and say how many random numbers it needs."""

    uniforms: ClassVar[int]

    @abstractmethod
    def __call__(
        self,
        distance: Float[Tensor, "n h w"],
        lesions: Lesions,
        uniform: Float[Tensor, "n numbers"],
        severity: Float[Tensor, " n"],
    ) -> Float[Tensor, "n h w"]:
        """The edited distance.

        Args:
            distance: signed, of the mask as edited so far.
            lesions: the true masks.
            uniform: numbers in (0, 1), ``uniforms`` for each lesion.
            severity: the wanted 1 - Dice.

        Returns:
            Signed distance of the edited mask, in pixels, negative inside.
        """


@dataclass(frozen=True)
class _BorderMove(Edit):
    """The border moves, all of it or one side."""

    move: Range = (0.8, 1.6)
    one_sided: float = 0.4
    uniforms: ClassVar[int] = 3

    def _moves(self, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        size = (between(self.move, uniform[:, 0]) * severity * lesions.radius)[:, None, None]
        turn = 2 * torch.pi * uniform[:, 1, None, None]
        x, y = lesions.x - lesions.centre[:, 0, None, None], lesions.y - lesions.centre[:, 1, None, None]
        side = (x * turn.cos() + y * turn.sin()) / lesions.radius[:, None, None]
        whole = uniform[:, 2, None, None] >= self.one_sided
        side = side.clamp(0, 1)
        return size * torch.where(whole, 1.0, 2 * side.square() * (3 - 2 * side))


@dataclass(frozen=True)
class OverSegmentation(_BorderMove):
    """The mask is too large, all around or on one side.

    Args:
        move: how far the border moves outwards, in radii at a severity of 1.
        one_sided: probability that only one side moves, then up to twice as far.
    """

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Grow."""
        return distance - self._moves(lesions, uniform, severity)


@dataclass(frozen=True)
class UnderSegmentation(_BorderMove):
    """The mask is too small, all around or on one side.

    Args:
        move: how far the border moves inwards, in radii at a severity of 1.
        one_sided: probability that only one side moves, then up to twice as far.
    """

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Shrink."""
        return distance + self._moves(lesions, uniform, severity)


@dataclass(frozen=True)
class MissingChunk(Edit):
    """A wedge, or a bite at the border, is missing.

    Args:
        radius: of a bite, in radii of the lesion at a share of 1; a wedge's apex lies that far inside of the border.
        wedge: probability of a wedge.
        span: angle of a wedge, in whole turns.
    """

    radius: Range = (1.0, 1.6)
    wedge: float = 0.5
    span: Range = (0.1, 0.25)
    uniforms: ClassVar[int] = 4

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Take it away."""
        radius = between(self.radius, uniform[:, 0]) * (2 * severity).sqrt() * lesions.radius
        edge = lesions.drawn_points(torch.full_like(radius, -1.0), torch.zeros_like(radius), uniform[:, 1:2])[:, 0]
        outwards = edge - lesions.centre
        turn = turns_of(outwards)
        apex = edge - outwards * (radius / outwards.norm(dim=1).clamp(min=1)).clamp(max=1)[:, None]
        sector = wedge(lesions, apex, turn, between(self.span, uniform[:, 2]))
        bite = ellipse(lesions, edge, radius, torch.ones_like(radius), turn)
        missing = torch.where(uniform[:, 3, None, None] < self.wedge, sector, bite)
        return torch.maximum(distance, -missing)


@dataclass(frozen=True)
class InternalHoles(Edit):
    """Holes inside, near the border or deep, with a rim left around them.

    Args:
        count: fewest and most, at most 3.
        radius: of each, in radii of the lesion at a share of 1, divided by the root of their number.
        aspect: long over short axis.
        depth: how deep their centres lie, as a share of the lesion's greatest depth.
        rim: thickness of what is left around them, as a share of that depth; at least a pixel.
    """

    count: tuple[int, int] = (1, 3)
    radius: Range = (0.8, 1.3)
    aspect: Range = (1.0, 2.0)
    depth: Range = (0.2, 1.0)
    rim: float = 0.15
    uniforms: ClassVar[int] = 13

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Cut them out."""
        deepest = lesions.distance.amin((1, 2))
        count = _count(self.count, uniform[:, 0])
        size = (2 * severity / count).sqrt() * lesions.radius
        points = lesions.drawn_points(self.depth[1] * deepest, self.depth[0] * deepest, uniform[:, 1:4])
        inner = lesions.distance + (-self.rim * deepest).clamp(min=1)[:, None, None]
        for hole in range(min(3, self.count[1])):
            radius, aspect, turn = uniform[:, 4 + 3 * hole : 7 + 3 * hole].unbind(1)
            shape = ellipse(
                lesions, points[:, hole], between(self.radius, radius) * size, between(self.aspect, aspect), turn
            )
            distance = torch.where((hole < count)[:, None, None], distance.maximum(-shape.maximum(inner)), distance)
        return distance


@dataclass(frozen=True)
class Bridge(Edit):
    """A tongue from the border outwards, perhaps to a blob: an adhesion.

    Args:
        length: of the tongue, in radii.
        half_width: of the tongue, in radii at a share of 1.
        blob: probability of a blob at its end.
        blob_radius: in radii at a share of 1.
    """

    length: Range = (0.4, 1.2)
    half_width: Range = (0.2, 0.5)
    blob: float = 0.6
    blob_radius: Range = (0.5, 1.1)
    uniforms: ClassVar[int] = 6

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Add it."""
        share = (2 * severity).sqrt() * lesions.radius
        edge = lesions.drawn_points(-torch.ones_like(share), torch.zeros_like(share), uniform[:, :1])[:, 0]
        outwards = edge - lesions.centre
        turn = turns_of(outwards) + 0.2 * (uniform[:, 1] - 0.5)
        length = between(self.length, uniform[:, 2]) * lesions.radius
        added = capsule(lesions, edge, turn, length, (between(self.half_width, uniform[:, 3]) * share).clamp(min=0.7))
        direction = torch.stack([(2 * torch.pi * turn).cos(), (2 * torch.pi * turn).sin()], 1)
        radius = between(self.blob_radius, uniform[:, 4]) * share
        end = ellipse(lesions, edge + length[:, None] * direction, radius, torch.ones_like(radius), turn)
        added = torch.where(uniform[:, 5, None, None] < self.blob, torch.minimum(added, end), added)
        return torch.minimum(distance, added)


@dataclass(frozen=True)
class Islands(Edit):
    """False positives beside the lesion, near or far.

    Args:
        count: fewest and most, at most 5.
        radius: of each, in radii of the lesion at a share of 1, divided by the root of their number.
        aspect: long over short axis.
        gap: how far their centres lie from the border, in radii.
    """

    count: tuple[int, int] = (1, 5)
    radius: Range = (0.7, 1.2)
    aspect: Range = (1.0, 2.0)
    gap: Range = (0.4, 2.5)
    uniforms: ClassVar[int] = 21

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Add them."""
        count = _count(self.count, uniform[:, 0])
        size = (2 * severity / count).sqrt() * lesions.radius
        return torch.minimum(distance, self.drawn(lesions, uniform, size, count))

    def drawn(self, lesions: Lesions, uniform: Tensor, size: Tensor, count: Tensor) -> Tensor:
        """The islands alone, of size (n,) times their radii, as a signed distance (n, h, w)."""
        near, far = (gap * lesions.radius for gap in self.gap)
        points = lesions.drawn_points(near, far, uniform[:, 1:6])
        islands = torch.full_like(lesions.distance, torch.inf)
        for island in range(min(5, self.count[1])):
            radius, aspect, turn = uniform[:, 6 + 3 * island : 9 + 3 * island].unbind(1)
            shape = ellipse(
                lesions, points[:, island], between(self.radius, radius) * size, between(self.aspect, aspect), turn
            )
            islands = torch.where((island < count)[:, None, None], torch.minimum(islands, shape), islands)
        return islands


@dataclass(frozen=True)
class Fragmentation(Edit):
    """Dark strips cut the lesion into pieces.

    Args:
        cuts: fewest and most, at most 3.
        half_width: of each, in radii at a severity of 1, divided by their number.
        offset: farthest from the centroid, in radii.
    """

    cuts: tuple[int, int] = (1, 3)
    half_width: Range = (0.6, 1.2)
    offset: float = 0.5
    uniforms: ClassVar[int] = 13

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Cut."""
        cuts = _count(self.cuts, uniform[:, 0])
        for cut in range(min(3, self.cuts[1])):
            width, turn, x, y = uniform[:, 1 + 4 * cut : 5 + 4 * cut].unbind(1)
            shift = self.offset * (2 * torch.stack([x, y], 1) - 1) * lesions.radius[:, None]
            half_width = between(self.half_width, width) * severity / cuts * lesions.radius
            dark = strip(lesions, lesions.centre + shift, turn, half_width.clamp(min=0.5))
            distance = torch.where((cut < cuts)[:, None, None], torch.maximum(distance, -dark), distance)
        return distance


@dataclass(frozen=True)
class Shift(Edit):
    """The mask lies beside the lesion, perhaps turned.

    Args:
        move: in radii at a severity of 1.
        rotation: largest angle to either side, in whole turns.
    """

    move: Range = (1.2, 2.0)
    rotation: float = 0.06
    uniforms: ClassVar[int] = 3

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Move."""
        size = between(self.move, uniform[:, 0]) * severity * lesions.radius
        turn, angle = 2 * torch.pi * uniform[:, 1], 2 * torch.pi * self.rotation * (2 * uniform[:, 2] - 1)
        x = lesions.x - (lesions.centre[:, 0] + size * turn.cos())[:, None, None]
        y = lesions.y - (lesions.centre[:, 1] + size * turn.sin())[:, None, None]
        cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
        height, width = distance.shape[-2:]
        source = torch.stack(
            [
                2 * (cosine * x + sine * y + lesions.centre[:, 0, None, None]) / width - 1,
                2 * (cosine * y - sine * x + lesions.centre[:, 1, None, None]) / height - 1,
            ],
            -1,
        )
        moved = functional.grid_sample(distance[:, None], source, padding_mode="border", align_corners=False)
        return moved[:, 0]


@dataclass(frozen=True)
class ContourNoise(Edit):
    """The border wanders in and out, smoothly.

    Args:
        amplitude: standard deviation at the border, in radii at a severity of 1.
        length: correlation length, in radii.
        band: how far from the border the noise fades, in radii: there it is 0.6 of that at the border.
    """

    amplitude: Range = (0.8, 1.6)
    length: Range = (0.25, 0.8)
    band: float = 0.6
    uniforms: ClassVar[int] = 2 + 3 * WAVES

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:
        """Wander."""
        size = between(self.amplitude, uniform[:, 0]) * severity * lesions.radius
        length = (between(self.length, uniform[:, 1]) * lesions.radius).clamp(min=1)
        fading = (-0.5 * (distance / (self.band * lesions.radius)[:, None, None]).square()).exp()
        return distance + size[:, None, None] * fading * random_field(uniform[:, 2:], length, lesions.x, lesions.y)


@dataclass(frozen=True)
class BoundaryRoughness(ContourNoise):
    """The border is ragged: contour noise with a short correlation length.

    Args:
        amplitude: standard deviation, in radii at a severity of 1.
        length: correlation length, in radii, at least one pixel.
        band: how far from the border the noise fades, in radii.
    """

    amplitude: Range = (0.5, 1.0)
    length: Range = (0.04, 0.12)
    band: float = 0.12


@dataclass(frozen=True)
class GiantOverSegmentation(Edit):
    """A complete failure: the mask is many times too large.

    Args:
        move: how far the border moves outwards, in radii.
    """

    move: Range = (0.75, 3.0)
    uniforms: ClassVar[int] = 1

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:  # noqa: ARG002 - every edit is called alike
        """Grow."""
        return distance - (between(self.move, uniform[:, 0]) * lesions.radius)[:, None, None]


@dataclass(frozen=True)
class PartialCollapse(Edit):
    """A complete failure: a small piece is all that is found.

    Args:
        rest: radius of the disc that is left, in radii.
    """

    rest: Range = (0.15, 0.4)
    uniforms: ClassVar[int] = 2

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:  # noqa: ARG002 - every edit is called alike
        """Leave a piece."""
        radius = between(self.rest, uniform[:, 0]) * lesions.radius
        point = lesions.drawn_points(lesions.distance.amin((1, 2)), torch.full_like(radius, -0.5), uniform[:, 1:2])
        left = ellipse(lesions, point[:, 0], radius, torch.ones_like(radius), torch.zeros_like(radius))
        return torch.maximum(distance, left)


@dataclass(frozen=True)
class Empty(Edit):
    """A complete failure: nothing is found."""

    uniforms: ClassVar[int] = 0

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:  # noqa: ARG002 - every edit is called alike
        """Nothing within a radius of 0."""
        return distance.clamp(min=0) + lesions.radius[:, None, None]


@dataclass(frozen=True)
class ScatterOnly(Islands):
    """A complete failure: islands are found, the lesion is not.

    Args:
        count: fewest and most, at most 5.
        radius: of each, in radii of the lesion.
        aspect: long over short axis.
        gap: how far their centres lie from the border, in radii.
    """

    count: tuple[int, int] = (2, 5)
    radius: Range = (0.1, 0.35)
    gap: Range = (0.5, 2.5)

    def __call__(self, distance: Tensor, lesions: Lesions, uniform: Tensor, severity: Tensor) -> Tensor:  # noqa: ARG002 - every edit is called alike
        """Replace the lesion."""
        islands = self.drawn(lesions, uniform, lesions.radius, _count(self.count, uniform[:, 0]))
        return torch.maximum(islands, -lesions.distance)


def _count(limits: tuple[int, int], uniform: Tensor) -> Tensor:
    low, high = limits
    return (low + (uniform * (high - low + 1)).floor()).clamp(max=high)
