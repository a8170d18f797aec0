"""How masks get better with clicks: a correction, and the rule that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ultrarefiner.data import Batch, collate
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.refinement import ClickCorrection, WrittenClicks
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.click_correction import on_raster
from ultrarefiner.systems.one_mask import one_mask_logits
from ultrarefiner.training import dice_of_images, simulate_corrections
from ultrarefiner.training.recipe import inside_content

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
def click_curves(
    first: FirstAnswer,
    corrections: Mapping[str, ClickCorrection],
    cases: Any,
    *,
    clicks: int,
    side: int | None,
    device: torch.device,
    batch_size: int = 8,
    progress: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Dice of every case (rows) after 0, 1, 2 … clicks (columns), each in the middle of the largest error then.

    Each case is read once, and the network is asked once; each correction then gets clicks of its own.

    Args:
        first: what is to be corrected.
        corrections: by name, on the device.
        cases: fitted ones; nothing beside their content is clicked.
        clicks: how many.
        side: the longest side of the raster on which the corrections work; None for the frame.
        device: where all is computed.
        batch_size: images at once.
        progress: show a progress bar on a terminal.

    Returns:
        Of each correction, by its name.

    Example:
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> cases, first = FittedCases(Phantoms(2), 32), answer_of(nn.Conv2d(1, 1, 3, padding=1))
        >>> rules = {"rule": WrittenClicks()}
        >>> click_curves(first, rules, cases, clicks=2, side=None, device=torch.device("cpu"))["rule"].shape
        (2, 3)
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in corrections}
    with progress_bar(len(cases), "click", "case", shown=progress) as bar:
        for start in range(0, len(cases), batch_size):
            batch = collate([cases[index] for index in range(start, min(start + batch_size, len(cases)))])
            batch = _moved(batch, device)
            inside = inside_content(batch.content_sizes, batch.images.shape[-2:])
            logits = on_raster(first(batch), batch.masks.shape[-2:]).masked_fill(~inside, _NOTHING)
            how: dict[str, Any] = {"clicks": clicks, "correction_side": side, "inside": inside}
            for name, correction in corrections.items():
                answers = simulate_corrections(logits, batch.masks, correction=correction, **how)
                scores = [dice_of_images(one.logits.sigmoid(), batch.masks) for one in answers]
                rows[name].append(torch.stack(scores, 1).cpu())
            bar.update(len(batch.images))
    return {name: torch.cat(found).double().numpy() for name, found in rows.items()}


def chosen_rule(
    first: FirstAnswer,
    cases: Any,
    *,
    clicks: int,
    side: int | None,
    radius: float,
    device: torch.device,
    progress: bool = False,
) -> WrittenClicks:
    """The rule that writes each click into its neighbours, as many as are best for the cases that choose.

    Args:
        first: what is to be corrected.
        cases: that choose.
        clicks: after which it is judged.
        side: see `click_curves`.
        radius: of the rule, in pixels of that raster.
        device: where all is computed.
        progress: show a progress bar on a terminal.
    """
    raster = cases[0].mask.shape[-1] if side is None else side
    counts = sorted({max(1, round(share * raster**2)) for share in _SHARES})
    rules = {str(count): WrittenClicks(count=count, radius=radius) for count in counts}
    curves = click_curves(first, rules, cases, clicks=clicks, side=side, device=device, progress=progress)
    return rules[max(curves, key=lambda name: float(curves[name][:, -1].mean()))]


def _moved(batch: Batch, device: torch.device) -> Batch:
    coarse = batch.coarse_probability
    return batch._replace(
        images=batch.images.to(device),
        masks=batch.masks.to(device),
        content_sizes=batch.content_sizes.to(device),
        coarse_probability=None if coarse is None else coarse.to(device),
    )
