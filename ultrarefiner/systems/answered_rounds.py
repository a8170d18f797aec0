"""What was answered after each click, as far as memory allows; the rest is answered again, to the same bits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ultrarefiner.refinement import CorrectionState
from ultrarefiner.systems.told_prompts import ToldBox, ToldClicks


@dataclass(frozen=True)
class AnsweredRound:
    """The answer after a click, and what the next click needs of it.

    Attributes:
        logits: the answer, on the voxels of the volume or image.
        low_logits: SAM's, in its frame at low resolution; None where no SAM was asked.
        state: of the correction; None before its first click.
        raster_logits: corrected, on the correction's raster, where the next correction starts; None where it starts
            from a new answer.
    """

    logits: Float[Tensor, "1 1 *space"]
    low_logits: Float[Tensor, "1 1 low_h low_w"] | None = None
    state: CorrectionState | None = None
    raster_logits: Float[Tensor, "1 1 *raster"] | None = None

    @property
    def bytes(self) -> int:
        """How much memory it keeps."""
        parts = [self.logits, self.low_logits, self.raster_logits, None if self.state is None else self.state.hidden]
        tensors = {part.data_ptr(): part for part in parts if part is not None}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class AnsweredRounds:
    """Rounds by box and clicks: an answer is the prompts' alone, whatever was asked before.

    Every round is made from the one before its last click, so taking a click back finds the earlier answer, and where
    it was dropped, makes it again from the nearest round that is still there. Those asked for longest ago go first.

    Args:
        cache_bytes: how much is kept; 0 for nothing.

    Raises:
        ValueError: ``cache_bytes`` is below 0.

    Example:
        >>> import torch
        >>> made = []
        >>> def ask(told, before):
        ...     made.append(len(told))
        ...     return AnsweredRound(torch.full((1, 1, 2, 2), float(len(told))))
        >>> clicks = (((0, 0), True), ((1, 1), False))
        >>> rounds = AnsweredRounds(cache_bytes=2**10)
        >>> float(rounds.after(None, clicks, ask, first=1).logits.mean()), made
        (2.0, [1, 2])
        >>> float(rounds.after(None, clicks[:1], ask, first=1).logits.mean()), made
        (1.0, [1, 2])
    """

    def __init__(self, *, cache_bytes: int) -> None:
        if cache_bytes < 0:
            message = f"cache_bytes must be at least 0, but it is {cache_bytes}; 2**28 is usual."
            raise ValueError(message)
        self.cache_bytes = cache_bytes
        self.bytes = 0
        self._kept: OrderedDict[tuple[ToldBox | None, ToldClicks], AnsweredRound] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def after(
        self,
        box: ToldBox | None,
        told: ToldClicks,
        ask: Callable[[ToldClicks, AnsweredRound | None], AnsweredRound],
        *,
        first: int,
    ) -> AnsweredRound:
        """The round after the last click.

        Args:
            box: the user's.
            told: all clicks, at least ``first``.
            ask: called with the first clicks and the round before their last; None for the first round.
            first: how many clicks the first round has.
        """
        known, before = self._latest(box, told, first)
        for count in range(known + 1, len(told) + 1):
            before = ask(told[:count], before)
            self._keep((box, told[:count]), before)
        if before is None:
            message = f"told must hold at least {first} clicks, but it holds {len(told)}."
            raise ValueError(message)
        return before

    def _latest(self, box: ToldBox | None, told: ToldClicks, first: int) -> tuple[int, AnsweredRound | None]:
        for count in range(len(told), first - 1, -1):
            key = (box, told[:count])
            if key in self._kept:
                self._kept.move_to_end(key)
                return count, self._kept[key]
        return first - 1, None

    def _keep(self, key: tuple[ToldBox | None, ToldClicks], made: AnsweredRound) -> None:
        if made.bytes > self.cache_bytes:
            return
        while self.bytes + made.bytes > self.cache_bytes:
            self.bytes -= self._kept.popitem(last=False)[1].bytes
        self._kept[key] = made
        self.bytes += made.bytes
