r"""Exact Euclidean and signed distance of masks, batched, in 2-D and 3-D, with any spacing, on any device.

A squared distance is separable. With :math:`g` the squared distance along the axes seen so far, one more axis makes it
:math:`\min_j g_j + (i - j)^2`, the lower envelope of parabolas (Felzenszwalb and Huttenlocher, "Distance Transforms of
Sampled Functions", Theory of Computing 2012). Where the spacing is the same along every axis this is done in whole
numbers, so it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

# No temporary of the envelopes holds more numbers than this (or than one line). On a CPU it stays in the cache.
_CPU_ELEMENTS = 2**17
_DEVICE_ELEMENTS = 2**22
# On a CPU masks go through all steps in groups of at most so many pixels (or one by one).
_CPU_GROUP = 2**18
# Pixels of a tile (a multiple of 8): its parabolas are those between the best at its two ends. Along a short line every
# parabola is tried.
_TILE = 16
_SHORT_LINE = 64
_LARGEST_INTEGER = 2**31 - 1


def distance_transform(
    mask: Shaped[Tensor, "b k *space"], spacing: Sequence[float] | None = None
) -> Float[Tensor, "b k *space"]:
    r"""Euclidean distance of every pixel inside a mask to the nearest pixel outside it; 0 outside.

    .. math:: d_i = \min_{j \notin M} \sqrt{\textstyle\sum_a s_a^2 (i_a - j_a)^2}

    Distances are between pixel centres and what lies beyond the frame is not outside, as in
    ``scipy.ndimage.distance_transform_edt``. No gradient is defined: the result carries none. Memory beyond a few
    copies of the mask is bounded whatever its size.

    Args:
        mask: (b, k, h, w) or (b, k, d, h, w). True, or a number above 0.5, is inside.
        spacing: size of a pixel along each axis of space, in the mask's order ((h, w) or (d, h, w)); None is 1 along
            each.

    Returns:
        float32, in the units of the spacing. Empty mask: 0 everywhere. A mask without a single pixel outside:
        infinity everywhere (scipy's answer there is meaningless).

    Raises:
        ValueError: the mask is neither 2-D nor 3-D or holds NaN; the spacing has another length or is not positive.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
        >>> distance_transform(mask[None, None])
        tensor([[[[3.0000, 2.0000, 1.0000, 0.0000],
                  [3.1623, 2.2361, 1.4142, 1.0000]]]])
    """
    return squared_distance_transform(mask, spacing).sqrt_().float()


def squared_distance_transform(
    mask: Shaped[Tensor, "b k *space"], spacing: Sequence[float] | None = None
) -> Float[Tensor, "b k *space"]:
    """The square of `distance_transform`: exact whole numbers where ``spacing`` is None.

    With one spacing s along every axis it is that whole number times s². Other spacings are summed in float64 on a CPU
    and in float32 elsewhere.

    Args:
        mask: see `distance_transform`.
        spacing: see `distance_transform`.

    Returns:
        float32; float64 where a square could exceed 2**24, up to which float32 holds every whole number.

    Raises:
        ValueError: see `distance_transform`.

    Example:
        >>> import torch
        >>> squared_distance_transform(torch.tensor([[[[1, 1, 0], [1, 1, 1]]]])).int()
        tensor([[[[4, 1, 0],
                  [5, 2, 1]]]], dtype=torch.int32)
    """
    inside, steps = _checked(mask, spacing)
    return _squared(inside, steps)


def signed_distance(
    mask: Shaped[Tensor, "b k *space"], spacing: Sequence[float] | None = None
) -> Float[Tensor, "b k *space"]:
    r"""Distance to a mask's border: negative inside, positive outside, never 0.

    The border runs between the pixels, half a pixel from the centres on either side:

    .. math:: \phi_i = \begin{cases} h - d_i(M) & i \in M \\ d_i(\bar M) - h & i \notin M \end{cases}
        \qquad h = \tfrac{1}{2} \min_a s_a

    with d the `distance_transform` and :math:`\bar M` the complement, so :math:`\phi(\bar M) = -\phi(M)`. With
    different spacings a border across axis a lies :math:`s_a / 2` from the centres; values there are too far from 0 by
    :math:`s_a / 2 - h`. A larger h would give some pixels the wrong sign. No gradient is defined.

    Args:
        mask: see `distance_transform`.
        spacing: see `distance_transform`.

    Returns:
        float32, in the units of the spacing. Empty mask: infinity everywhere. Full mask: minus infinity everywhere.

    Raises:
        ValueError: see `distance_transform`.

    Example:
        >>> import torch
        >>> signed_distance(torch.tensor([[[[0, 0, 1, 1, 1]]]]))
        tensor([[[[ 1.5000,  0.5000, -0.5000, -1.5000, -2.5000]]]])
    """
    inside, steps = _checked(mask, spacing)
    half = min(steps) / 2
    within = _squared(inside, steps).sqrt_().float().neg_().add_(half)
    beyond = _squared(~inside, steps).sqrt_().float().sub_(half)
    return torch.where(inside, within, beyond)


def _checked(mask: Tensor, spacing: Sequence[float] | None) -> tuple[Tensor, tuple[float, ...]]:
    """Where a mask is, and the spacing along each axis, if they are fit to be measured."""
    if mask.ndim not in (4, 5):
        message = (
            f"mask must be (b, k, h, w) or (b, k, d, h, w), but its shape is {tuple(mask.shape)}; add the missing "
            "dimensions with mask[None, None]."
        )
        raise ValueError(message)
    steps = (1.0,) * (mask.ndim - 2) if spacing is None else tuple(float(step) for step in spacing)
    if len(steps) != mask.ndim - 2 or not all(math.isfinite(step) and step > 0 for step in steps):
        message = (
            f"spacing must hold one positive, finite number for each of the mask's {mask.ndim - 2} axes of space; got "
            f"{spacing}. Give them in the mask's order, (h, w) or (d, h, w), or None."
        )
        raise ValueError(message)
    readable = mask.device.type == "cpu" or torch.is_anomaly_enabled()
    if mask.is_floating_point() and readable and not torch.compiler.is_compiling() and bool(mask.isnan().any()):
        message = (
            "mask must not hold NaN, but it does; look for a division by zero or an overflow (float16) in what made it."
        )
        raise ValueError(message)
    return (mask if mask.dtype == torch.bool else mask > 0.5), steps


def _squared(inside: Tensor, steps: tuple[float, ...]) -> Tensor:
    """Squared distances of every mask, on a CPU as many masks at a time as stay in the cache."""
    masks = inside.flatten(0, 1)
    # MPS has no float64.
    wide = _longest(masks.shape[1:]) > 2**24 and masks.device.type != "mps"
    result = torch.empty(masks.shape, dtype=torch.float64 if wide else torch.float32, device=masks.device)
    if masks.numel():
        group = _CPU_GROUP // masks[0].numel() if masks.device.type == "cpu" else len(masks)
        for part in _chunks(len(masks), group):
            _axis_by_axis(masks[part], steps, result[part])
    return result.view(inside.shape)


def _longest(sizes: Sequence[int]) -> int:
    """The largest squared distance of a frame, in pixels."""
    return sum((size - 1) ** 2 for size in sizes)


def _axis_by_axis(inside: Tensor, steps: tuple[float, ...], result: Tensor) -> None:
    """Distances along the longest axis, then an envelope of parabolas for each other, into ``result``."""
    sizes = inside.shape[1:]
    order = sorted(range(len(sizes)), key=lambda axis: -sizes[axis])
    turned = inside.permute(0, *(1 + axis for axis in order)).contiguous()
    # A distance that none reaches stands for "no pixel outside along this line".
    none = math.isqrt(_longest(sizes)) + 1
    exact = len(set(steps)) == 1
    if exact and 2 * none**2 <= _LARGEST_INTEGER:
        dtype = torch.int32
    else:
        dtype = torch.float64 if inside.device.type == "cpu" else torch.float32
    square = _along_lines(turned, none).to(dtype)
    square.mul_(square)
    if not exact:
        square.masked_fill_(square == none**2, math.inf)
    unit = steps[order[0]]
    for place, axis in enumerate(order[1:], 2):
        step = steps[axis]
        if step != unit:
            square, unit = square * (unit / step) ** 2, step
        lines = square.transpose(place, -1).contiguous()
        square = _envelope(lines.view(-1, sizes[axis])).view(lines.shape).transpose(place, -1)
    result.copy_(square.permute(0, *(1 + order.index(axis) for axis in range(len(sizes)))))
    if exact:
        full = result.flatten(1)[:, 0] >= none**2
        result.masked_fill_(full.view(-1, *(1 for _ in sizes)), math.inf)
    if unit != 1:
        result.mul_(unit**2)


def _along_lines(inside: Tensor, none: int) -> Tensor:
    """Distance along dimension 1 by steps of 1, 2, 4, … pixels, for every distance is a sum of such steps."""
    size = inside.shape[1]
    distance = inside.to(torch.int16 if none + size < 2**15 else torch.int32) * none
    step = 1
    while step < size:
        moved = distance + step
        for to, start in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            nearer = distance[:, to]
            torch.minimum(nearer, moved[:, start], out=nearer)
        step *= 2
    return distance


def _envelope(lines: Tensor) -> Tensor:
    r""":math:`\min_j g_j + (i - j)^2` along every line of (n, length).

    Where g is 0 the answer is. What can be skipped is skipped on a CPU only, for to know it is to wait for the device.
    """
    if lines.device.type != "cpu":
        return _every_parabola(lines, _DEVICE_ELEMENTS)
    count, length = lines.shape
    tiled = functional.pad(lines > 0, (0, -length % _TILE)).view(count, -1, _TILE)
    # Eight booleans are read as one number.
    wanted = tiled.view(torch.int64).any(-1)
    rows = wanted.any(1).nonzero()[:, 0]
    some, best = lines[rows], torch.zeros_like(lines)
    if len(rows) == 0:
        return best
    if length > _SHORT_LINE:
        found = _parabolas_of_tiles(some, wanted[rows], _CPU_ELEMENTS)
    else:
        found = _every_parabola(some, _CPU_ELEMENTS)
    return best.index_copy_(0, rows, found)


def _every_parabola(lines: Tensor, elements: int) -> Tensor:
    best = torch.empty_like(lines)
    count, length = lines.shape
    index = torch.arange(length, dtype=lines.dtype, device=lines.device)
    for columns in _chunks(length, elements // length):
        square = (index[columns, None] - index).square()
        for rows in _chunks(count, elements // square.numel()):
            best[rows, columns] = (lines[rows, None] + square).amin(-1)
    return best


def _parabolas_of_tiles(lines: Tensor, wanted: Tensor, elements: int) -> Tensor:
    r"""The same with few parabolas tried: the best parabola's j never falls as i grows.

    So within a tile it lies between those of the tile's ends. Tiles are taken together by how far these are apart. With
    t the place in a tile that starts at c, a parabola there is :math:`g_j + (c - j)^2 + 2 t (c - j) + t^2`.
    """
    count, length = lines.shape
    lowest, highest = _best_at_ends(lines, elements)
    tiles = lowest.shape[1]
    width = (highest - lowest + 1).mul_(wanted).flatten()
    best = lines.new_zeros(count * tiles, _TILE)
    place = torch.arange(_TILE, dtype=lines.dtype)
    narrower, wide = 0, 4
    while narrower < length:
        wide = min(wide, length)
        chosen = ((width > narrower) & (width <= wide)).nonzero()[:, 0]
        across = torch.arange(wide)[:, None]
        for some in _chunks(len(chosen), elements // (_TILE * wide)):
            part = chosen[some]
            row, tile = part // tiles, part % tiles
            first = lowest.view(-1)[part].clamp_(max=length - wide)
            offset = (tile * _TILE - first - across).to(lines.dtype)
            at_start = lines.take(row * length + first + across).addcmul_(offset, offset)
            values = torch.addcmul(at_start, offset, 2 * place[:, None, None])
            best.index_copy_(0, part, (values.amin(1) + place.square()[:, None]).T)
        narrower, wide = wide, wide * 2
    return best.view(count, -1)[:, :length]


def _best_at_ends(lines: Tensor, elements: int) -> tuple[Tensor, Tensor]:
    """The best parabola's j at the first pixel of every tile, and at the first of the next (the last of the line)."""
    count, length = lines.shape
    starts = torch.tensor([*range(0, length, _TILE), length - 1], dtype=lines.dtype)
    index = torch.arange(length, dtype=lines.dtype)
    square = (starts[:, None] - index).square()
    # The least of value * length + j tells j, several times as fast as argmin.
    packed = lines.dtype == torch.int32
    if packed:
        fits = (int(lines.max()) + length**2) * length <= _LARGEST_INTEGER
        lines = (lines if fits else lines.double()) * length
        square = square.to(lines.dtype) * length + index
    found = torch.empty(count, len(starts), dtype=torch.int64)
    for rows in _chunks(count, elements // square.numel()):
        values = lines[rows, None] + square
        found[rows] = (values.amin(-1) % length).long() if packed else values.min(-1).indices
    return found[:, :-1].contiguous(), found[:, 1:]


def _chunks(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, length, size))
