"""One more click in one view: the network is asked again, and the correction writes what it makes of the click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement import ClickCorrection, CorrectionState
from ultrarefiner.types import Clicks


@runtime_checkable
class PromptedNetwork(Protocol):
    """A network that is prompted in 3-D: `SegVol`, or whatever answers as it does."""

    volume_size: tuple[int, int, int]

    def encode(self, volume: Tensor, /) -> Tensor:
        """Volumes (b, 1, D, H, W) of ``volume_size`` to an embedding.

        Args:
            volume: (b, 1, d, h, w).

        Returns:
            (b, c, d', h', w').
        """
        ...

    def decode(
        self,
        embedding: Tensor,
        /,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Any:
        """Prompts in voxel indices of ``volume_size`` to something with ``mask_logits`` (b, 1, d, h, w).

        Args:
            embedding: (b, c, d', h', w'), from `encode`.
            points: positions (b, n, 3) and labels (b, n).
            boxes: (b, 6).
            text: (b, c).

        Returns:
            With ``mask_logits`` (b, 1, d, h, w).
        """
        ...


@dataclass(frozen=True)
class ClickMemory:
    """What the next click needs of those before it.

    Attributes:
        state: of the correction; None before its first click.
        logits: the last answer. Without ``redecode`` the next one starts from it; with it, only a volume without a new
            click needs it, and it may be None where every volume has one.
    """

    state: CorrectionState | None = None
    logits: Float[Tensor, "b 1 d h w"] | None = None


@dataclass(frozen=True)
class ClickRound:
    """The answer after a click, or before the first.

    Attributes:
        logits: corrected, on the grid of the network's input; without a correction on the coarse one of its answers.
        memory: for the next click.
        written: the voxels that the correction wrote for this click; None where there was nothing to correct.
    """

    logits: Float[Tensor, "b 1 d h w"]
    memory: ClickMemory
    written: Bool[Tensor, "b 1 d h w"] | None = None


def next_round(
    network: PromptedNetwork,
    embedding: Float[Tensor, "e c low_d low_h low_w"],
    *,
    clicks: Clicks,
    boxes: Real[Tensor, "b 6"] | None = None,
    text: Float[Tensor, "b c"] | None = None,
    correction: ClickCorrection | None = None,
    before: ClickMemory | None = None,
    redecode: bool = True,
) -> ClickRound:
    """Ask the network, and let the correction work on its answer, by the rule of `training.simulate_clicks`.

    With ``redecode`` the network is told the box and all clicks so far, and the correction sees its new answer and all
    clicks. Without it the network is asked once, for the box (or the text, or without either the clicks of then), and
    the correction works on the last answer, with the newest click. The hidden state is carried either way. Before the
    first click nothing is corrected. A volume whose newest click is not ``valid`` keeps its last answer and memory. It
    is differentiable, and a batch is each of its elements.

    Args:
        network: what is asked.
        embedding: of the volumes, or of one that all prompts ask.
        clicks: all so far, one more each round, in voxel indices of the network's input; not ``valid`` is padding.
        boxes: in the same frame.
        text: embeddings.
        correction: None for the network alone.
        before: the last round's memory; None for the first.
        redecode: whether the network sees the clicks.

    Returns:
        The answer, and the memory for the next round.

    Raises:
        ValueError: there is no prompt at all.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> network = build_segvol("tiny", volume_size=(8, 16, 16))
        >>> embedding = network.encode(torch.rand(1, 1, 8, 16, 16))
        >>> next_round(network, embedding, clicks=Clicks.at([(4, 8, 8)], positive=[True])).logits.shape
        torch.Size([1, 1, 8, 8, 8])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """
    known = None if before is None else before.logits
    if redecode or known is None:
        points = _points(clicks) if redecode or (boxes is None and text is None) else None
        answer: Tensor = network.decode(embedding, points=points, boxes=boxes, text=text).mask_logits
        known = answer if answer.dtype == torch.float64 else answer.float()
    if clicks.positions.shape[1] == 0:
        return ClickRound(known, ClickMemory(None if before is None else before.state, known))
    return _answered(known, clicks, correction, before, network.volume_size, redecode=redecode)


def _answered(
    logits: Tensor,
    clicks: Clicks,
    correction: ClickCorrection | None,
    before: ClickMemory | None,
    grid: Sequence[int],
    *,
    redecode: bool,
) -> ClickRound:
    """What the correction makes of an answer, for every volume that was clicked into."""
    memory, new = before or ClickMemory(), clicks.valid[:, -1:]
    state, written = memory.state, None
    if correction is not None:
        heard = clicks if redecode else _last(clicks)
        told = heard if before is None else replace(heard, valid=heard.valid & new)
        with torch.autocast(logits.device.type, enabled=False):
            corrected = correction(on_grid(logits, grid), told, state)
        logits, state, written = corrected.logits, corrected.state, corrected.written
    if memory.logits is not None:
        last = on_grid(memory.logits, logits.shape[2:]).to(logits.dtype)
        logits = logits.where(new[..., None, None, None], last)
    return ClickRound(logits, ClickMemory(state, logits), written)


def on_grid(logits: Float[Tensor, "b 1 d h w"], grid: Sequence[int]) -> Float[Tensor, "b 1 _ _ _"]:
    """Logits interpolated (trilinearly) to a grid over the same volume; untouched where it is theirs.

    Example:
        >>> on_grid(torch.zeros(1, 1, 2, 2, 2), (4, 3, 2)).shape
        torch.Size([1, 1, 4, 3, 2])
    """
    size = [int(side) for side in grid]
    if list(logits.shape[2:]) == size:
        return logits
    return functional.interpolate(logits, size, mode="trilinear", align_corners=False)


def _last(clicks: Clicks) -> Clicks:
    return Clicks(clicks.positions[:, -1:], clicks.positive[:, -1:], clicks.valid[:, -1:])


def _points(clicks: Clicks) -> tuple[Tensor, Tensor] | None:
    if clicks.positions.shape[1] == 0:
        return None
    return clicks.positions.float(), clicks.positive.long().masked_fill(~clicks.valid, -1)
