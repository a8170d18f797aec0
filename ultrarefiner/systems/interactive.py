"""InteractiveSession: a box and clicks into one volume, one after the other, with a way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.types import Clicks


@runtime_checkable
class InteractiveModel(Protocol):
    """What a session asks: `VolumeSegmenter`, or anything of two methods, in 2-D or 3-D."""

    def start(self, volume: Tensor, /) -> Any:
        """What is done once for a volume (1, d, h, w) or an image (c, h, w): encode it."""
        ...

    def segment(self, state: Any, box: Sequence[int] | None, clicks: Clicks, /) -> Tensor:
        """Logits (1, d, h, w) or (1, h, w), by the box, if there is one, and all clicks so far.

        The answer must be the prompts' alone: that is what undoing relies on.
        """
        ...


@dataclass(frozen=True)
class Interaction:
    """One thing that was said.

    Attributes:
        kind: "box" or "click".
        voxels: of a box the first and the last voxel, of a click its own, in the order of the array's axes.
        positive: of a click, whether it lies in the object; None for a box.
    """

    kind: Literal["box", "click"]
    voxels: tuple[int, ...]
    positive: bool | None = None


class InteractiveSession:
    """Segment one object of one volume with a person in the loop.

    The volume is encoded once. Every `box` and `click` is answered at once from what was encoded, and `undo` takes the
    last one back. Prompts are voxel indices in the order of the array's axes. A click may come before a box, a second
    box replaces the first, and neither has to come at all. If an answer fails, the session stays as it was.

    Only the latest logits are kept, whatever the number of clicks.

    Args:
        model: `VolumeSegmenter`, or any object with ``start`` and ``segment``.
        volume: (1, d, h, w), or an image (c, h, w), as the model expects it.
        spacing: a voxel's sides in mm, in the order of the array's axes; None where it is not known.

    Raises:
        ValueError: the volume has another number of axes or NaN, or the spacing is none.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> network = build_segvol("tiny", volume_size=(8, 16, 16))
        >>> session = InteractiveSession(VolumeSegmenter(network), torch.rand(1, 8, 16, 16))
        >>> session.box((2, 4, 4, 6, 12, 12))
        >>> before = session.mask
        >>> session.click((4, 8, 8), positive=True)
        >>> session.undo()
        >>> torch.equal(session.mask, before), len(session.history)
        (True, 1)
    """

    def __init__(
        self,
        model: InteractiveModel,
        volume: Float[Tensor, "*shape"],
        *,
        spacing: Sequence[float] | None = None,
    ) -> None:
        _check_volume(volume)
        self.model = model
        self.size = tuple(int(side) for side in volume.shape[1:])
        self.spacing = _checked_spacing(spacing, len(self.size))
        self._device = volume.device
        self._said: tuple[Interaction, ...] = ()
        self._logits: Tensor | None = None
        self._state = model.start(volume)

    def box(self, box: Sequence[int] | Tensor) -> None:
        """Draw a box around the object, in place of an earlier one.

        Args:
            box: its first and its last voxel: (z0, y0, x0, z1, y1, x1) of a volume, (y0, x0, y1, x1) of an image.

        Raises:
            ValueError: it is no box, is empty, or leaves the volume.
        """
        sides = _whole_numbers(box)
        axes = len(self.size)
        fits = len(sides) == 2 * axes and all(
            0 <= first <= last < side for first, last, side in zip(sides[:axes], sides[axes:], self.size, strict=True)
        )
        if not fits:
            message = (
                f"box must be {2 * axes} whole numbers, the first and then the last voxel inside a volume of "
                f"{self.size}, but it is {box}; the last is at most the size less 1."
            )
            raise ValueError(message)
        self._say((*self._said, Interaction("box", sides)))

    def click(self, position: Sequence[int] | Tensor, positive: bool = True) -> None:
        """Say of one voxel whether it lies in the object.

        Args:
            position: (z, y, x) of a volume, (y, x) of an image.
            positive: True for the object, False for what is not.

        Raises:
            ValueError: it is no voxel, or lies outside the volume.
        """
        voxel = _whole_numbers(position)
        if len(voxel) != len(self.size) or not all(0 <= at < side for at, side in zip(voxel, self.size, strict=True)):
            message = (
                f"position must be {len(self.size)} whole numbers, a voxel from 0 to size - 1 of a volume of "
                f"{self.size}, but it is {position}; it counts voxels, not millimetres."
            )
            raise ValueError(message)
        self._say((*self._said, Interaction("click", voxel, bool(positive))))

    def undo(self) -> None:
        """Take the last box or click back; the answer before it is there again, to the same bits.

        Raises:
            ValueError: nothing was said.
        """
        if not self._said:
            message = "undo must follow a box or a click, but the history is empty; there is nothing to take back."
            raise ValueError(message)
        self._say(self._said[:-1])

    @property
    def history(self) -> tuple[Interaction, ...]:
        """What was said, in order, without what was taken back."""
        return self._said

    @property
    def clicks(self) -> Clicks:
        """The clicks, in order."""
        made = [one for one in self._said if one.kind == "click"]
        if not made:
            return Clicks.none(1, len(self.size))
        return Clicks.at([one.voxels for one in made], positive=[bool(one.positive) for one in made])

    @property
    def drawn_box(self) -> tuple[int, ...] | None:
        """The box that holds; None where there is none."""
        boxes = [one.voxels for one in self._said if one.kind == "box"]
        return boxes[-1] if boxes else None

    @property
    def logits(self) -> Float[Tensor, "*shape"] | None:
        """The latest answer, the session's own; None where nothing was said."""
        return self._logits

    @property
    def probability(self) -> Float[Tensor, "*shape"]:
        """Of the object, for each voxel; 0 where nothing was said."""
        return torch.zeros(1, *self.size, device=self._device) if self._logits is None else self._logits.sigmoid()

    @property
    def mask(self) -> Bool[Tensor, "*shape"]:
        """The object, on the volume's own voxels: a probability above 0.5. Empty where nothing was said."""
        if self._logits is None:
            return torch.zeros(1, *self.size, dtype=torch.bool, device=self._device)
        return self._logits > 0

    @property
    def object_size(self) -> float:
        """Of the mask: in millilitres in 3-D and mm² in 2-D where the spacing is known, otherwise in voxels."""
        voxels = float(self.mask.sum())
        if self.spacing is None:
            return voxels
        return voxels * math.prod(self.spacing) / (1000.0 if len(self.size) == 3 else 1.0)

    def _say(self, said: tuple[Interaction, ...]) -> None:
        earlier = self._said
        self._said = said
        try:
            answer = self.model.segment(self._state, self.drawn_box, self.clicks) if said else None
        except BaseException:
            self._said = earlier
            raise
        self._logits = answer


