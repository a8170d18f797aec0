"""ImageSegmenter: a box and clicks into an image of any size, answered by SAM, which encodes the image once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_answer, check_images
from ultrarefiner.ops.coordinates import Frame, edge_to_index, index_to_edge
from ultrarefiner.refinement import BestSelection, ClickCorrection, GRUCorrection
from ultrarefiner.sam import InputPolicy, SAMLike, decode, encode_images
from ultrarefiner.systems.answered_rounds import AnsweredRound, AnsweredRounds
from ultrarefiner.systems.at_rest import at_rest
from ultrarefiner.systems.click_correction import check_correction_options, correct_at_clicks
from ultrarefiner.systems.prompted import policy_of
from ultrarefiner.systems.told_prompts import (
    NOTHING_LOGIT,
    ToldBox,
    ToldClicks,
    first_on_object,
    told_box,
    told_clicks,
)
from ultrarefiner.types import Clicks, Prompts


@dataclass(frozen=True)
class ImageState:
    """An image that is being segmented; `ImageSegmenter.start` makes it.

    Attributes:
        embedding: SAM's, of the image.
        size: (height, width) of the image.
        device: where the image lies.
        rounds: what was answered so far. They belong to the weights that answered: after training, start again.
    """

    embedding: Float[Tensor, "1 d low_h low_w"]
    size: tuple[int, int]
    device: torch.device
    rounds: AnsweredRounds = field(repr=False)


class ImageSegmenter(nn.Module):
    """Segment one object of an image of any size with SAM, by a box, clicks or both.

    The encoder runs once an image. At the first prompt, and at every click after it, SAM's decoder is told the box, all
    clicks so far, and the low-resolution logits of its last answer as its mask prompt, as SAM was trained. A single
    click without a box may mean several things: of SAM's three candidates the one that SAM believes best is taken. All
    other prompts get its single mask. Then the correction, if there is one, works on the answer.

    A click on the background never makes an object where there is none: until there is a box or a click on the object,
    SAM is not asked, and the mask is empty. The clicks before it are told with it.

    An answer is the prompts' alone: it is built up from the first click to the last, and what was built before is kept.
    It answers in evaluation mode, whatever mode it is in (`at_rest`).

    Args:
        sam: built by `build_sam`, or any SAM-like module. MedSAM was trained on boxes alone.
        correction: `GRUCorrection` of 2 dimensions, or `WrittenClicks`; None for SAM alone.
        redecode: True: SAM hears every click, and the correction sees its new answer and all clicks. False: SAM hears
            the box alone (without one the clicks up to the first on the object), and the correction goes on from the
            last answer, with the newest click. As in the correction's training; None is True without a correction,
            False with one.
        previous_mask: whether SAM's last answer is its next mask prompt.
        selection: chooses among the candidates of a single click; `BestSelection` if not given.
        correction_side: the longest side of the raster on which the correction works, the size that it was trained on;
            None for the image's own pixels (`correct_at_clicks`).
        cache_bytes: how much of earlier answers is kept for each image; what does not fit is made again.
        input_policy: how images become SAM's input, for a foreign ``sam`` that does not bring its own.

    Raises:
        ValueError: no input policy is known, a number is out of range, a correction for volumes, or nothing would
            listen to clicks.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> from ultrarefiner.systems import InteractiveSession
        >>> session = InteractiveSession(ImageSegmenter(build_sam("tiny", image_size=64)), torch.rand(1, 40, 100))
        >>> session.click((20, 70))
        >>> session.box((10, 50, 30, 90))
        >>> session.mask.shape
        torch.Size([1, 40, 100])

    Kirillov et al., "Segment Anything", ICCV 2023 (arXiv 2304.02643): interactive training.
    """

    def __init__(
        self,
        sam: nn.Module | SAMLike,
        correction: ClickCorrection | None = None,
        *,
        redecode: bool | None = None,
        previous_mask: bool = True,
        selection: nn.Module | None = None,
        correction_side: int | None = None,
        cache_bytes: int = 2**28,
        input_policy: InputPolicy | None = None,
    ) -> None:
        super().__init__()
        check_correction_options(correction_side, cache_bytes)
        if correction is None and redecode is False:
            message = (
                "redecode must be True where correction is None, or nothing would listen to clicks, but it is "
                "False; pass a GRUCorrection."
            )
            raise ValueError(message)
        if isinstance(correction, GRUCorrection) and correction.dimensions != 2:
            message = (
                f"correction must be for 2 dimensions, but it is for {correction.dimensions}; build it with "
                "GRUCorrection(dimensions=2), or use VolumeSegmenter for volumes."
            )
            raise ValueError(message)
        self.sam = sam
        self.correction = correction
        self.redecode = correction is None if redecode is None else redecode
        self.previous_mask = previous_mask
        self.selection = BestSelection() if selection is None else selection
        self.correction_side = correction_side
        self.cache_bytes = cache_bytes
        self.input_policy = policy_of(sam, input_policy)

    def forward(
        self,
        image: Float[Tensor, "c h w"],
        *,
        box: Sequence[int] | Int[Tensor, " 4"] | None = None,
        clicks: Clicks | None = None,
    ) -> Float[Tensor, "1 h w"]:
        """`start` and `segment` at once, for prompts that are all known.

        Args:
            image: see `start`.
            box: see `segment`.
            clicks: see `segment`.

        Returns:
            Logits of the mask after the last click.

        Raises:
            ValueError: see `start` and `segment`.
        """
        return self.segment(self.start(image), box, clicks)

    @torch.no_grad()
    def start(self, image: Float[Tensor, "c h w"]) -> ImageState:
        """Encode an image; nothing after it runs SAM's encoder.

        Args:
            image: grey (1, h, w) or RGB (3, h, w), in [0, 1].

        Returns:
            What `segment` asks again and again.

        Raises:
            ValueError: another rank, number of channels, dtype or range, or NaN.
        """
        checked, sam = _checked_image(image), cast("SAMLike", self.sam)
        weights = next(sam.image_encoder.parameters(), None)
        seen = checked if weights is None else checked.to(weights.device)
        with at_rest(self):
            embedding = encode_images(sam, self.input_policy(seen[None]))
        height, width = (int(side) for side in checked.shape[1:])
        return ImageState(embedding, (height, width), checked.device, AnsweredRounds(cache_bytes=self.cache_bytes))

    @torch.no_grad()
    def segment(
        self,
        state: ImageState,
        box: Sequence[int] | Int[Tensor, " 4"] | None = None,
        clicks: Clicks | None = None,
    ) -> Float[Tensor, "1 h w"]:
        """Segment by all prompts so far.

        Args:
            state: of the image.
            box: (y0, x0, y1, x1), the first and the last pixel inside.
            clicks: into this image, positions (1, n, 2) as (y, x), in the order in which they were made.

        Returns:
            Logits on the image's pixels, on its device; the caller's own.

        Raises:
            ValueError: no prompt at all, a box or click that is none or lies outside, clicks into several images, or
                SAM answers with NaN or infinity.
        """
        drawn, told = told_box(box, state.size), told_clicks(clicks, state.size)
        if drawn is None and not told:
            message = "segment must be given a box or a click, but there is none; say what to segment."
            raise ValueError(message)

        def ask(some: ToldClicks, before: AnsweredRound | None) -> AnsweredRound:
            return self._round(state, drawn, some, before)

        first = first_on_object(told) if drawn is None else 0
        if first is None:
            return torch.full((1, *state.size), NOTHING_LOGIT, device=state.device)
        with at_rest(self):
            made = state.rounds.after(drawn, told, ask, first=first)
        return made.logits[0].to(state.device, copy=True)

    def extra_repr(self) -> str:
        """The constructor's numbers."""
        names = ("redecode", "previous_mask", "correction_side", "cache_bytes")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def _round(
        self, state: ImageState, box: ToldBox | None, told: ToldClicks, before: AnsweredRound | None
    ) -> AnsweredRound:
        frame = self.input_policy.frame(state.size)
        known = None if before is None else before.low_logits
        low = self._asked(state, frame, box, told, known) if self.redecode or known is None else known
        logits = self.input_policy.restore(low if low.dtype == torch.float64 else low.float(), frame)
        if self.correction is None or not told:
            return AnsweredRound(logits, low)
        found = correct_at_clicks(
            self.correction,
            logits,
            told if self.redecode else told[-1:],
            side=self.correction_side,
            state=None if before is None else before.state,
            earlier=None if before is None else before.raster_logits,
        )
        return AnsweredRound(found.logits, low, found.state, None if self.redecode else found.raster_logits)

    def _asked(
        self, state: ImageState, frame: Frame, box: ToldBox | None, told: ToldClicks, last: Tensor | None
    ) -> Float[Tensor, "1 1 low_h low_w"]:
        """SAM's answer in its frame, at low resolution."""
        prompts = _prompts(frame, box, told, last if self.previous_mask else None, state.embedding.device)
        ambiguous = box is None and len(told) == 1
        candidates = decode(cast("SAMLike", self.sam), state.embedding, prompts, multimask=ambiguous)
        low: Tensor = self.selection(candidates)[0] if ambiguous else candidates.logits[:, :, 0]
        check_answer(low, "the answer of sam")
        return low


