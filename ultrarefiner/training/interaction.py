"""A conversation in training: a first answer, a click into its largest error, an answer, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from ultrarefiner.networks import SegVol
from ultrarefiner.prompts import next_click
from ultrarefiner.refinement import ClickCorrection, CorrectionState
from ultrarefiner.systems.click_correction import check_correction_options, correct_on_raster, on_raster
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class Answer:
    """A mask in a conversation.

    Attributes:
        logits: on the volume's or image's own grid, float32 or wider.
        clicks: all that were made before this answer.
        edited: the voxels that a correction has written by now; on a raster of its own, those that this reaches.
    """

    logits: Float[Tensor, "b 1 *space"]
    clicks: Clicks
    edited: Bool[Tensor, "b 1 *space"]


def simulate_clicks(
    model: SegVol,
    embedding: Float[Tensor, "b c ed eh ew"],
    boxes: Real[Tensor, "b 6"] | None,
    masks: Float[Tensor, "b 1 d h w"],
    *,
    clicks: int,
    correction: ClickCorrection | None = None,
    redecode: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[Answer, ...]:
    """The answers after 0, 1, 2 … clicks, each click into the largest error of the answer before (`next_click`).

    Each method makes its own mistakes, so each gets its own clicks. With ``redecode`` the decoder is told the box and
    all clicks so far as points, and the correction, if there is one, sees the decoder's new answer and all clicks;
    without it the decoder is asked once, for the box, and the correction sees its own last logits and the new click.
    The correction's hidden state is carried from click to click either way, and it works on the volume's own grid. Of a
    volume without an error nothing more is clicked, and its answer stays. The encoder does not run.

    Without boxes nothing is predicted before the first click (logits of -inf), which then lies in the middle of the
    object, and the decoder is told the clicks alone.

    Args:
        model: its decoder is asked.
        embedding: of the volumes, `SegVol.encode`.
        boxes: (z0, y0, x0, z1, y1, x1), first and last voxel; None for clicks alone.
        masks: the truth, which only the clicks see.
        clicks: how many.
        correction: corrects every answer to a click; None leaves the decoder's.
        redecode: whether the decoder sees the clicks.
        generator: on the CPU; draws among equally good places of a click.

    Returns:
        ``clicks`` + 1 answers.

    Raises:
        ValueError: there is neither a correction nor a decoder that sees the clicks, or the decoder would see nothing
            at all.

    Example:
        >>> import torch
        >>> from ultrarefiner.networks import build_segvol
        >>> model, masks = build_segvol("tiny"), torch.zeros(1, 1, 32, 64, 64)
        >>> masks[..., 8:16, 20:40, 20:40] = 1.0
        >>> box = torch.tensor([[8, 20, 20, 15, 39, 39]])
        >>> with torch.no_grad():
        ...     found = simulate_clicks(model, model.encode(masks), box, masks, clicks=2)
        >>> len(found), found[0].logits.shape, found[2].clicks.positions.shape
        (3, torch.Size([1, 1, 32, 64, 64]), torch.Size([1, 2, 3]))
    """
    if clicks > 0 and correction is None and not redecode:
        message = "redecode must be True where correction is None, or nothing would answer the clicks."
        raise ValueError(message)
    if boxes is None and not redecode:
        message = "redecode must be True where boxes is None, or the decoder would be asked without a prompt."
        raise ValueError(message)
    nothing = torch.full_like(masks, -math.inf)
    logits = nothing if boxes is None else _decoded(model, embedding, boxes, None)
    decode = (lambda told: _decoded(model, embedding, boxes, told)) if redecode else None
    return _conversation(logits, masks, clicks, correction, decode=decode, generator=generator)


def simulate_corrections(
    logits: Float[Tensor, "b 1 *space"],
    masks: Float[Tensor, "b 1 *space"],
    *,
    clicks: int,
    correction: ClickCorrection,
    correction_side: int | None = None,
    inside: Bool[Tensor, "b 1 *space"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Answer, ...]:
    """The answers after 0, 1, 2 … clicks of a correction after any network, in 2-D or 3-D, as `CorrectedNetwork` gives.

    Each click lies in the largest error of the answer before (`next_click`). The correction is told it, and goes on
    from its own last logits with its memory. Where nothing is wrong nothing more is clicked, and the answer stays.

    Args:
        logits: the first answer, finite.
        masks: the truth, which only the clicks see.
        clicks: how many.
        correction: for as many dimensions.
        correction_side: see `CorrectedNetwork`.
        inside: what is no padding; nothing outside is clicked. None for everything.
        generator: on the CPU; draws among equally good places of a click.

    Returns:
        ``clicks`` + 1 answers.

    Raises:
        ValueError: shapes differ, a number is out of range, or the correction is for other dimensions.

    Example:
        >>> from ultrarefiner.refinement import WrittenClicks
        >>> masks = torch.zeros(1, 1, 16, 16)
        >>> masks[..., 4:9, 4:9] = 1.0
        >>> found = simulate_corrections(masks - 2.0, masks, clicks=2, correction=WrittenClicks(count=9))
        >>> [int((one.logits > 0).sum()) for one in found]
        [0, 9, 18]
    """
    check_correction_options(correction_side, 0)
    if logits.shape != masks.shape or clicks < 0:
        message = (
            "logits and masks must have one shape and clicks be at least 0, but they are "
            f"{tuple(logits.shape)}, {tuple(masks.shape)} and {clicks}; bring the logits onto the masks' grid."
        )
        raise ValueError(message)
    return _conversation(logits, masks, clicks, correction, side=correction_side, inside=inside, generator=generator)


def _conversation(
    first: Tensor,
    masks: Tensor,
    clicks: int,
    correction: ClickCorrection | None,
    *,
    decode: Callable[[Clicks], Tensor] | None = None,
    side: int | None = None,
    inside: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Answer, ...]:
    """The first answer and those to clicks: of the decoder, of a correction of it, or of a correction of its own."""
    axes = masks.ndim - 2
    answers = [Answer(first, Clicks.none(len(masks), axes, device=masks.device), torch.zeros_like(masks).bool())]
    state: CorrectionState | None = None
    earlier: Tensor | None = None  # on the raster
    for _ in range(clicks):
        last = answers[-1]
        seen = last.logits.detach().sigmoid()
        wanted = masks if inside is None else masks * inside
        new = next_click(seen if inside is None else seen * inside, wanted, generator=generator)
        told, again = last.clicks.then(new), new.valid.any(1)
        logits, edited = first if decode is None else decode(told), last.edited
        if correction is not None:
            heard = new if decode is None else told
            heard = replace(heard, valid=heard.valid & again[:, None])
            found = correct_on_raster(correction, logits, heard, side=side, state=state, earlier=earlier)
            logits, state = found.logits, found.state
            edited = edited | (on_raster(found.written.to(logits.dtype), logits.shape[2:]) > 0)
        # Who has not clicked again has the last answer still.
        answers.append(Answer(logits.where(again.view(-1, 1, *[1] * axes), last.logits), told, edited))
        if correction is not None and decode is None:
            earlier = answers[-1].logits if side is None else found.raster_logits
    return tuple(answers)


def _decoded(model: SegVol, embedding: Tensor, boxes: Tensor | None, clicks: Clicks | None) -> Tensor:
    points: Any = None
    if clicks is not None:
        points = clicks.positions.float(), clicks.positive.long().masked_fill(~clicks.valid, -1)
    logits = model.decode(embedding, boxes=None if boxes is None else boxes.float(), points=points).mask_logits
    return model.enlarge(logits if logits.dtype == torch.float64 else logits.float())
