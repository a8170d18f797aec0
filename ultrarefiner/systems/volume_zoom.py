"""Zooming in: windows at the volume's own resolution, prompted by what is known of the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.systems.click_rounds import ClickMemory, ClickRound, on_grid
from ultrarefiner.systems.volume_state import SeenWindow, Told, VolumeState, WholeRound
from ultrarefiner.systems.volume_view import ViewReader
from ultrarefiner.systems.volume_windows import (
    Box3D,
    Size3D,
    box_slices,
    clipped,
    cut_window,
    enlarged_part,
    foreground_box,
    inside_box,
    joined,
    window_box,
)

Progress = Callable[[int, int], None]
"""Called with how many windows are done, and how many there are."""


def zoom_in(
    reader: ViewReader,
    state: VolumeState,
    box: Box3D | None,
    told: Told,
    logits: Float[Tensor, "d h w"],
    *,
    cache_bytes: int,
    progress: Progress | None,
) -> None:
    """Replace logits of the whole by the mean of the windows' where there are any, in place: no copy is made.

    Args:
        reader: of the network.
        state: with the rounds of the whole up to the last click.
        box: the user's.
        told: all clicks.
        logits: the whole's, on the volume's voxels.
        cache_bytes: how much of windows is kept.
        progress: called after each window.
    """
    starts = state.rounds[box, told].starts
    if not starts:
        return
    frame = joined([window_box(start, state.size, reader.grid) for start in starts])
    votes = torch.zeros_like(logits[box_slices(frame)], dtype=torch.int16)
    for done, start in enumerate(starts, 1):
        low = _Window(reader, state, start, box).logits(told, cache_bytes)
        if low is not None:
            answer = on_grid(low, reader.grid)[0, 0]
            part = window_box(start, state.size, reader.grid)
            here, earlier = logits[box_slices(part)], votes[box_slices(part, (frame[0], frame[1], frame[2]))]
            here.mul_(earlier > 0).add_(answer[box_slices(part, start)].to(here))
            earlier.add_(1)
        if progress is not None:
            progress(done, len(starts))
    # Slice by slice: a CPU converts whole numbers to a copy before it divides by them.
    for plane, count in zip(logits[box_slices(frame)], votes.clamp_(min=1), strict=True):
        plane.div_(count)


class _Window:
    """One window of a volume, for one box of the user's."""

    def __init__(self, reader: ViewReader, state: VolumeState, start: Size3D, box: Box3D | None) -> None:
        self.reader, self.state, self.start, self.box = reader, state, start, box
        self.part = window_box(start, state.size, reader.grid)

    def logits(self, told: Told, cache_bytes: int) -> Tensor | None:
        """After the last click; None where nothing prompts the window."""
        own = [count for count, (voxel, _) in enumerate(told, 1) if inside_box(voxel, self.part)]
        seen = self._box_seen(self.state.rounds[self.box, told])
        if seen is None and not own and self.state.text is None:
            return None
        window = self._looked_at(cache_bytes)
        # Only a correction remembers, so without one the clicks beside the window make no difference.
        key = (seen, self._shown(told)) if self.reader.correction is None else (seen, self.box, told[: max(own or [0])])
        if window.logits is not None and window.key == key:
            return window.logits
        before = self._memory(window.embedding, told, own[:-1])
        answer = self._ask(window.embedding, seen, told, before).logits
        self.state.cached_bytes -= bytes_of(window.logits)
        kept = self.start in self.state.windows and self._fits(answer, cache_bytes)
        window.key, window.logits = (key, answer) if kept else (None, None)
        return answer

    def _memory(self, embedding: Tensor, told: Told, own: list[int]) -> ClickMemory | None:
        """What a correction remembers of earlier clicks into the window, each when it was the last of all."""
        before: ClickMemory | None = None
        for count in own if self.reader.correction is not None else []:
            key = (self.start, self.box, told[:count])
            if key not in self.state.window_memory:
                seen = self._box_seen(self.state.rounds[self.box, told[:count]])
                self.state.window_memory[key] = self._ask(embedding, seen, told[:count], before).memory
            before = self.state.window_memory[key]
        return before

    def _ask(self, embedding: Tensor, seen: Box3D | None, told: Told, before: ClickMemory | None) -> ClickRound:
        return self.reader.ask(embedding, seen, self._shown(told), text=self.state.text, before=before)

    def _shown(self, told: Told) -> Told:
        """The clicks inside, in the window's voxels."""
        a, b, c = self.start
        return tuple(((z - a, y - b, x - c), label) for (z, y, x), label in told if inside_box((z, y, x), self.part))

    def _box_seen(self, whole: WholeRound) -> Box3D | None:
        """The box that the window is told, in its voxels."""
        drawn = None if self.box is None else clipped(self.box, self.start, self.part)
        if drawn is not None and len(whole.starts) == 1:
            return drawn
        low = whole.answer.logits[0, 0]
        found = foreground_box(enlarged_part(low, self.state.size, self.part))
        if found is not None:
            first, begin = self.part, self.start
            z, y, x = (first[axis] - begin[axis] for axis in range(3))
            return found[0] + z, found[1] + y, found[2] + x, found[3] + z, found[4] + y, found[5] + x
        return None if bool((low > 0).any()) else drawn

    def _looked_at(self, cache_bytes: int) -> SeenWindow:
        known = self.state.windows.get(self.start)
        if known is not None:
            return known
        window = SeenWindow(self.reader.encode(cut_window(self.state.volume, self.start, self.reader.grid)))
        if self._fits(window.embedding, cache_bytes):
            self.state.windows[self.start] = window
        return window

    def _fits(self, tensor: Tensor, cache_bytes: int) -> bool:
        """Whether there is room for a tensor; if so, it is taken."""
        fits = self.state.cached_bytes + bytes_of(tensor) <= cache_bytes
        self.state.cached_bytes += bytes_of(tensor) if fits else 0
        return fits


def bytes_of(tensor: Tensor | None) -> int:
    """What a tensor's values take.

    Example:
        >>> bytes_of(torch.zeros(3)), bytes_of(None)
        (12, 0)
    """
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
