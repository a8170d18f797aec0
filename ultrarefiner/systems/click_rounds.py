"""One more click in one view: the network is asked again, and the correction writes what it makes of the click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.nn import functional

from ultrarefiner.refinement import CorrectionState, GRUCorrection
from ultrarefiner.types import Clicks


@runtime_checkable
class PromptedNetwork(Protocol):
    """A network that is prompted in 3-D: `SegVol`, or whatever answers as it does."""

    volume_size: tuple[int, int, int]

    def encode(self, volume: Tensor, /) -> Tensor:
        """Volumes (b, 1, D, H, W) of ``volume_size`` to an embedding."""
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
        """Prompts in voxel indices of ``volume_size`` to something with ``mask_logits`` (b, 1, d, h, w)."""
        ...


@dataclass(frozen=True)
class ClickMemory:
    """What the next click needs of those before it.

    Attributes:
        state: of the correction; None before its first click.
        logits: the last answer, where the next one starts from it; None where the network is asked again.
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
    correction: GRUCorrection | None = None,
    before: ClickMemory | None = None,
    redecode: bool = True,
) -> ClickRound:
    """Ask the network, and let the correction work on its answer, by the rule of `training.simulate_clicks`.

    With ``redecode`` the network is told the box and all clicks so far, and the correction sees its new answer and all
    clicks. Without it the network is asked once, for the box (or the text, or without either the first click), and the
    correction works on the last answer, with the newest click. The hidden state is carried either way. Before the first
    click nothing is corrected. It is differentiable, and a batch is each of its elements.

    Args:
        network: what is asked.
        embedding: of the volumes, or of one that all prompts ask.
        clicks: all so far, in voxel indices of the network's input; one that is not ``valid`` is padding.
        boxes: in the same frame.
        text: embeddings.
        correction: None for the network alone.
        before: the last round's memory; None for the first.
        redecode: whether the network sees the clicks.

    Raises:
        ValueError: there is no prompt at all.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> network = build_segvol("tiny", volume_size=(8, 16, 16))
        >>> embedding = network.encode(torch.rand(1, 1, 8, 16, 16))
        >>> first = next_round(network, embedding, clicks=Clicks.at([(4, 8, 8)], positive=[True]))
        >>> first.logits.shape
        torch.Size([1, 1, 8, 8, 8])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """
    count = clicks.positions.shape[1]
    memory = before or ClickMemory()
    if redecode or memory.logits is None:
        known = boxes is not None or text is not None
        asked = clicks if redecode else _between(clicks, 0, 0 if known else 1)
        answer: Tensor = network.decode(embedding, points=_points(asked), boxes=boxes, text=text).mask_logits
        logits = answer if answer.dtype == torch.float64 else answer.float()
    else:
        logits = memory.logits
    state, written = memory.state, None
    if correction is not None and count > 0:
        told = clicks if redecode else _between(clicks, count - 1, count)
        with torch.autocast(logits.device.type, enabled=False):
            corrected = correction(on_grid(logits, network.volume_size), told, state)
        logits, state, written = corrected.logits, corrected.state, corrected.written
    return ClickRound(logits, ClickMemory(state, None if redecode else logits), written)


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


def _between(clicks: Clicks, first: int, stop: int) -> Clicks:
    return Clicks(clicks.positions[:, first:stop], clicks.positive[:, first:stop], clicks.valid[:, first:stop])


def _points(clicks: Clicks) -> tuple[Tensor, Tensor] | None:
    if clicks.positions.shape[1] == 0:
        return None
    return clicks.positions.float(), clicks.positive.long().masked_fill(~clicks.valid, -1)
