"""A conversation in training: a box, an answer, a click into its largest error, an answer, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from ultrarefiner.networks import SegVol
from ultrarefiner.prompts import next_click
from ultrarefiner.refinement import CorrectionState, GRUCorrection
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class Answer:
    """A mask in a conversation.

    Attributes:
        logits: on the volume's own grid, float32 or wider.
        clicks: all that were made before this answer.
        edited: the voxels that a correction has written by now.
    """

    logits: Float[Tensor, "b 1 d h w"]
    clicks: Clicks
    edited: Bool[Tensor, "b 1 d h w"]


def simulate_clicks(
    model: SegVol,
    embedding: Float[Tensor, "b c ed eh ew"],
    boxes: Real[Tensor, "b 6"],
    masks: Float[Tensor, "b 1 d h w"],
    *,
    clicks: int,
    correction: GRUCorrection | None = None,
    redecode: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[Answer, ...]:
    """The answers after 0, 1, 2 … clicks, each click into the largest error of the answer before (`next_click`).

    Each method makes its own mistakes, so each gets its own clicks. With ``redecode`` the decoder is told the box and
    all clicks so far as points, and the correction, if there is one, sees the decoder's new answer and all clicks;
    without it the decoder is asked once, for the box, and the correction sees its own last logits and the new click.
    The correction's hidden state is carried from click to click either way, and it works on the volume's own grid. Of a
    volume without an error nothing more is clicked. The encoder does not run.

    Args:
        model: its decoder is asked.
        embedding: of the volumes, `SegVol.encode`.
        boxes: (z0, y0, x0, z1, y1, x1), first and last voxel.
        masks: the truth, which only the clicks see.
        clicks: how many.
        correction: corrects every answer to a click; None leaves the decoder's.
        redecode: whether the decoder sees the clicks.
        generator: on the CPU; draws among equally good places of a click.

    Returns:
        ``clicks`` + 1 answers.

    Raises:
        ValueError: there is neither a correction nor a decoder that sees the clicks.

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
    logits = _decoded(model, embedding, boxes, None)
    answers = [Answer(logits, Clicks.none(len(masks), 3, device=masks.device), torch.zeros_like(masks).bool())]
    state: CorrectionState | None = None
    for _ in range(clicks):
        last = answers[-1]
        new = next_click(last.logits.detach().sigmoid(), masks, generator=generator)
        told = last.clicks.then(new)
        logits, edited = _decoded(model, embedding, boxes, told) if redecode else last.logits, last.edited
        if correction is not None:
            with torch.autocast(masks.device.type, enabled=False):
                corrected = correction(logits, told if redecode else new, state)
            logits, state, edited = corrected.logits, corrected.state, edited | corrected.written
        answers.append(Answer(logits, told, edited))
    return tuple(answers)


def _decoded(model: SegVol, embedding: Tensor, boxes: Tensor, clicks: Clicks | None) -> Tensor:
    points: Any = None
    if clicks is not None:
        points = clicks.positions.float(), clicks.positive.long().masked_fill(~clicks.valid, -1)
    logits = model.decode(embedding, boxes=boxes.float(), points=points).mask_logits
    return model.enlarge(logits if logits.dtype == torch.float64 else logits.float())
