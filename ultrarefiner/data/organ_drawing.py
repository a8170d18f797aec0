"""Tissue of the organ phantoms: smooth random shapes, some of which touch, and their densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ultrarefiner.data.organ_imaging import AIR, smooth_field

ORGANS = ("lobed organ", "neighbour", "round organ", "small organ", "tube")

_FAT = -100.0
_FEWEST = 12  # voxels of an organ; fewer are drawn again
_TRIES = 20
_TEXTURE = 6.0  # HU
_MUSCLE = 0.5  # standard deviations above which fat is muscle
_WARP = 0.07  # of half the volume
_WANDER = (0.2, 0.12)  # how far the tube leaves its middle in rows and columns, in halves of the volume


@dataclass(frozen=True)
class _Grid:
    """Where the voxels are, after a smooth warp, on axes from -1 to 1."""

    z: Tensor
    y: Tensor
    x: Tensor

    def ellipsoid(self, centre: list[float], radii: list[float]) -> Tensor:
        """Below 0 inside, -1 in the centre."""
        total = torch.zeros(())
        for axis, middle, radius in zip((self.z, self.y, self.x), centre, radii, strict=True):
            total = total + ((axis - middle) / radius).square()
        return total.sqrt() - 1


def draw_organs(
    size: tuple[int, int, int], generator: torch.Generator
) -> tuple[Int[Tensor, "d h w"], Float[Tensor, "d h w"]]:
    """Labels of the organs, and the density of every voxel in HU.

    Args:
        size: (slices, rows, columns).
        generator: for all that is random.

    Returns:
        0 for background, i + 1 for ``ORGANS[i]``, every organ with at least 12 voxels; and the densities.

    Example:
        >>> labels, density = draw_organs((16, 32, 32), torch.Generator().manual_seed(0))
        >>> labels.unique().tolist(), density.min().item()
        ([0, 1, 2, 3, 4, 5], -1000.0)
    """
    for _ in range(_TRIES):
        grid = _warped_grid(size, generator)
        labels = _organs(grid, size, generator)
        if bool((torch.bincount(labels.flatten(), minlength=len(ORGANS) + 1) >= _FEWEST).all()):
            break
    else:
        message = f"no volume of {size} voxels held all organs in {_TRIES} attempts; ask for a larger size."
        raise ValueError(message)
    return labels, _density(grid, labels, size, generator)


def _warped_grid(size: tuple[int, int, int], generator: torch.Generator) -> _Grid:
    axes = torch.meshgrid(*((torch.arange(side) + 0.5) / side * 2 - 1 for side in size), indexing="ij")
    return _Grid(*(axis + _WARP * smooth_field((4, 5, 5), size, generator) for axis in axes))


def _organs(grid: _Grid, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """The lobed organ with its neighbour on one side, the round with the small one on the other, a tube between."""
    side = 1.0 if _draw(generator, 0.0, 1.0) < 0.5 else -1.0
    wobble = [0.08 * smooth_field((5, 7, 7), size, generator) for _ in range(4)]

    lobed = [_draw(generator, -0.25, 0.1), _draw(generator, -0.25, 0.0), side * _draw(generator, -0.5, -0.35)]
    parts = [grid.ellipsoid(lobed, [_draw(generator, 0.4, 0.55), _draw(generator, 0.3, 0.4), 0.32])]
    for _ in range(2):
        angle = _draw(generator, 0.0, 2 * math.pi)
        centre = _beside(lobed, angle, (_draw(generator, -0.3, 0.3), 0.3, 0.25))
        parts.append(grid.ellipsoid(centre, [_draw(generator, 0.3, 0.45), 0.22, 0.22]))
    shapes = {1: torch.stack(parts).amin(0) + wobble[0]}

    angle = _draw(generator, 0.15, 0.6) * math.pi
    clinging = _beside(lobed, angle, (_draw(generator, 0.0, 0.2), 0.45, side * 0.4))
    shapes[2] = grid.ellipsoid(clinging, [_draw(generator, 0.4, 0.6), 0.28, 0.28]) + wobble[1]

    round_one = [_draw(generator, -0.1, 0.3), _draw(generator, -0.15, 0.2), side * _draw(generator, 0.4, 0.5)]
    radii = [_draw(generator, 0.45, 0.65), _draw(generator, 0.24, 0.32), _draw(generator, 0.22, 0.3)]
    shapes[3] = grid.ellipsoid(round_one, radii) + wobble[2]

    angle = _draw(generator, 0.0, 2 * math.pi)
    touching = _beside(round_one, angle, (_draw(generator, -0.2, 0.2), radii[1], radii[2]))
    shapes[4] = grid.ellipsoid(touching, [_draw(generator, 0.25, 0.4), 0.15, 0.15]) + wobble[3]
    shapes[5] = _tube(grid, side, min(size[1:]), generator)

    labels = torch.zeros(size, dtype=torch.long)
    # What is painted later lies in front: the neighbour gives way to the lobed organ, the round one to the small one.
    for number in (2, 1, 3, 4, 5):
        labels = torch.where(shapes[number] < 0, number, labels)
    return labels


def _beside(centre: list[float], angle: float, distance: tuple[float, float, float]) -> list[float]:
    slices, rows, columns = distance
    return [centre[0] + slices, centre[1] + rows * math.sin(angle), centre[2] + columns * math.cos(angle)]


def _tube(grid: _Grid, side: float, voxels: int, generator: torch.Generator) -> Tensor:
    """Bends through all slices, close to the lobed organ; never thinner than three voxels."""
    phase, turns = _draw(generator, 0.0, 2 * math.pi), _draw(generator, 0.4, 0.8)
    bend = turns * math.pi * grid.z + phase
    y = grid.y - _draw(generator, -0.1, 0.2) - _WANDER[0] * torch.sin(bend)
    x = grid.x - side * _draw(generator, -0.1, 0.05) - _WANDER[1] * torch.cos(bend)
    return torch.hypot(y, x) - max(_draw(generator, 0.07, 0.12), 3.0 / voxels)


def _density(grid: _Grid, labels: Tensor, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Air around a body of fat with muscles in it; organs in front of them."""
    body = torch.hypot(grid.y / 0.92, grid.x / 0.95) < 1
    inside = torch.hypot(grid.y / 0.8, grid.x / 0.83) < 1
    muscle = inside & (smooth_field((4, 7, 7), size, generator) > _MUSCLE)
    first, second = _draw(generator, 40.0, 90.0), _draw(generator, 40.0, 90.0)
    apart = [_draw(generator, 5.0, 25.0) * (1 if _draw(generator, 0.0, 1.0) < 0.5 else -1) for _ in range(4)]
    # Who touches is alike: the neighbour like the lobed organ, the small one like the round, the tube like either.
    levels = [first, first + apart[0], second, second + apart[1], first + apart[2] + 10]
    density = torch.where(body, _FAT, torch.tensor(AIR))
    density = torch.where(muscle, (first + second) / 2 + apart[3], density)
    for number, level in enumerate(levels, start=1):
        density = torch.where(labels == number, level, density)
    texture = _TEXTURE * smooth_field((8, 12, 12), size, generator)
    return torch.where(density > AIR, density + texture, density)


def _draw(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
