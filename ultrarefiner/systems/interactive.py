"""InteractiveSession: a box and clicks into one volume, one after the other, with a way back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol, SupportsFloat, SupportsIndex, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_no_nan
from ultrarefiner.systems.told_prompts import told_box, told_label, told_voxel
from ultrarefiner.types import Clicks

Indices = Sequence[SupportsIndex] | Integer[Tensor, "..."] | Integer[np.ndarray, "..."]
"""Whole numbers, which count voxels."""

Truth = bool | np.bool_ | Bool[Tensor, ""] | Bool[np.ndarray, ""]
"""True or False."""


@runtime_checkable
class InteractiveModel(Protocol):
    """What a session asks: `VolumeSegmenter`, or anything of two methods, in 2-D or 3-D.

    Two things more a model may have, and a session then uses them: a keyword ``text`` of ``start``, and an attribute
    ``answers_unprompted``. Where that is True, ``segment`` answers also without a box and a click, as that of
    `CorrectedNetwork` does, and a session shows that answer before anything is said.
    """

    def start(self, volume: Tensor, /) -> Any:
        """What is done once for a volume (1, d, h, w) or an image (c, h, w): encode it.

        Args:
            volume: (1, d, h, w), or an image (c, h, w).

        Returns:
            Whatever the model's ``segment`` takes.
        """
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

    Of the answers the session keeps the latest. What the model keeps besides is its own: `VolumeSegmenter` stays within
    its ``cache_bytes``, whatever the number of clicks, and makes anew, to the same bits, what it dropped.

    A model that is a module is put in evaluation mode and left there, for dropout and the statistics of a batch would
    make an answer more than its prompts'.

    Args:
        model: `VolumeSegmenter`, or any object with ``start`` and ``segment``.
        volume: (1, d, h, w), or an image (c, h, w), as the model expects it.
        text: what names the object, as ``model.start`` takes it: for `VolumeSegmenter` an embedding, of
            `SegVolTextEncoder` for example. It is answered at once, and every answer listens to it; None for none.
        spacing: a voxel's sides in mm, in the order of the array's axes; None where it is not known.

    Raises:
        ValueError: the volume has another number of axes or NaN, the spacing is none, or a text came for a model that
            takes none.

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
        text: Any = None,
        spacing: Sequence[SupportsFloat] | Float[np.ndarray, " axes"] | Float[Tensor, " axes"] | None = None,
    ) -> None:
        _check_volume(volume)
        if text is not None:
            _check_listens(model)
        if isinstance(model, nn.Module):
            model.eval()
        self.model = model
        self.size = tuple(int(side) for side in volume.shape[1:])
        self.spacing = _checked_spacing(spacing, len(self.size))
        self._device = volume.device
        self._said: tuple[Interaction, ...] = ()
        self._unprompted = text is not None or bool(getattr(model, "answers_unprompted", False))
        start: Any = model.start
        self._state = start(volume) if text is None else start(volume, text=text)
        self._logits: Tensor | None = self._answer()

    def box(self, box: Indices) -> None:
        """Draw a box around the object, in place of an earlier one.

        Args:
            box: its first and its last voxel: (z0, y0, x0, z1, y1, x1) of a volume, (y0, x0, y1, x1) of an image; whole
                numbers, in a sequence, an array or a tensor.

        Raises:
            ValueError: it is no box, is empty, or leaves the volume.
        """
        sides = told_box(box, self.size)
        if sides is None:
            message = f"box must be {2 * len(self.size)} whole numbers, but it is None; undo() takes a box back."
            raise ValueError(message)
        self._say((*self._said, Interaction("box", sides)))

    def click(self, position: Indices, positive: Truth = True) -> None:
        """Say of one voxel whether it lies in the object.

        Args:
            position: (z, y, x) of a volume, (y, x) of an image; whole numbers, in a sequence, an array or a tensor.
            positive: True for the object, False for what is not; no number.

        Raises:
            ValueError: it is no voxel, or lies outside the volume, or ``positive`` is neither.
        """
        said = Interaction("click", told_voxel(position, self.size), told_label(positive))
        self._say((*self._said, said))

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
        """The latest answer, the session's own; None where nothing was said and the model needs a prompt."""
        return self._logits

    @property
    def probability(self) -> Float[Tensor, "*shape"]:
        """Of the object, for each voxel; 0 where there is no answer."""
        return torch.zeros(1, *self.size, device=self._device) if self._logits is None else self._logits.sigmoid()

    @property
    def mask(self) -> Bool[Tensor, "*shape"]:
        """The object, on the volume's own voxels: a probability above 0.5. Empty where there is no answer."""
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
            answer = self._answer()
        except BaseException:
            self._said = earlier
            raise
        self._logits = answer

    def _answer(self) -> Tensor | None:
        if not (self._said or self._unprompted):
            return None
        return self.model.segment(self._state, self.drawn_box, self.clicks)


def _check_volume(volume: Any) -> None:
    if not isinstance(volume, Tensor) or volume.ndim not in (3, 4) or not volume.numel():
        came = f"of the shape {tuple(volume.shape)}" if isinstance(volume, Tensor) else f"a {type(volume).__name__}"
        remedy = "add the channel with volume[None]"
        if isinstance(volume, np.ndarray):
            remedy = "convert it with torch.from_numpy(volume), and add the channel with [None]"
        message = (
            f"volume must be a tensor (1, d, h, w), or an image (c, h, w), with at least one voxel, but it is {came}; "
            f"{remedy}."
        )
        raise ValueError(message)
    check_no_nan(volume)


def _check_listens(model: Any) -> None:
    names = inspect.signature(model.start).parameters.values()
    if not any(one.kind is one.VAR_KEYWORD or (one.name == "text" and one.kind > one.POSITIONAL_ONLY) for one in names):
        message = (
            f"text must be None for {type(model).__name__}, whose start() takes none, but one came; draw a box or "
            "click, or use VolumeSegmenter with a network that listens to text."
        )
        raise ValueError(message)


def _checked_spacing(spacing: Any, axes: int) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    plain = spacing.tolist() if isinstance(spacing, (Tensor, np.ndarray)) else spacing
    sides = tuple(plain) if isinstance(plain, Sequence) and not isinstance(plain, (str, bytes)) else ()
    numbers = len(sides) == axes and all(isinstance(side, Real) and not isinstance(side, bool) for side in sides)
    if not numbers or not all(side > 0 and math.isfinite(side) for side in sides):
        message = (
            f"spacing must be {axes} numbers above 0, in mm, one for each axis, but it is {spacing!r:.80}; pass None "
            "where it is not known."
        )
        raise ValueError(message)
    return tuple(float(side) for side in sides)
