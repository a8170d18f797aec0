"""How masks get better with clicks: a correction, and the rule that it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ultrarefiner.data import Batch, collate
from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.refinement import ClickCorrection, WrittenClicks
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.click_correction import on_raster
from ultrarefiner.systems.one_mask import one_mask_logits
from ultrarefiner.training import dice_of_images, simulate_corrections

LARGEST_LOGIT = 4.0
"""Of masks that no network made: about as sure as one."""
_SHARES = (0.001, 0.002, 0.004, 0.008, 0.016)
_NOTHING = -13.8

FirstAnswer = Callable[[Batch], Tensor]
"""From a batch to logits (b, 1, h, w) before any click."""


def answer_of(network: nn.Module | None) -> FirstAnswer:
    """What is to be corrected: a network's answer, or the coarse masks of the data set.

    Args:
        network: one mask an image; None for the data set's masks.
    """

    @torch.no_grad()
    def asked(batch: Batch) -> Tensor:
        if network is None:
            masks: Any = batch.coarse_probability
            return finite_logit(masks).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        told = (batch.content_sizes,) if isinstance(network, UltraRefiner) else ()
        return one_mask_logits(network(batch.images, *told), images=len(batch.images), axes=2)

    return asked


@torch.no_grad()
def click_curve(
    first: FirstAnswer,
    correction: ClickCorrection,
    cases: Any,
    *,
    clicks: int,
    side: int | None,
    device: torch.device,
    batch_size: int = 8,
) -> NDArray[np.float64]:
    """Dice of every case (rows) after 0, 1, 2 … clicks (columns), each in the middle of the largest error then.

    Args:
        first: what is to be corrected.
        correction: on the device.
        cases: fitted ones; nothing beside their content is clicked.
        clicks: how many.
        side: the longest side of the raster on which the correction works; None for the frame.
        device: where all is computed.
        batch_size: images at once.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> cases, first = FittedCases(Phantoms(2), 32), answer_of(nn.Conv2d(1, 1, 3, padding=1))
        >>> click_curve(first, WrittenClicks(), cases, clicks=2, side=None, device=torch.device("cpu")).shape
        (2, 3)
    """
    rows = []
    for start in range(0, len(cases), batch_size):
        batch = collate([cases[index] for index in range(start, min(start + batch_size, len(cases)))])
        batch = _moved(batch, device)
        inside = _inside(batch)
        logits = on_raster(first(batch), batch.masks.shape[-2:]).masked_fill(~inside, _NOTHING)
        answers = simulate_corrections(
            logits, batch.masks, clicks=clicks, correction=correction, correction_side=side, inside=inside
        )
        rows.append(torch.stack([dice_of_images(one.logits.sigmoid(), batch.masks) for one in answers], 1).cpu())
    return torch.cat(rows).double().numpy()


def chosen_rule(
    first: FirstAnswer, cases: Any, *, clicks: int, side: int | None, radius: float, device: torch.device
) -> WrittenClicks:
    """The rule that writes each click into its neighbours, as many as are best for the cases that choose.

    Args:
        first: what is to be corrected.
        cases: that choose.
        clicks: after which it is judged.
        side: see `click_curve`.
        radius: of the rule, in pixels of that raster.
        device: where all is computed.
    """
    raster = cases[0].mask.shape[-1] if side is None else side
    rules = [WrittenClicks(count=max(1, round(share * raster**2)), radius=radius) for share in _SHARES]
    scores = [click_curve(first, rule, cases, clicks=clicks, side=side, device=device)[:, -1].mean() for rule in rules]
    return rules[int(np.argmax(scores))]


def _moved(batch: Batch, device: torch.device) -> Batch:
    coarse = batch.coarse_probability
    return batch._replace(
        images=batch.images.to(device),
        masks=batch.masks.to(device),
        content_sizes=batch.content_sizes.to(device),
        coarse_probability=None if coarse is None else coarse.to(device),
    )


def _inside(batch: Batch) -> Tensor:
    """Which pixels of the frame are no padding, (b, 1, h, w)."""
    height, width = batch.images.shape[-2:]
    rows = torch.arange(height, device=batch.images.device) < batch.content_sizes[:, :1]
    columns = torch.arange(width, device=batch.images.device) < batch.content_sizes[:, 1:]
    return rows[:, None, :, None] & columns[:, None, None, :]
