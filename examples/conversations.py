"""What a simulated person and a method of answering clicks make of cases, and how good it is after each click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ultrarefiner.data import FittedVolumes
from ultrarefiner.evaluation import SlicePanel, click_table, normalised_surface_dice, segmentation_metrics
from ultrarefiner.networks import SegVol
from ultrarefiner.prompts import box_from_middle_slice
from ultrarefiner.refinement import Correction, CorrectionState, GRUCorrection, WrittenClicks
from ultrarefiner.training import dice_of_volumes, simulate_clicks
from ultrarefiner.types import Clicks

CLICKS = 5
SHOWN = (0, 1, 3)
BATCH = 10


@dataclass(frozen=True)
class Method:
    """Who answers clicks: a correction or None, after a decoder that is told them, or only the box."""

    correction: GRUCorrection | WrittenClicks | Forgetful | None
    redecode: bool


class Forgetful(nn.Module):
    """A correction that takes every click for the first."""

    def __init__(self, correction: GRUCorrection) -> None:
        super().__init__()
        self.correction = correction

    def forward(self, logits: Tensor, clicks: Clicks, _: CorrectionState | None = None) -> Correction:
        """What the correction makes of the click alone."""
        return self.correction(logits, clicks, None)


@torch.no_grad()
def converse(model: SegVol, method: Method, cases: FittedVolumes, *, clicks: int = CLICKS) -> Tensor:
    """Masks of every case after the box and each click: (cases, clicks + 1, d, h, w)."""
    found = []
    device = next(model.parameters()).device
    for start in range(0, len(cases), BATCH):
        batch = cases.collate([cases[index] for index in range(start, min(start + BATCH, len(cases)))])
        images, masks = batch.images.to(device), batch.masks.to(device)
        answers = simulate_clicks(
            model,
            model.encode(images),
            box_from_middle_slice(masks).boxes,
            masks,
            clicks=clicks,
            correction=method.correction,
            redecode=method.redecode,
        )
        found.append(torch.cat([answer.logits > 0 for answer in answers], 1).cpu())
    return torch.cat(found)


def dice(masks: Tensor, cases: FittedVolumes) -> NDArray[np.float64]:
    """Dice of every case (rows) after 0, 1, 2 … clicks (columns)."""
    rows = [
        [float(dice_of_volumes(mask[None, None].float(), cases[index].mask[None])) for mask in row]
        for index, row in enumerate(masks)
    ]
    return np.array(rows)


def curves(answers: dict[str, Tensor], cases: FittedVolumes) -> dict[str, NDArray[np.float64]]:
    """`dice` of every method."""
    return {name: dice(masks, cases) for name, masks in answers.items()}


def chosen_count(model: SegVol, rule: Method, choosing: FittedVolumes, counts: Sequence[int]) -> int:
    """Into how many voxels the rule should write a click: the best Dice of the choosing cases after three clicks."""
    if not isinstance(rule.correction, WrittenClicks):
        raise TypeError("only WrittenClicks has a count to choose")
    model.eval()
    radius, scores = rule.correction.radius, {}
    for count in counts:
        tried = replace(rule, correction=WrittenClicks(count=count, radius=radius))
        scores[count] = dice(converse(model, tried, choosing, clicks=3), choosing)[:, 3].mean()
    best = max(scores, key=lambda count: float(scores[count]))
    if best in (counts[0], counts[-1]):
        print(f"the rule is best with {best} voxels, the edge of what was tried: {', '.join(map(str, counts))}")
    return best


def surface_tables(answers: dict[str, Tensor], cases: FittedVolumes, *, against: str, seed: int) -> str:
    """HD95 and average surface distance in mm, and surface Dice at 2 mm, of every method after every click."""
    measures: dict[str, dict[str, NDArray[np.float64]]] = {"HD95 (mm)": {}, "ASD (mm)": {}, "surface Dice (2 mm)": {}}
    for name, masks in answers.items():
        rows = []
        for index, row in enumerate(masks):
            truth, spacing = cases[index].mask > 0.5, fitted_spacing(cases, index)
            found = [segmentation_metrics(mask[None], truth, spacing=spacing) for mask in row]
            near = [normalised_surface_dice(mask[None], truth, spacing=spacing) for mask in row]
            rows.append([[one.hd95 for one in found], [one.assd for one in found], near])
        for number, values in enumerate(measures.values()):
            values[name] = np.array(rows)[:, number]
    groups = list(cases.dataset.groups)
    tables = [
        click_table(values, groups, measure=measure, against=against, seed=seed) for measure, values in measures.items()
    ]
    return "\n".join(tables)


def fitted_spacing(cases: FittedVolumes, index: int) -> list[float]:
    """Of the voxels of a case as the network sees it, in mm."""
    case = cases.dataset[index]
    sides = zip(case.spacing, case.image.shape[1:], cases[index].image.shape[1:], strict=True)
    return [side * stored / fitted for side, stored, fitted in sides]


def worst_slices(answers: dict[str, Tensor], cases: FittedVolumes, *, count: int = 2) -> list[list[SlicePanel]]:
    """Of the first cases and every method the object's worst slice after the box, after some clicks."""
    rows = []
    for index in range(min(count, len(cases))):
        case = cases[index]
        _, *pixel = fitted_spacing(cases, index)
        first = next(iter(answers.values()))[index, 0]
        truth = case.mask[0] > 0.5
        place = int(((first ^ truth).sum((1, 2)) * truth.flatten(1).any(1)).argmax())
        target = case.mask[:, place] > 0.5
        for method, masks in answers.items():
            row = []
            for clicks in SHOWN:
                prediction = masks[index, clicks, place][None]
                name = f"{case.name.split('/')[-1]}: {method}"
                metrics = segmentation_metrics(prediction, target, spacing=pixel)
                rank = "box" if clicks == 0 else f"{clicks} click{'s' if clicks > 1 else ''}"
                row.append(SlicePanel(name, rank, case.image[:, place], prediction, target, metrics, tuple(pixel)))
            rows.append(row)
    return rows
