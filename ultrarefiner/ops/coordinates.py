"""The pixel convention, and the maps between frames: the one place that knows.

Two ways to number a pixel are in use. In pixel *edges* the first pixel spans 0 to 1 and a picture of width ``w``
spans 0 to ``w``: resizing is then a plain multiplication, so everything that is cropped, scaled or pasted is in
edges. In pixel *indices* the first pixel's centre is 0: that is what SAM's prompt encoder is told (it adds the half
pixel itself). An edge coordinate is an index plus one half, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


def index_to_edge(coordinates: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixel indices (first centre at 0) to pixel edges (first pixel from 0 to 1).

    Args:
        coordinates: in pixel indices.

    Returns:
        The same plus one half.

    Example:
        >>> index_to_edge(torch.tensor([0.0, 9.0]))
        tensor([0.5000, 9.5000])
    """
    return coordinates + 0.5


def edge_to_index(coordinates: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixel edges (first pixel from 0 to 1) to pixel indices (first centre at 0); the inverse of `index_to_edge`.

    Args:
        coordinates: in pixel edges.

    Returns:
        The same less one half.

    Example:
        >>> edge_to_index(torch.tensor([0.5, 9.5]))
        tensor([0., 9.])
    """
    return coordinates - 0.5


def pixel_centres(length: int, like: Tensor) -> Float[Tensor, " length"]:
    """Centres of a row of pixels in edge coordinates: 0.5, 1.5, …; float32, or float64 where ``like`` is.

    Args:
        length: number of pixels of the axis.
        like: a tensor whose dtype and device the answer has.

    Returns:
        0.5, 1.5 ... in pixel edges.

    Example:
        >>> pixel_centres(3, torch.zeros(1))
        tensor([0.5000, 1.5000, 2.5000])
    """
    return torch.arange(length, device=like.device, dtype=accumulation_dtype(like)) + 0.5


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which coordinates are summed: float64 for float64, float32 for everything narrower.

    Example:
        >>> accumulation_dtype(torch.zeros(1, dtype=torch.bfloat16))
        torch.float32
    """
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Frame:
    """How a picture lies in SAM's square input: from the top left corner, scaled, the rest padding.

    A mask of another resolution that shows the same field of view lies there too: `of_raster` gives its frame. In edge
    coordinates the map is ``x_frame = x * content_width / source_width``, likewise for y; that is the map of
    segment-anything's ``ResizeLongestSide``.

    Attributes:
        source: (height, width) of the picture in its own pixels.
        content: (height, width) that it covers in the frame.
        size: (height, width) of the frame.

    Example:
        >>> frame = Frame(source=(300, 500), content=(614, 1024), size=(1024, 1024))
        >>> frame.to_frame(torch.tensor([250.0, 150.0]))
        tensor([512., 307.])
    """

    source: tuple[int, int]
    content: tuple[int, int]
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Frame pixels a source pixel, as (vertical, horizontal)."""
        return self.content[0] / self.source[0], self.content[1] / self.source[1]

    def of_raster(self, size: Sequence[int]) -> Frame:
        """The frame of another raster, (height, width), that shows the same field of view."""
        return replace(self, source=(int(size[0]), int(size[1])))

    def to_frame(self, coordinates: Float[Tensor, "*shape xy"]) -> Float[Tensor, "*shape xy"]:
        """Points (x, y) or boxes (x0, y0, x1, y1), in source edges, to frame edges.

        Args:
            coordinates: in source edges; the last axis is x, y, x, y ...

        Returns:
            The same in edges of the frame's pixels.
        """
        vertical, horizontal = self.scale
        return _scale_pairs(coordinates, horizontal, vertical)

    def from_frame(self, coordinates: Float[Tensor, "*shape xy"]) -> Float[Tensor, "*shape xy"]:
        """Points or boxes in frame edges to source edges; the inverse of `to_frame`.

        Args:
            coordinates: in frame edges; the last axis is x, y, x, y ...

        Returns:
            The same in edges of the source's pixels.
        """
        vertical, horizontal = self.scale
        return _scale_pairs(coordinates, 1 / horizontal, 1 / vertical)


def _scale_pairs(coordinates: Tensor, horizontal: float, vertical: float) -> Tensor:
    """Multiply by plain numbers: a tensor of factors would have to wait for its copy to the device."""
    scaled = [coordinates[..., 0::2] * horizontal, coordinates[..., 1::2] * vertical]
    return torch.stack(scaled, -1).flatten(-2)


def stretch_frame(source: Sequence[int], target: Sequence[int]) -> Frame:
    """The frame of a picture that is stretched to another raster, (height, width): one's pixels to the other's.

    Args:
        source: (height, width) of the picture.
        target: (height, width) of the other raster.

    Returns:
        The frame, whose content is the whole target.

    Example:
        >>> stretch_frame((30, 50), (300, 500)).to_frame(torch.tensor([25.0, 15.0]))
        tensor([250., 150.])
    """
    size = (int(target[0]), int(target[1]))
    return Frame(source=(int(source[0]), int(source[1])), content=size, size=size)


def squash_frame(source: Sequence[int], size: int) -> Frame:
    """The frame of a picture that is stretched over the whole square, as MedSAM does.

    Args:
        source: (height, width) of the picture.
        size: side of the square.

    Returns:
        The frame, whose content is the whole square; its two scales differ unless the picture is square.

    Example:
        >>> squash_frame((300, 500), 1024).scale
        (3.413..., 2.048)
    """
    return stretch_frame(source, (size, size))


def pad_frame(source: Sequence[int], size: int) -> Frame:
    """The frame of a picture whose longest side fills the square and that is padded right or below, as SAM does.

    The shorter side is rounded half up, as segment-anything's ``ResizeLongestSide`` does, and at least 1.

    Args:
        source: (height, width) of the picture.
        size: side of the square.

    Returns:
        The frame, whose content is the resized picture at the top left.

    Example:
        >>> pad_frame((300, 500), 1024).content
        (614, 1024)
    """
    height, width = int(source[0]), int(source[1])
    factor = size / max(height, width)
    content = (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
    return Frame(source=(height, width), content=content, size=(size, size))
