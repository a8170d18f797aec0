"""What the answers of a conversation cost: in regions, at the surface, and where nobody has said anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.refinement import near_clicks
from ultrarefiner.training.interaction import Answer


def check_losses(recipe: Any, names: Sequence[str]) -> None:
    """Raise unless a recipe's losses return one value a mask, and their weights are finite and at least 0.

    Raises:
        ValueError: a loss of one value for the batch, or such a weight.

    Example:
        >>> from types import SimpleNamespace
        >>> from ultrarefiner.losses import DiceLoss
        >>> check_losses(SimpleNamespace(loss=DiceLoss(reduction="none")), ["loss"])
    """
    for name in names:
        loss = getattr(recipe, name)
        if getattr(loss, "reduction", "none") != "none":
            message = (
                f"{name} must return one value a mask, for a case without the object may not count, but it returns one "
                f'for the batch; build {type(loss).__name__} with reduction="none".'
            )
            raise ValueError(message)
        weight = getattr(recipe, f"{name}_weight", 0.0)
        if not 0 <= weight < math.inf:
            message = f"{name}_weight must be finite and at least 0, but it is {weight}; 0 leaves the term out."
            raise ValueError(message)


def region_terms(
    recipe: Any, answers: Sequence[Answer], masks: Float[Tensor, "b 1 *space"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """A recipe's ``loss`` and its ``boundary`` of all answers, one value a case, means over the answers.

    Args:
        recipe: with these two losses, which return one value a mask, and ``boundary_weight``; with a weight of 0 the
            second is not computed, and 0.
        answers: at least one.
        masks: the truth.
    """
    logits = torch.cat([answer.logits for answer in answers], 1)
    region: Tensor = recipe.loss(logits.flatten(3), masks.expand_as(logits).flatten(3)).mean(1)
    if recipe.boundary_weight == 0:
        return region, torch.zeros_like(region)
    return region, recipe.boundary(logits, masks).mean(1)


def click_terms(
    recipe: Any, answers: Sequence[Answer], masks: Float[Tensor, "b 1 *space"], *, radius: float
) -> dict[str, Float[Tensor, " b"]]:
    """`region_terms` of the answers to clicks, and how far they moved from the first answer far from every click.

    Args:
        recipe: with ``consistency`` besides, called with an answer, the first answer and the voxels near a click.
        answers: the first one, and those after it. Where it is alone it counts itself.
        masks: the truth.
        radius: how near a click is near, in voxels.

    Returns:
        "segmentation", "boundary" and "consistency", one value a case.
    """
    later = answers[1:] or answers  # no click: the network alone learns
    region, surface = region_terms(recipe, later, masks)
    first = answers[0].logits
    near = [near_clicks(one.clicks, first.shape[2:], radius=radius) for one in later]
    kept = torch.stack(
        [recipe.consistency(one.logits, first, said)[:, 0] for one, said in zip(later, near, strict=True)]
    ).mean(0)
    return {"segmentation": region, "boundary": surface, "consistency": kept}


def weighted_sum(recipe: Any, terms: dict[str, Tensor]) -> Tensor:
    """The loss that a recipe makes of the terms, by its ``boundary_weight`` and ``consistency_weight``.

    Example:
        >>> from types import SimpleNamespace
        >>> recipe = SimpleNamespace(boundary_weight=0.1, consistency_weight=0.5)
        >>> terms = {"segmentation": 1.0, "boundary": 1.0, "consistency": 1.0}
        >>> weighted_sum(recipe, {name: torch.tensor(value) for name, value in terms.items()}).item()
        1.600000023841858
    """
    near: Tensor = terms["segmentation"] + recipe.boundary_weight * terms["boundary"]
    loss: Tensor = near + recipe.consistency_weight * terms["consistency"]
    return loss
