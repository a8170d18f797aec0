"""A first, simple set of segmentation failures: too large, too small, shifted, with holes, with a soft edge.

Every size is relative to the lesion: its equivalent radius is that of the disc of its area, sqrt(area / pi).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.simulation.blur import gaussian_blur

Range = tuple[float, float]


@dataclass(frozen=True)
class FailureParameters:
    """The errors of each mask, all lengths in equivalent radii of its lesion.

    Attributes:
        growth: how far the contour moves: outwards if positive (dilation), inwards if negative (erosion).
        rounding: sigma of the blur whose level set is the new contour: corners and thin parts are lost.
        shift: (x, y) displacement.
        hole_position: where in the lesion each of n holes has its centre, in [0, 1): the rank of its pixel.
        hole_radius: the radius of each hole; 0 is no hole.
        softness: sigma of the blur that makes the edge soft.
    """

    growth: Float[Tensor, "b k"]
    rounding: Float[Tensor, "b k"]
    shift: Float[Tensor, "b k 2"]
    hole_position: Float[Tensor, "b k n"]
    hole_radius: Float[Tensor, "b k n"]
    softness: Float[Tensor, "b k"]

    def to(self, like: Tensor) -> FailureParameters:
        """The same parameters on another tensor's device and in its dtype.

        All fields travel to a GPU in one copy from pinned memory, for which nobody waits.

        Args:
            like: a floating-point tensor.

        Example:
            >>> import torch
            >>> drawn = SimpleFailures().draw(2, 1, torch.Generator())
            >>> drawn.to(torch.zeros(1, dtype=torch.float64)).growth.dtype
            torch.float64
        """
        single = [field[..., None] for field in (self.growth, self.rounding, self.softness)]
        packed = torch.cat([*single, self.shift, self.hole_position, self.hole_radius], -1).to(like.dtype)
        if like.is_cuda and not packed.is_cuda:
            packed = packed.pin_memory().to(like.device, non_blocking=True)
        else:
            packed = packed.to(like.device)
        growth, rounding, softness = packed[..., :3].unbind(-1)
        position, hole_radius = packed[..., 5:].chunk(2, -1)
        return FailureParameters(growth, rounding, packed[..., 3:5], position, hole_radius, softness)


def simulate_failures(target: Float[Tensor, "b k h w"], parameters: FailureParameters) -> Float[Tensor, "b k h w"]:
    r"""Give each true mask its errors, the whole batch at once.

    In this order: the mask is blurred with sigma_r = max(rounding, |growth| / 2, half a pixel) and the
    contour becomes the level :math:`\Phi(-growth / \sigma_r)`, which moves a straight edge by exactly
    ``growth``; it is shifted; holes are cut, also at its border, if they are larger than a pixel; the edge is
    blurred by ``softness``, at least half a pixel.

    An empty target stays empty. An erosion never removes the lesion's thickest part, and where softness would take all
    that is left below one half, the mask is scaled until its peak is 0.55. What leaves the frame is lost.

    Args:
        target: the true masks; a pixel above 0.5 is lesion (NaN is not).
        parameters: the errors of each mask, on any device.

    Returns:
        Soft masks in [0, 1] on the target's device, float32 or wider. No gradient is defined.

    Raises:
        ValueError: if the target is not (b, k, h, w), or a field of the parameters has another shape than it should.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 32, 32)
        >>> target[..., 8:24, 8:24] = 1.0
        >>> parameters = SimpleFailures().draw(1, 1, torch.Generator().manual_seed(0))
        >>> simulate_failures(target, parameters).shape
        torch.Size([1, 1, 32, 32])
    """
    _check(target, parameters)
    dtype = torch.promote_types(target.dtype, torch.float32)
    lesion = (target > 0.5).to(dtype)
    parameters = parameters.to(lesion)
    area = lesion.sum((-2, -1))
    radius = (area / torch.pi).sqrt()
    field, level = _contour_field(lesion, radius, parameters)
    field = _shifted(field, radius[..., None] * parameters.shift)
    # The thickest part of a thin lesion stays, unless the shift has carried it out of the frame.
    level = torch.minimum(level, (0.98 * field.amax((-2, -1))).clamp(min=0.01))
    failed = field > level[..., None, None]
    failed = failed & ~_holes(failed, radius, parameters)
    soft = gaussian_blur(failed.to(dtype), (radius * parameters.softness).clamp(min=0.5))
    lift = (0.55 / soft.amax((-2, -1)).clamp(min=1e-6)).clamp(min=1).where(failed.any(-1).any(-1), 1.0)
    soft = soft * lift[..., None, None]
    return soft.masked_fill((area == 0)[..., None, None], 0.0)


def _contour_field(
    lesion: Float[Tensor, "b k h w"], radius: Float[Tensor, "b k"], parameters: FailureParameters
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k"]]:
    growth = radius * parameters.growth
    # A level more than two sigma away would lie in the blur's numerical noise.
    sigma = torch.maximum(radius * parameters.rounding, growth.abs() / 2).clamp(min=0.5)
    field = gaussian_blur(lesion, sigma)
    level: Tensor = torch.special.ndtr(-growth / sigma)
    return field, level


def _shifted(field: Float[Tensor, "b k h w"], shift: Float[Tensor, "b k 2"]) -> Float[Tensor, "b k h w"]:
    height, width = field.shape[-2:]
    theta = torch.zeros(*shift.shape[:2], 2, 3, dtype=field.dtype, device=field.device)
    theta[..., 0, 0] = theta[..., 1, 1] = 1
    # Plain numbers: a tensor of the two sides would have to be copied to the device.
    theta[..., 0, 2] = -2 / width * shift[..., 0]
    theta[..., 1, 2] = -2 / height * shift[..., 1]
    grid = functional.affine_grid(
        theta.flatten(0, 1), [field.shape[0] * field.shape[1], 1, height, width], align_corners=False
    )
    moved = functional.grid_sample(field.flatten(0, 1)[:, None], grid, align_corners=False)
    return moved.reshape(field.shape)


def _holes(lesion: Tensor, radius: Float[Tensor, "b k"], parameters: FailureParameters) -> Tensor:
    height, width = lesion.shape[-2:]
    count = lesion.flatten(2).cumsum(-1)
    # A position just below 1 may be 1 in float32, a rank that no pixel has.
    rank = torch.minimum((parameters.hole_position * count[..., -1:]).floor() + 1, count[..., -1:])
    pixel = torch.searchsorted(count, rank).clamp(max=height * width - 1)
    centre_y, centre_x = (pixel // width)[..., None, None], (pixel % width)[..., None, None]
    y = torch.arange(height, device=lesion.device)[:, None]
    x = torch.arange(width, device=lesion.device)
    size = (radius[..., None] * parameters.hole_radius)[..., None, None]
    size = size.masked_fill(size < 0.5, 0.0)  # smaller than its pixel
    return ((y - centre_y).square() + (x - centre_x).square() < size.square()).any(2)


def _check(target: Tensor, parameters: FailureParameters) -> None:
    if target.ndim != 4:
        message = (
            f"target must be (b, k, h, w), b images with k masks each; got shape {tuple(target.shape)}. "
            "Add the missing axes, for example target[:, None]."
        )
        raise ValueError(message)
    masks = tuple(target.shape[:2])
    holes = (*masks, *parameters.hole_position.shape[-1:])
    wanted = {"growth": masks, "rounding": masks, "softness": masks, "shift": (*masks, 2)}
    for field, shape in {**wanted, "hole_position": holes, "hole_radius": holes}.items():
        came = tuple(getattr(parameters, field).shape)
        if came != shape:
            message = (
                f"parameters must hold one set of errors a mask, (b, k) = {masks}: {field} must be {shape}; "
                f"got {came}. Draw them with SimpleFailures.draw(b, k, generator)."
            )
            raise ValueError(message)


class SimpleFailures:
    """Draws coarse masks that a network might have made, from true masks.

    Each mask draws its own errors: the batch shares no coin. Growth, shift and holes each happen with
    probability ``chance``; rounding and softness always do. With the defaults, nine in ten results for a
    compact lesion have a Dice between 0.57 and 0.96 against the truth, with a median of 0.8.

    Args:
        growth: range of the contour's movement in equivalent radii; negative erodes, positive dilates.
        rounding: range of the rounding blur's sigma, in equivalent radii.
        shift: range of the displacement's length, in equivalent radii; its direction is any.
        holes: the most holes a mask can have; each number from 1 to this is equally likely.
        hole_radius: range of a hole's radius, in equivalent radii.
        softness: range of the soft edge's sigma, in equivalent radii.
        chance: probability of growth, of shift and of holes, each on its own.

    Raises:
        ValueError: if a range is reversed or outside what it can mean, holes is negative or chance no
            probability.

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 1, 32, 32)
        >>> target[..., 8:24, 8:24] = 1.0
        >>> coarse = SimpleFailures()(target, torch.Generator().manual_seed(0))
        >>> bool(coarse.min() >= 0), bool(coarse.max() <= 1), torch.equal(coarse[0], coarse[1])
        (True, True, False)
    """

    def __init__(
        self,
        *,
        growth: Range = (-0.3, 0.35),
        rounding: Range = (0.1, 0.3),
        shift: Range = (0.0, 0.35),
        holes: int = 2,
        hole_radius: Range = (0.15, 0.4),
        softness: Range = (0.03, 0.2),
        chance: float = 0.65,
    ) -> None:
        _check_range("growth", growth, at_least=-1.0)
        _check_range("rounding", rounding, at_least=0.0)
        _check_range("shift", shift, at_least=0.0)
        _check_range("hole_radius", hole_radius, at_least=0.0)
        _check_range("softness", softness, at_least=0.0)
        if holes < 0:
            message = f"holes must be the largest number of holes in a mask, at least 0; got {holes}."
            raise ValueError(message)
        if not 0 <= chance <= 1:
            message = f"chance must be a probability in [0, 1]; got {chance}."
            raise ValueError(message)
        self.growth = growth
        self.rounding = rounding
        self.shift = shift
        self.holes = holes
        self.hole_radius = hole_radius
        self.softness = softness
        self.chance = chance

    def draw(self, b: int, k: int, generator: torch.Generator) -> FailureParameters:
        """Draw the errors of b x k masks, on the generator's device.

        Args:
            b: images.
            k: masks of each image.
            generator: where the randomness comes from; the same state gives the same errors.

        Returns:
            One set of errors a mask.

        Example:
            >>> import torch
            >>> SimpleFailures(holes=2).draw(4, 1, torch.Generator()).hole_radius.shape
            torch.Size([4, 1, 2])
        """
        numbers = torch.rand(b, k, 9 + 2 * self.holes, generator=generator, device=generator.device)
        happens = (numbers[..., :3] < self.chance).to(numbers)
        growth, rounding, length, angle, softness, number = numbers[..., 3:9].unbind(-1)
        position, size = numbers[..., 9:].chunk(2, -1)
        angle = 2 * torch.pi * angle
        shift = torch.stack([angle.cos(), angle.sin()], -1) * _within(length, self.shift)[..., None]
        rank = torch.arange(self.holes, device=numbers.device)
        exists = (rank < 1 + (number * self.holes).floor()[..., None]).to(numbers)
        return FailureParameters(
            growth=happens[..., 0] * _within(growth, self.growth),
            rounding=_within(rounding, self.rounding),
            shift=happens[..., 1:2] * shift,
            hole_position=position,
            hole_radius=happens[..., 2:3] * exists * _within(size, self.hole_radius),
            softness=_within(softness, self.softness),
        )

    def __call__(self, target: Float[Tensor, "b k h w"], generator: torch.Generator) -> Float[Tensor, "b k h w"]:
        """Draw errors and give them to the masks; see `simulate_failures`.

        Args:
            target: the true masks.
            generator: where the randomness comes from; it may live on another device than the target.

        Returns:
            Soft masks in [0, 1] on the target's device. An empty target gives an empty mask.
        """
        return simulate_failures(target, self.draw(target.shape[0], target.shape[1], generator))


def _within(share: Float[Tensor, "b k *n"], bounds: Range) -> Float[Tensor, "b k *n"]:
    return bounds[0] + (bounds[1] - bounds[0]) * share


def _check_range(name: str, bounds: Range, *, at_least: float) -> None:
    if not at_least <= bounds[0] <= bounds[1] < float("inf"):
        message = (
            f"{name} must be (smallest, largest) in equivalent radii of the lesion, at least {at_least:g}; "
            f"got {bounds}."
        )
        raise ValueError(message)