def _prompts(
    frame: Frame, box: ToldBox | None, told: ToldClicks, mask_logits: Tensor | None, device: torch.device
) -> Prompts:
    """Pixels of the image, (y, x), as SAM is told them: (x, y) of its frame, where a box ends at its pixels' edges."""

    def in_frame(edges: Any) -> Tensor:
        return edge_to_index(frame.to_frame(edges.to(device)))

    points = labels = boxes = None
    if told:
        indices = torch.tensor([[float(x), float(y)] for (y, x), _ in told])
        points = in_frame(index_to_edge(indices))[None, None]
        labels = torch.tensor([int(positive) for _, positive in told], device=device)[None, None]
    if box is not None:
        y0, x0, y1, x1 = box
        boxes = in_frame(torch.tensor([float(x0), float(y0), float(x1 + 1), float(y1 + 1)]))[None, None]
    valid = torch.ones(1, 1, dtype=torch.bool, device=device)
    return Prompts(points, labels, boxes, mask_logits, valid)


def _checked_image(image: Any) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        came = f"of the shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        message = (
            f"image must be (1, h, w), grey, or (3, h, w), RGB, but it is {came}; move channels first with "
            ".permute(2, 0, 1) if they are last, or add one with image[None]."
        )
        raise ValueError(message)
    check_images(image[None], "image")
    return image