def _check_volume(volume: Any) -> None:
    if not isinstance(volume, Tensor) or volume.ndim not in (3, 4) or not volume.numel():
        came = f"of the shape {tuple(volume.shape)}" if isinstance(volume, Tensor) else f"a {type(volume).__name__}"
        message = (
            f"volume must be (1, d, h, w), or an image (c, h, w), with at least one voxel, but it is {came}; add the "
            "channel with volume[None]."
        )
        raise ValueError(message)
    low, high = (float(value) for value in volume.detach().aminmax())
    if low != low or high != high:
        message = "volume must not hold NaN, but it does; replace it by the value of the background (torch.nan_to_num)."
        raise ValueError(message)


def _checked_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    sides = tuple(float(side) for side in spacing)
    if len(sides) != axes or not all(side > 0 and math.isfinite(side) for side in sides):
        message = f"spacing must be {axes} numbers above 0, in mm, one for each axis, but it is {tuple(spacing)}."
        raise ValueError(message)
    return sides


def _whole_numbers(values: Any) -> tuple[int, ...]:
    plain = values.flatten().tolist() if isinstance(values, Tensor) else values
    if not isinstance(plain, Sequence) or isinstance(plain, str) or not all(isinstance(one, Integral) for one in plain):
        return ()
    return tuple(int(one) for one in plain)
