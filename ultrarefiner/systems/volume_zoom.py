"""Zooming in: windows at the volume's own resolution, prompted by what is known of the whole."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ultrarefiner.systems.click_rounds import ClickMemory, on_grid
from ultrarefiner.systems.volume_blend import Progress, blend_windows
from ultrarefiner.systems.volume_state import Told, WholeRound
from ultrarefiner.systems.volume_whole import WholeRounds
from ultrarefiner.systems.volume_windows import (
    Box3D,
    Size3D,
    WindowBoxes,
    box_slices,
    clipped,
    cut_window,
    enlarged_part,
    foreground_box,
    inside_box,
    joined,
    window_box,
)


@dataclass(frozen=True)
class Window:
    """A window, and what it is told.

    Attributes:
        start: its first voxel.
        seen: the box, in its voxels.
        own: which clicks lie inside, counted from 1.
        name: the same again for the same answer; None where nothing prompts the window.
    """

    start: Size3D
    seen: Box3D | None
    own: tuple[int, ...]
    name: tuple[Hashable, ...] | None


@dataclass(frozen=True)
class WindowAnswer:
    """What a window answers; None where it has nothing to be asked with, and the whole's answer stays."""

    logits: Tensor | None


def zoom_in(
    whole: WholeRounds, told: Told, logits: Float[Tensor, "d h w"], *, progress: Progress | None = None
) -> None:
    """Replace logits of the whole by the mean of the windows' where there are any, in place.

    Only windows that are told something else than before are asked; see `blend_windows`.

    Args:
        whole: its rounds.
        told: all clicks.
        logits: the whole's, on the volume's voxels.
        progress: called after each window.
    """
    made = whole.after(told)
    if not made.starts:
        return
    zoom = _Zoom(whole, told)
    windows = zoom.windows(made, logits)
    kept = whole.state.kept
    kept.touch(("view", one.start) for one in windows)
    kept.touch(("answer", *one.name) for one in windows if one.name is not None)
    by_start = {one.start: one for one in windows}
    blend_windows(
        kept,
        logits,
        {one.start: one.name for one in windows},
        whole.reader.grid,
        prepare=lambda starts: zoom.look_back([by_start[start] for start in starts]),
        answer=lambda start: zoom.answer(by_start[start]),
        progress=progress,
    )


