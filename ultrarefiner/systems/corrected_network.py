"""CorrectedNetwork: clicks into the answer of any network, which is asked once and never hears of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_answer, check_no_nan, reads_values
from ultrarefiner.refinement import ClickCorrection, GRUCorrection
from ultrarefiner.systems.answered_rounds import AnsweredRound, AnsweredRounds
from ultrarefiner.systems.at_rest import at_rest
from ultrarefiner.systems.click_correction import check_correction_options, correct_at_clicks, on_raster
from ultrarefiner.systems.one_mask import one_mask_logits
from ultrarefiner.systems.told_prompts import ToldClicks, told_clicks
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class NetworkAnswer:
    """What a network said of a volume or an image; `CorrectedNetwork.start` asks it.

    Attributes:
        logits: on the volume's or image's own voxels.
        device: where that lies.
        rounds: what clicks made of them. They belong to the correction's weights: after training, start again.
    """

    logits: Float[Tensor, "1 1 *space"]
    device: torch.device
    rounds: AnsweredRounds = field(repr=False)


class CorrectedNetwork(nn.Module):
    """Segment with a network that takes no prompt, and correct its answer at clicks, in 2-D or 3-D.

    The network runs once; a click only runs the correction, which goes on from the last answer with its memory of the
    clicks before. An answer is the clicks' alone: it is built up from the first to the last, and what was built before
    is kept. Without a click it is the network's. It answers in evaluation mode, whatever mode it is in (`at_rest`).

    Args:
        network: called with (1, c, *space); answers with logits (1, 1, *space) of one object, on any raster over the
            same view, or with what this library's systems return (`UltraRefiner`, `AutoSAM`, deep supervision …).
        correction: `GRUCorrection` for as many dimensions, or `WrittenClicks`.
        correction_side: the longest side of the raster on which the correction works, the size that it was trained on;
            None for the image's own voxels (`correct_at_clicks`).
        cache_bytes: how much of earlier answers is kept for each image; what does not fit is made again.

    Attributes:
        answers_unprompted: True: an `InteractiveSession` shows the network's answer before the first click.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> from ultrarefiner.systems import AtSize, InteractiveSession
        >>> coarse = AtSize(nn.Conv2d(3, 1, 3, padding=1), 32)
        >>> model = CorrectedNetwork(coarse, GRUCorrection(points=20, hidden=16, dimensions=2))
        >>> session = InteractiveSession(model, torch.rand(3, 40, 60))
        >>> session.logits.shape
        torch.Size([1, 40, 60])
        >>> session.click((20, 30))

    After SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction, whose correction needs logits and clicks
    only.
    """

    answers_unprompted = True

    def __init__(
        self,
        network: nn.Module,
        correction: ClickCorrection,
        *,
        correction_side: int | None = None,
        cache_bytes: int = 2**28,
    ) -> None:
        super().__init__()
        check_correction_options(correction_side, cache_bytes)
        self.network = network
        self.correction = correction
        self.correction_side = correction_side
        self.cache_bytes = cache_bytes

    def forward(self, image: Float[Tensor, "*shape"], *, clicks: Clicks | None = None) -> Float[Tensor, "*shape"]:
        """`start` and `segment` at once, for clicks that are all known.

        Args:
            image: see `start`.
            clicks: see `segment`.

        Returns:
            Logits of the mask after the last click.

        Raises:
            ValueError: see `start` and `segment`.
        """
        return self.segment(self.start(image), None, clicks)

    @torch.no_grad()
    def start(self, image: Float[Tensor, "*shape"]) -> NetworkAnswer:
        """Ask the network.

        Args:
            image: (c, h, w), or a volume (c, d, h, w), as the network expects it.

        Returns:
            The network's logits, which clicks correct.

        Raises:
            ValueError: another number of axes, no voxel, no floating point, NaN, or an answer that is not one mask or
                holds NaN or infinity.
        """
        axes = _checked_axes(image, self.correction.dimensions if isinstance(self.correction, GRUCorrection) else None)
        weights = next(self.network.parameters(), None)
        with at_rest(self):
            answer = self.network((image if weights is None else image.to(weights))[None])
        logits = one_mask_logits(answer, images=1, axes=axes)
        check_answer(logits)
        logits = on_raster(logits, image.shape[1:])
        return NetworkAnswer(logits, image.device, AnsweredRounds(cache_bytes=self.cache_bytes))

    @torch.no_grad()
    def segment(
        self, state: NetworkAnswer, box: Sequence[int] | None = None, clicks: Clicks | None = None
    ) -> Float[Tensor, "*shape"]:
        """Correct by all clicks so far.

        Args:
            state: of the image.
            box: None; nothing here listens to one.
            clicks: into this image, (1, n, d), in the order in which they were made.

        Returns:
            Logits on the image's voxels, on its device; the caller's own.

        Raises:
            ValueError: a box, a click outside, or clicks into several images.
        """
        if box is not None:
            message = (
                f"box must be None for {type(self.network).__name__}, which takes no prompt, but it is {box}; click, "
                "or use ImageSegmenter or VolumeSegmenter."
            )
            raise ValueError(message)

        def ask(some: ToldClicks, before: AnsweredRound | None) -> AnsweredRound:
            return self._round(state, some, before)

        told = told_clicks(clicks, state.logits.shape[2:])
        with at_rest(self):
            made = state.rounds.after(None, told, ask, first=1) if told else AnsweredRound(state.logits)
        return made.logits[0].to(state.device, copy=True)

    def extra_repr(self) -> str:
        """The constructor's numbers."""
        return f"correction_side={self.correction_side}, cache_bytes={self.cache_bytes}"

    def _round(self, state: NetworkAnswer, told: ToldClicks, before: AnsweredRound | None) -> AnsweredRound:
        found = correct_at_clicks(
            self.correction,
            state.logits,
            told[-1:],
            side=self.correction_side,
            state=None if before is None else before.state,
            earlier=None if before is None else before.raster_logits,
        )
        return AnsweredRound(found.logits, None, found.state, found.raster_logits)


def _checked_axes(image: Any, dimensions: int | None) -> int:
    """How many axes of space an image or volume has, for a correction of so many; None corrects any."""
    wanted = "2 or 3" if dimensions is None else f"{dimensions}"
    if not isinstance(image, Tensor):
        message = (
            f"image must be a tensor, a channel and {wanted} axes, but it is a {type(image).__name__}; make one of an "
            "array with torch.from_numpy, and add the channel with [None]."
        )
        raise ValueError(message)
    axes = image.ndim - 1
    if not image.is_floating_point():
        message = (
            f"image must be floating point, but it is {image.dtype}; convert it with .float(), and bring its values "
            "into the range of the network's training."
        )
        raise ValueError(message)
    if (axes not in (2, 3) if dimensions is None else axes != dimensions) or not image.numel():
        message = (
            f"image must be a channel and {wanted} axes with at least one voxel, as many as the correction is for, but "
            f"it is of the shape {tuple(image.shape)}; add a channel with image[None], or build the correction with "
            "another dimensions."
        )
        raise ValueError(message)
    if reads_values(image):
        check_no_nan(image, "image")
    return axes
