"""The volume as a whole, made smaller: asked click by click, and where to look closer."""

from __future__ import annotations

from torch import Tensor

from ultrarefiner.systems.click_rounds import on_grid
from ultrarefiner.systems.told_prompts import first_on_object
from ultrarefiner.systems.volume_state import Told, VolumeState, WholeRound
from ultrarefiner.systems.volume_view import ViewReader
from ultrarefiner.systems.volume_windows import (
    Box3D,
    foreground_box,
    grid_box,
    grid_position,
    inside_box,
    joined,
    volume_box,
    window_starts,
)


class WholeRounds:
    """The rounds of the whole, for one box: each is kept as far as there is room, or made anew from those before.

    Args:
        reader: of the network.
        state: of the volume.
        box: the user's.
        overlap: of the windows over the region.
    """

    def __init__(self, reader: ViewReader, state: VolumeState, box: Box3D | None, *, overlap: float) -> None:
        self.reader, self.state, self.box, self.overlap = reader, state, box, overlap
        self._last: tuple[Told, WholeRound] | None = None

    def after(self, told: Told) -> WholeRound:
        """The round after the last click.

        Without a box or a text nothing is asked until a click lies on the object: background alone says of nothing
        that it is the object.
        """
        first = self._first(told)
        if first is None:
            return WholeRound(None)
        known, made = self._latest(told, first)
        for count in range(known + 1, len(told) + 1):
            made = self._next(told[:count], made)
            self.state.kept.keep(("round", self.box, told[:count]), made)
        if made is None:
            message = f"told must hold {first} clicks, but it holds {len(told)}."
            raise ValueError(message)
        self._last = (told, made)
        return made

    def _first(self, told: Told) -> int | None:
        """How many clicks the first round has."""
        if self.box is not None or self.state.text is not None:
            return 0
        return first_on_object(told)

    def _latest(self, told: Told, first: int) -> tuple[int, WholeRound | None]:
        for count in range(len(told), first - 1, -1):
            if self._last is not None and self._last[0] == told[:count]:
                return count, self._last[1]
            kept: WholeRound | None = self.state.kept.use(("round", self.box, told[:count]))
            if kept is not None:
                return count, kept
        return first - 1, None

    def _next(self, told: Told, before: WholeRound | None) -> WholeRound:
        state, reader = self.state, self.reader
        seen = None if self.box is None else grid_box(self.box, state.size, reader.grid)
        shown = tuple((grid_position(voxel, state.size, reader.grid), on_object) for voxel, on_object in told)
        memory = None if before is None else before.memory
        answer = reader.ask(state.embedding, seen, shown, text=state.text, before=memory)
        region = self._region(
            told, on_grid(answer.logits, reader.grid)[0, 0], None if before is None else before.region
        )
        shrunk = any(side > length for side, length in zip(state.size, reader.grid, strict=True))
        starts = window_starts(region, state.size, reader.grid, overlap=self.overlap) if region and shrunk else ()
        return WholeRound(answer.logits, answer.memory, region, starts)

    def _region(self, told: Told, logits: Tensor, known: Box3D | None) -> Box3D | None:
        positive = [voxel for voxel, on_object in told if on_object]
        found, size, grid = foreground_box(logits), self.state.size, self.reader.grid
        if known is not None and all(inside_box(voxel, known) for voxel in positive):
            reach = known if found is None else joined([known, volume_box(found, grid, size, margin=0)])
            if reach == known:
                return known
        parts = [] if found is None else [volume_box(found, grid, size, margin=1)]
        parts += [one for one in (known, self.box) if one is not None]
        parts += [(*voxel, *voxel) for voxel in positive]
        return joined(parts) if parts else None
