"""VolumeSegmenter: whole volumes of any size, first made smaller, then through windows where the object is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.resample import resize_linear
from ultrarefiner.refinement import ClickCorrection
from ultrarefiner.systems.at_rest import at_rest
from ultrarefiner.systems.click_rounds import PromptedNetwork, on_grid
from ultrarefiner.systems.told_prompts import NOTHING_LOGIT, told_box, told_clicks, told_text
from ultrarefiner.systems.volume_blend import Progress
from ultrarefiner.systems.volume_state import Told, VolumeState, checked_volume
from ultrarefiner.systems.volume_view import ViewReader
from ultrarefiner.systems.volume_whole import WholeRounds
from ultrarefiner.systems.volume_windows import Box3D, enlarged_part
from ultrarefiner.systems.volume_zoom import zoom_in
from ultrarefiner.types import Clicks


class VolumeSegmenter(nn.Module):
    """Segment one object of a volume of any size with a network of one input size, by a box, clicks or a text.

    *Zoom out*: the volume is resampled to the network's input (linearly, antialiased: `data.resize_volume`, as in
    training; the published network took the nearest voxels), prompts with it, and answered. *Region*: the box around
    that answer and a cell of its grid more, the user's box, and the clicks on the object. *Zoom in*: windows at the
    volume's own resolution over the region, each prompted with the clicks inside it and the box around the first answer
    in it (the user's own box where one window is enough, or nothing was found). Logits of windows are averaged where
    they overlap; elsewhere those of the first answer stay. Without a region, or where the volume is no larger than the
    network's input, there is no zooming in.

    Clicks come in their order: see `next_round` for what each of them does, in the whole and in the windows that hold
    it. A click on the object outside the region enlarges it, and so does an answer that reaches out of it; any other
    click keeps it. A click on the background never makes an object where there is none: with neither a box, a text nor
    a click on the object a view is not asked. There the whole's answer stays, and where the whole itself has none of
    them, the mask is empty.

    What was found is kept, so a later click decodes what it changes, and encodes only windows that were never looked
    at. Answers, memories and embeddings together stay within ``cache_bytes``, for any number of clicks; what was used
    longest ago goes first and is made anew, to the same bits, when it is needed.

    It answers in evaluation mode, whatever mode it is in (`at_rest`).

    A voxel index of the volume is told the network as the voxel of its input that holds it. The volume may stay on a
    CPU while the network is elsewhere: only what the network looks at travels.

    Args:
        network: `SegVol`, or any module with ``volume_size``, ``encode`` and ``decode`` like its.
        correction: `GRUCorrection` of 3 dimensions, or `WrittenClicks`, on the grid of the network's input; None for
            the network alone.
        overlap: of neighbouring windows, in [0, 0.9].
        redecode: see `next_round`; as in the correction's training. None is what `CorrectionRecipe` trains with: True
            without a correction, False with one.
        cache_bytes: how much is kept of a volume, besides itself, the whole's embedding and the answer that is given
            back. Where a click should be quick, room for the embeddings of the region's windows and for one volume of
            float32; 0 keeps nothing, and every click replays all before it.
        progress: called after each window with how many are done and how many there are.

    Raises:
        ValueError: a number is out of range, the network or the correction is not for volumes, or nothing would listen
            to clicks.

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
        correction: ClickCorrection | None = None,
        *,
        overlap: float = 0.5,
        redecode: bool | None = None,
        cache_bytes: int = 2**30,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        _check_parts(network, correction)
        if not 0 <= overlap <= 0.9 or cache_bytes < 0:
            message = (
                f"overlap must be in [0, 0.9] and cache_bytes at least 0, but they are {overlap} and {cache_bytes}; "
                "0.5 and 2**30 are usual."
            )
            raise ValueError(message)
        if correction is None and redecode is False:
            message = (
                "redecode must be True where correction is None, or nothing would listen to clicks, but it is "
                "False; pass a GRUCorrection."
            )
            raise ValueError(message)
        self.network = network
        self.correction = correction
        self.overlap = overlap
        self.redecode = correction is None if redecode is None else redecode
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
            ValueError: the volume has another shape or dtype, no voxel, NaN, or values outside [0, 1]; the text is none
                of the network's.
        """
        volume, text = checked_volume(volume), told_text(text, getattr(self.network, "width", None))
        reader = self._reader()
        with at_rest(self):
            return VolumeState(volume, reader.encode(resize_linear(volume[None], reader.grid)), text)

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
            ValueError: no prompt at all, a box or click that is none or lies outside, clicks into several volumes, or
                the network answers with NaN or infinity.
        """
        drawn = cast("Box3D | None", told_box(box, state.size))
        told = cast("Told", told_clicks(clicks, state.size))
        if drawn is None and not told and state.text is None:
            message = "segment must be given a box, a click or a text, but there is none; say what to segment."
            raise ValueError(message)
        state.kept.turn(limit=self.cache_bytes)
        with at_rest(self):
            return self._answer(state, drawn, told)

    def extra_repr(self) -> str:
        """The constructor's numbers."""
        return f"overlap={self.overlap}, redecode={self.redecode}, cache_bytes={self.cache_bytes}"

    def _answer(self, state: VolumeState, drawn: Box3D | None, told: Told) -> Float[Tensor, "1 d h w"]:
        reader = self._reader()
        whole = WholeRounds(reader, state, drawn, overlap=self.overlap)
        found = whole.after(told).logits
        if found is None:
            return torch.full(state.volume.shape, NOTHING_LOGIT, device=state.volume.device)
        low = on_grid(found, reader.grid)[0, 0].to(state.volume.device)
        depth, height, width = state.size
        logits = enlarged_part(low, state.size, (0, 0, 0, depth - 1, height - 1, width - 1))
        zoom_in(whole, told, logits, progress=self.progress)
        return logits[None]

    def _reader(self) -> ViewReader:
        return ViewReader(cast("PromptedNetwork", self.network), self.correction, self.redecode)


def _check_parts(network: nn.Module, correction: ClickCorrection | None) -> None:
    if not isinstance(network, PromptedNetwork):
        message = (
            "network must have volume_size, encode and decode, as SegVol has, but it is a "
            f"{type(network).__name__}; build one with build_segvol."
        )
        raise ValueError(message)
    if getattr(correction, "dimensions", 3) != 3:
        message = (
            "correction must be one for volumes, but its dimensions are "
            f"{getattr(correction, 'dimensions', None)}; build it with GRUCorrection(dimensions=3)."
        )
        raise ValueError(message)