class _Zoom:
    """The windows of a volume, for one box of the user's and the same clicks."""

    def __init__(self, whole: WholeRounds, told: Told) -> None:
        self.whole, self.told = whole, told
        self.reader, self.state, self.box = whole.reader, whole.state, whole.box
        self.size, self.grid = whole.state.size, whole.reader.grid
        self._earlier: dict[tuple[Size3D, int], Box3D | None] = {}

    def windows(self, made: WholeRound, logits: Tensor) -> list[Window]:
        """All windows over the region, and what each is told after the last click."""
        parts = [window_box(start, self.size, self.grid) for start in made.starts]
        frame = joined(parts)
        boxes = WindowBoxes(logits[box_slices(frame)] > 0, (frame[0], frame[1], frame[2]))
        drawn_for_all = not self._found(made)
        return [
            self._window(start, self._seen(start, boxes.box(part), made, drawn_for_all=drawn_for_all))
            for start, part in zip(made.starts, parts, strict=True)
        ]

    def look_back(self, windows: list[Window]) -> None:
        """Find the boxes that windows saw after clicks that must be answered anew, one click after the other."""
        wanted: dict[int, list[Size3D]] = {}
        for one in windows if self.reader.correction is not None else ():
            if one.name is not None and self.state.kept.use(("answer", *one.name)) is None:
                for count in self._forgotten(one)[1]:
                    wanted.setdefault(count, []).append(one.start)
        for count in sorted(wanted):
            made = self.whole.after(self.told[:count])
            if made.logits is None:
                self._earlier |= dict.fromkeys(((start, count) for start in wanted[count]), None)
                continue
            low, found = self._low(made), self._found(made)
            for start in wanted[count]:
                part = window_box(start, self.size, self.grid)
                here = foreground_box(enlarged_part(low, self.size, part))
                inside = None if here is None else _moved(here, (part[0], part[1], part[2]))
                self._earlier[start, count] = self._seen(start, inside, made, drawn_for_all=not found)

    def answer(self, window: Window) -> Tensor | None:
        """A window's logits; None where the whole's stay."""
        if window.name is None:
            return None
        known: WindowAnswer | None = self.state.kept.use(("answer", *window.name))
        if known is not None:
            return known.logits
        before, answer = self._memory(window), None
        if self._listens(window.seen, self._shown(window.start, self.told), before):
            answer, after = self._ask(window.start, window.seen, self.told, before)
            if self.reader.correction is not None and window.own and window.own[-1] == len(self.told):
                self.state.kept.keep(self._memory_name(window.start, len(self.told)), after)
        self.state.kept.keep(("answer", *window.name), WindowAnswer(answer))
        return answer

    def _window(self, start: Size3D, seen: Box3D | None) -> Window:
        part = window_box(start, self.size, self.grid)
        own = tuple(count for count, (voxel, _) in enumerate(self.told, 1) if inside_box(voxel, part))
        if seen is None and not own and self.state.text is None:
            return Window(start, seen, own, None)
        # Only a correction remembers, so without one the clicks beside the window make no difference.
        if self.reader.correction is None:
            return Window(start, seen, own, (start, seen, self._shown(start, self.told)))
        return Window(start, seen, own, (start, seen, self.box, self.told[: max(own, default=0)]))

    def _memory(self, window: Window) -> ClickMemory | None:
        """What a correction remembers of earlier clicks into the window, each when it was the last of all."""
        if self.reader.correction is None:
            return None
        before, forgotten = self._forgotten(window)
        for count in forgotten:
            seen = self._earlier[window.start, count]
            if self._listens(seen, self._shown(window.start, self.told[:count]), before):
                before = self._ask(window.start, seen, self.told[:count], before)[1]
            self.state.kept.keep(self._memory_name(window.start, count), before or ClickMemory())
        return before

    def _forgotten(self, window: Window) -> tuple[ClickMemory | None, tuple[int, ...]]:
        """The latest memory that is kept, and the clicks after it but for the window's last."""
        earlier = window.own[:-1]
        for done in range(len(earlier), 0, -1):
            kept: ClickMemory | None = self.state.kept.use(self._memory_name(window.start, earlier[done - 1]))
            if kept is not None:
                return kept, earlier[done:]
        return None, earlier

    def _memory_name(self, start: Size3D, count: int) -> tuple[str, Size3D, Box3D | None, Told]:
        return "memory", start, self.box, self.told[:count]

    def _listens(self, seen: Box3D | None, shown: Told, before: ClickMemory | None) -> bool:
        """Whether a window may be asked: of background clicks alone a network makes an object, anywhere."""
        prompted = seen is not None or self.state.text is not None or any(positive for _, positive in shown)
        return prompted or (before is not None and before.logits is not None)

    def _ask(
        self, start: Size3D, seen: Box3D | None, told: Told, before: ClickMemory | None
    ) -> tuple[Tensor, ClickMemory]:
        made = self.reader.ask(
            self._embedding(start), seen, self._shown(start, told), text=self.state.text, before=before
        )
        return made.logits, made.memory

    def _embedding(self, start: Size3D) -> Tensor:
        known: Tensor | None = self.state.kept.use(("view", start))
        if known is not None:
            return known
        made = self.reader.encode(cut_window(self.state.volume, start, self.grid))
        self.state.kept.keep(("view", start), made)
        return made

    def _shown(self, start: Size3D, told: Told) -> Told:
        """The clicks inside, in the window's voxels."""
        (a, b, c), part = start, window_box(start, self.size, self.grid)
        return tuple(((z - a, y - b, x - c), label) for (z, y, x), label in told if inside_box((z, y, x), part))

    def _seen(self, start: Size3D, inside: Box3D | None, made: WholeRound, *, drawn_for_all: bool) -> Box3D | None:
        """The box that a window is told, in its voxels, where the whole found ``inside`` in it, in the volume's."""
        part = window_box(start, self.size, self.grid)
        drawn = None if self.box is None else clipped(self.box, start, part)
        if drawn is not None and len(made.starts) == 1:
            return drawn
        if inside is not None:
            return _moved(inside, (-start[0], -start[1], -start[2]))
        return drawn if drawn_for_all else None

    def _low(self, made: WholeRound) -> Tensor:
        if made.logits is None:
            message = "a round that asked nothing has no logits"
            raise ValueError(message)
        return on_grid(made.logits, self.grid)[0, 0].to(self.state.volume.device)

    def _found(self, made: WholeRound) -> bool:
        """Whether the whole found anything, anywhere."""
        return bool((self._low(made) > 0).any())


def _moved(box: Box3D, by: Size3D) -> Box3D:
    z, y, x = by
    return box[0] + z, box[1] + y, box[2] + x, box[3] + z, box[4] + y, box[5] + x
