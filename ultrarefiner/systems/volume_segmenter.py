"""VolumeSegmenter: whole volumes of any size, first made smaller, then through windows where the object is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.systems.click_rounds import PromptedNetwork, on_grid
from ultrarefiner.systems.volume_state import (
    Told,
    VolumeState,
    WholeRound,
    checked_box,
    checked_clicks,
    checked_volume,
)
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
from ultrarefiner.systems.volume_zoom import Progress, zoom_in
from ultrarefiner.types import Clicks


class VolumeSegmenter(nn.Module):
    """Segment one object of a volume of any size with a network of one input size, by a box, clicks or a text.

    *Zoom out*: the volume is resampled (trilinearly) to the network's input, prompts with it, and answered. *Region*:
    the box around that answer and a cell of its grid more, the user's box, and the clicks on the object. *Zoom in*:
    windows at the volume's own resolution over the region, each prompted with the clicks inside it and the box around
    the first answer in it (the user's own box where one window is enough, or nothing was found). Logits of windows are
    averaged where they overlap; elsewhere those of the first answer stay. Without a region, or where the volume is no
    larger than the network's input, there is no zooming in.

    Clicks come in their order: see `next_round` for what each of them does, in the whole and in the windows that hold
    it. A click in the region keeps the region; a click on the object outside enlarges it. Embeddings are kept, so a
    later click decodes what it changes, and encodes only windows that were never looked at.

    A voxel index of the volume is told the network as the voxel of its input that holds it. The volume may stay on a
    CPU while the network is elsewhere: only what the network looks at travels.

    Args:
        network: `SegVol`, or any module with ``volume_size``, ``encode`` and ``decode`` like its.
        correction: `GRUCorrection` of 3 dimensions, on the grid of the network's input; None for the network alone.
        overlap: of neighbouring windows, in [0, 0.9].
        redecode: see `next_round`; as in the correction's training, and True without one.
        cache_bytes: how much of windows is kept, embeddings and answers together; what does not fit is encoded again.
        progress: called after each window with how many are done and how many there are.

    Raises:
        ValueError: a number is out of range, or nothing would listen to clicks.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> segmenter = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> segmenter(torch.rand(1, 9, 20, 30), box=(2, 4, 4, 6, 12, 15)).shape
        torch.Size([1, 9, 20, 30])

    Du et al., "SegVol: Universal and Interactive Volumetric Medical Image Segmentation", NeurIPS 2024 (arXiv
    2311.13385), whose zoom-out-zoom-in this is.
    """

    def __init__(
        self,
        network: nn.Module,
        correction: GRUCorrection | None = None,
        *,
        overlap: float = 0.5,
        redecode: bool = True,
        cache_bytes: int = 2**30,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= overlap <= 0.9 or cache_bytes < 0:
            message = (
                f"overlap must be in [0, 0.9] and cache_bytes at least 0, but they are {overlap} and {cache_bytes}; "
                "0.5 and 2**30 are usual."
            )
            raise ValueError(message)
        if correction is None and not redecode:
            message = (
                "redecode must be True where correction is None, or nothing would listen to clicks, but it is "
                "False; pass a GRUCorrection."
            )
            raise ValueError(message)
        self.network = network
        self.correction = correction
        self.overlap = overlap
        self.redecode = redecode
        self.cache_bytes = cache_bytes
        self.progress = progress

    def forward(
        self,
        volume: Float[Tensor, "1 d h w"],
        *,
        box: Sequence[int] | Int[Tensor, " 6"] | None = None,
        clicks: Clicks | None = None,
        text: Float[Tensor, "1 c"] | None = None,
    ) -> Float[Tensor, "1 d h w"]:
        """`start` and `segment` at once, for prompts that are all known.

        Args:
            volume: see `start`.
            box: see `segment`.
            clicks: see `segment`.
            text: see `start`.

        Returns:
            Logits on the volume's voxels, float32, on its device.

        Raises:
            ValueError: see `start` and `segment`.
        """
        return self.segment(self.start(volume, text=text), box, clicks)

    @torch.no_grad()
    def start(self, volume: Float[Tensor, "1 d h w"], *, text: Float[Tensor, "1 c"] | None = None) -> VolumeState:
        """Encode a volume as a whole.

        Args:
            volume: in [0, 1], normalised as in the network's training (`data.normalise_foreground`).
            text: an embedding that names the object; every answer then listens to it.

        Returns:
            What `segment` needs; it grows as windows are looked at.

        Raises:
            ValueError: the volume has another shape or dtype, no voxel, NaN, or values outside [0, 1].
        """
        volume = checked_volume(volume)
        reader = self._reader()
        small = functional.interpolate(volume[None].float(), reader.grid, mode="trilinear", align_corners=False)
        return VolumeState(volume, reader.encode(small), text)

    @torch.no_grad()
    def segment(
        self, state: VolumeState, box: Sequence[int] | Int[Tensor, " 6"] | None = None, clicks: Clicks | None = None
    ) -> Float[Tensor, "1 d h w"]:
        """Segment by all prompts so far.

        The answer depends on the prompts and the clicks' order alone, not on what was asked before.

        Args:
            state: of the volume.
            box: (z0, y0, x0, z1, y1, x1), the first and the last voxel inside.
            clicks: into this volume, (1, n, 3), in the order in which they were made.

        Returns:
            Logits on the volume's voxels, float32, on its device.

        Raises:
            ValueError: no prompt at all, a box or click that is none or lies outside, clicks into several volumes.
        """
        drawn, told = checked_box(box, state.size), checked_clicks(clicks, state.size)
        if drawn is None and not told and state.text is None:
            message = "segment must be given a box, a click or a text, but there is none; say what to segment."
            raise ValueError(message)
        reader = self._reader()
        self._answer_whole(reader, state, drawn, told)
        low = state.rounds[drawn, told].answer.logits.float().to(state.volume.device)
        logits = functional.interpolate(low, state.size, mode="trilinear", align_corners=False)[0]
        zoom_in(reader, state, drawn, told, logits[0], cache_bytes=self.cache_bytes, progress=self.progress)
        return logits

    def extra_repr(self) -> str:
        """The constructor's numbers."""
        return f"overlap={self.overlap}, redecode={self.redecode}, cache_bytes={self.cache_bytes}"

    def _reader(self) -> ViewReader:
        return ViewReader(cast("PromptedNetwork", self.network), self.correction, self.redecode)

    def _answer_whole(self, reader: ViewReader, state: VolumeState, box: Box3D | None, told: Told) -> None:
        """Answer the volume as a whole after every click up to the last, where that is not known yet."""
        before: WholeRound | None = None
        seen = None if box is None else grid_box(box, state.size, reader.grid)
        shown = tuple((grid_position(voxel, state.size, reader.grid), on_object) for voxel, on_object in told)
        for count in range(1 if box is None and state.text is None else 0, len(told) + 1):
            key = (box, told[:count])
            if key not in state.rounds:
                memory = None if before is None else before.answer.memory
                answer = reader.ask(state.embedding, seen, shown[:count], text=state.text, before=memory)
                answer = replace(answer, logits=on_grid(answer.logits, reader.grid))
                region = self._region(state, box, told[:count], answer.logits, before)
                shrunk = any(side > length for side, length in zip(state.size, reader.grid, strict=True))
                starts = window_starts(region, state.size, reader.grid, overlap=self.overlap) if region else ()
                state.rounds[key] = WholeRound(answer, region, starts if shrunk else ())
            before = state.rounds[key]

    @staticmethod
    def _region(
        state: VolumeState, box: Box3D | None, told: Told, logits: Tensor, before: WholeRound | None
    ) -> Box3D | None:
        positive = [voxel for voxel, on_object in told if on_object]
        known = None if before is None else before.region
        if known is not None and all(inside_box(voxel, known) for voxel in positive):
            return known
        depth, height, width = logits.shape[2:]
        found = foreground_box(logits[0, 0])
        parts = [] if found is None else [volume_box(found, (depth, height, width), state.size, margin=1)]
        parts += [one for one in (known, box) if one is not None]
        parts += [(*voxel, *voxel) for voxel in positive]
        return joined(parts) if parts else None
