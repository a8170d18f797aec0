"""Rules that turn a soft mask into one point, differentiably; each is a part that an extractor is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ultrarefiner.ops.boxes import box_profile
from ultrarefiner.ops.coordinates import Frame, pixel_centres
from ultrarefiner.ops.moments import Moments, moments
from ultrarefiner.ops.resample import linear_weights


@dataclass(frozen=True)
class MaskGeometry:
    """What is known about a soft mask when its points are chosen; coordinates in the mask's pixel edges.

    Attributes:
        weight: the mask itself, any floor removed, in float32 or wider.
        moments: its mass, centroid and variance.
        box: its soft box.
        frame: where the mask lies in SAM's frame.
    """

    weight: Float[Tensor, "b k h w"]
    moments: Moments
    box: Float[Tensor, "b k 4"]
    frame: Frame


@dataclass(frozen=True)
class PointChoice:
    """A point of every mask and whether it means anything.

    Attributes:
        points: (x, y) in the mask's pixel edges.
        defined: False where the rule has no answer, such as a background point of a mask that is full.
    """

    points: Float[Tensor, "b k 2"]
    defined: Bool[Tensor, "b k"]


@runtime_checkable
class PointRule(Protocol):
    """What an extractor asks of a point rule."""

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        """Choose one point of every mask."""
        ...


@dataclass(frozen=True)
class Centroid:
    r"""The weighted centroid :math:`\sum P^\gamma x / \sum P^\gamma`.

    It lies outside the lesion when the mask is a ring or has two parts; `MeanShift` does not.

    Attributes:
        gamma: 1 is the plain centroid; 2, the published code's, concentrates it where the network is sure. At least 1,
            since below it the gradient is infinite at P = 0.

    Raises:
        ValueError: gamma is below 1.

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import DifferentiablePromptExtractor
        >>> probability = torch.zeros(1, 1, 32, 32)
        >>> probability[..., 8:17, 4:13] = 1.0
        >>> extract = DifferentiablePromptExtractor(image_size=32, positive=Centroid(gamma=2.0))
        >>> extract(probability).points[0, 0, 0].round()
        tensor([ 8., 12.])
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma < 1:
            message = (
                f"gamma must be at least 1 (its gradient is infinite at P = 0 below that), but it is {self.gamma}."
            )
            raise ValueError(message)

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        """The centroid of every mask; always defined (the middle of the frame where a mask is empty)."""
        found = geometry.moments if self.gamma == 1 else moments(geometry.weight**self.gamma)
        return PointChoice(found.centroid, found.mass > 0)


@dataclass(frozen=True)
class BoxBackground:
    r"""The centroid of the background inside the box: of :math:`(1 - P) \cdot B` with B the sigmoid-edged box.

    Where almost nothing of the box is background (a mask that is full) the point is undefined. The background around a
    symmetric lesion has its centroid *in* the lesion, next to the positive point: this is the seed's rule as it stands.
    `FarCorner` lies in the background.

    Attributes:
        softness: width t of the sigmoid edge as a share of SAM's frame (0.005 is 5 pixels of 1024).

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import DifferentiablePromptExtractor
        >>> probability = torch.zeros(1, 1, 32, 32)
        >>> probability[..., 8:17, 4:13] = 1.0
        >>> extract = DifferentiablePromptExtractor(image_size=32, negative=BoxBackground())
        >>> extract(probability).points[0, 0, 1].round()  # a symmetric lesion: in its middle
        tensor([ 8., 12.])
    """

    softness: float = 0.005

    def __post_init__(self) -> None:
        _refuse_unless_positive("softness", self.softness)

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        """The background point of every mask, from the box's two profiles: no box-sized mask is made."""
        frame, weight = geometry.frame, geometry.weight
        x0, y0, x1, y1 = frame.to_frame(geometry.box).unbind(-1)
        height, width = frame.content
        columns = box_profile(x0, x1, width, softness=self.softness * frame.size[0])
        rows = box_profile(y0, y1, height, softness=self.softness * frame.size[0])
        y, x = pixel_centres(height, rows), pixel_centres(width, columns)
        # What each frame pixel takes from the mask is linear, so sums over the frame are sums over the mask's pixels.
        down = linear_weights(weight.shape[-2], height, scale=frame.scale[0], like=weight, antialias=True)
        across = linear_weights(weight.shape[-1], width, scale=frame.scale[1], like=weight, antialias=True)
        lesion_columns = torch.einsum("bkh,bkhw->bkw", rows @ down, weight)
        lesion_rows = torch.einsum("bkw,bkhw->bkh", columns @ across, weight)
        whole = rows.sum(-1) * columns.sum(-1)
        mass = whole - (lesion_columns * (columns @ across)).sum(-1)
        defined = mass > 1e-3 * whole
        safe_mass = mass.where(defined, 1.0)
        x_sum = rows.sum(-1) * (columns * x).sum(-1) - (lesion_columns * ((columns * x) @ across)).sum(-1)
        y_sum = columns.sum(-1) * (rows * y).sum(-1) - (lesion_rows * ((rows * y) @ down)).sum(-1)
        points = frame.from_frame(torch.stack([x_sum, y_sum], -1) / safe_mass[..., None])
        return PointChoice(points.where(defined[..., None], geometry.moments.centroid.detach()), defined)


@dataclass(frozen=True)
class FarCorner:
    """The corner of the box that is farthest from the centroid: the negative point of the published code.

    Piecewise smooth: the gradient is that of the chosen corner. The corner is kept inside the picture; where P there is
    0.5 or more (a mask that is full) the point is undefined.

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import DifferentiablePromptExtractor
        >>> probability = torch.zeros(1, 1, 32, 32)
        >>> probability[..., 8:17, 4:13] = 1.0
        >>> extract = DifferentiablePromptExtractor(image_size=32, negative=FarCorner())
        >>> x, y = extract(probability).points[0, 0, 1].round().long().tolist()
        >>> probability[0, 0, y, x]
        tensor(0.)
    """

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        """The far corner of every mask's box."""
        height, width = geometry.weight.shape[-2:]
        x0, y0, x1, y1 = geometry.box.unbind(-1)
        x = torch.stack([x0, x1, x0, x1], -1).clamp(0.5, width - 0.5)
        y = torch.stack([y0, y0, y1, y1], -1).clamp(0.5, height - 0.5)
        corners = torch.stack([x, y], -1)
        distance = (corners - geometry.moments.centroid[..., None, :]).square().sum(-1)
        # Ties go to the first corner within a rounding error, so that equal masks get equal corners.
        near_best = distance >= distance.amax(-1, keepdim=True) * (1 - 1e-5)
        chosen = near_best.int().argmax(-1)
        points = torch.gather(corners, -2, chosen[..., None, None].expand(*chosen.shape, 1, 2)).squeeze(-2)
        background = _value_at(geometry.weight.detach(), points.detach()) < 0.5
        return PointChoice(points, (geometry.moments.mass > 0) & background)


@dataclass(frozen=True)
class MeanShift:
    r"""A point that ends inside the lesion, also for rings and for two lesions in one mask.

    It starts at the pixel that lies deepest in the mask (largest mean of the mask over growing windows) and takes a few
    mean-shift steps :math:`x \leftarrow \sum P K x / \sum P K` with a Gaussian K around the present position. The steps
    carry the gradient; the start does not. If a step has left the lesion (P under half of the start's), the start's
    position is kept, with the gradient of the steps.

    Comaniciu and Meer, "Mean shift: a robust approach toward feature space analysis", TPAMI 2002.

    Attributes:
        steps: number of mean-shift steps.
        bandwidth: standard deviation of K as a share of SAM's frame.

    Raises:
        ValueError: bandwidth is not above 0, or steps is below 0.

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import DifferentiablePromptExtractor
        >>> probability = torch.zeros(1, 1, 32, 32)
        >>> probability[..., 8:17, 4:13] = 1.0
        >>> probability[..., 11:14, 7:10] = 0.0  # a ring, with its centroid in the hole
        >>> extract = DifferentiablePromptExtractor(image_size=32, positive=MeanShift())
        >>> x, y = extract(probability).points[0, 0, 0].round().long().tolist()
        >>> probability[0, 0, y, x]
        tensor(1.)
    """

    steps: int = 3
    bandwidth: float = 0.02

    def __post_init__(self) -> None:
        _refuse_unless_positive("bandwidth", self.bandwidth)
        if self.steps < 0:
            message = f"steps must be at least 0, but it is {self.steps}."
            raise ValueError(message)

    def __call__(self, geometry: MaskGeometry) -> PointChoice:
        """The mode of every mask."""
        start = _deepest_pixel(geometry.weight.detach())
        frame = geometry.frame
        vertical, horizontal = (self.bandwidth * frame.size[0] / scale for scale in frame.scale)
        point = start
        for _ in range(self.steps):
            columns = _bell(point[..., 0], geometry.weight.shape[-1], horizontal)
            rows = _bell(point[..., 1], geometry.weight.shape[-2], vertical)
            near_columns = columns * torch.einsum("bkh,bkhw->bkw", rows, geometry.weight)
            near_rows = rows * torch.einsum("bkw,bkhw->bkh", columns, geometry.weight)
            mass = near_columns.sum(-1)
            safe_mass = mass.masked_fill(mass == 0, 1.0)
            x = (near_columns * pixel_centres(columns.shape[-1], columns)).sum(-1) / safe_mass
            y = (near_rows * pixel_centres(rows.shape[-1], rows)).sum(-1) / safe_mass
            point = torch.stack([x, y], -1)
        left = _value_at(geometry.weight.detach(), point.detach()) < 0.5 * _value_at(geometry.weight.detach(), start)
        held = start + (point - point.detach())
        return PointChoice(held.where(left[..., None], point), geometry.moments.mass > 0)


def _refuse_unless_positive(name: str, value: float) -> None:
    if value <= 0:
        message = f"{name} must be above 0, a share of SAM's frame, but it is {value}."
        raise ValueError(message)


def _bell(centre: Tensor, length: int, deviation: float) -> Tensor:
    distance = (pixel_centres(length, centre) - centre[..., None]) / deviation
    return torch.exp(-0.5 * distance.square())


def _deepest_pixel(weight: Tensor) -> Tensor:
    """Where a mask is thickest: P times the sum, over windows of growing size, of their mean to the fourth."""
    height, width = weight.shape[-2:]
    depth = torch.zeros_like(weight)
    side = 3
    while side <= max(3, min(height, width) // 2):
        padding = side // 2
        # Along one axis after the other: a window of n x n in 2n steps.
        along = functional.avg_pool2d(weight, (side, 1), stride=1, padding=(padding, 0))
        mean = functional.avg_pool2d(along, (1, side), stride=1, padding=(0, padding))
        depth = depth + mean**4
        side = side + 2 * max(1, side // 4)
    deepest = (weight * (depth + 1e-6)).flatten(-2).argmax(-1)
    x, y = deepest % width, torch.div(deepest, width, rounding_mode="floor")
    return torch.stack([x, y], -1).to(weight.dtype) + 0.5


def _value_at(weight: Tensor, points: Tensor) -> Tensor:
    height, width = weight.shape[-2:]
    x = points[..., 0].floor().long().clamp(0, width - 1)
    y = points[..., 1].floor().long().clamp(0, height - 1)
    return weight.flatten(-2).gather(-1, (y * width + x)[..., None]).squeeze(-1)
