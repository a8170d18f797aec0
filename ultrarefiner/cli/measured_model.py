"""A model as `ultrarefiner predict` uses it, with mirror images, rounds and precision, against true masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

from ultrarefiner.data import Case, Cases, FitToSquare, collate
from ultrarefiner.prediction import PredictedMasks, Predictor
from ultrarefiner.prediction.segmenting import restored

if TYPE_CHECKING:
    from ultrarefiner.evaluation import CaseMetrics, Evaluation, Panel


def measure_model(
    predictor: Predictor,
    cases: Cases,
    *,
    size: int,
    batch_size: int,
    threshold: float,
    panels: int,
    progress: bool,
) -> Evaluation:
    """What `ultrarefiner.evaluation.evaluate` does, of a predictor: with one view, one round and float32 the same.

    Args:
        predictor: a model and how it is used.
        cases: with true masks.
        size: side of the square that images are fitted to.
        batch_size: images at once.
        threshold: probability in (0, 1) from which on a pixel is lesion.
        panels: how many cases to draw.
        progress: whether to show a progress bar.

    Raises:
        ValueError: there are no cases, or a number is out of range.
    """
    from ultrarefiner.evaluation import Evaluation, compare, segmentation_metrics
    from ultrarefiner.evaluation.options import check_cases, check_options
    from ultrarefiner.evaluation.ranking import evenly_ranked

    check_cases(cases)
    check_options(batch_size, panels, threshold)
    coarse: list[CaseMetrics] = []
    refined: list[CaseMetrics] = []
    with tqdm(total=len(cases), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(cases), batch_size):
            together = [cases[index] for index in range(start, min(start + batch_size, len(cases)))]
            for case, masks in zip(together, _predicted(predictor, together, size, threshold), strict=True):
                target = case.mask >= 0.5
                coarse.append(segmentation_metrics(masks.coarse_mask, target))
                refined.append(segmentation_metrics(masks.mask, target))
                bar.update()
    comparison = compare(cases.names, coarse, refined, groups=cases.groups)
    chosen = evenly_ranked([after.dice - before.dice for before, after in zip(coarse, refined, strict=True)], panels)
    drawn = []
    for index in chosen:
        # Segmented once more: to keep every map until the cases are ranked would take too much memory.
        (masks,) = _predicted(predictor, [cases[index]], size, threshold)
        drawn.append(_panel(cases[index], masks, coarse[index], refined[index]))
    return Evaluation(comparison, tuple(drawn))


def _predicted(predictor: Predictor, together: list[Case], size: int, threshold: float) -> list[PredictedMasks]:
    """The masks of each case on its own pixels, on the CPU."""
    fit = FitToSquare(size)
    batch = collate([fit(case) for case in together])
    found = predictor(batch.images, batch.content_sizes)
    return [
        restored(found, index, fit=fit, size=(case.mask.shape[-2], case.mask.shape[-1]), threshold=threshold)
        for index, case in enumerate(together)
    ]


def _panel(case: Case, masks: PredictedMasks, coarse: CaseMetrics, refined: CaseMetrics) -> Panel:
    from ultrarefiner.evaluation import Panel

    told = bool(masks.refinable[0])  # what an empty mask's prompts say means nothing

    def first(coordinates: Tensor | None) -> Tensor | None:
        return coordinates[0] if coordinates is not None and told else None

    return Panel(
        name=case.name,
        image=case.image,
        coarse_probability=masks.coarse_probability,
        refined_probability=masks.refined_probability,
        target=case.mask,
        points=first(masks.points),
        labels=first(masks.labels),
        box=first(masks.box),
        region=first(masks.region),
        coarse_dice=coarse.dice,
        refined_dice=refined.dice,
        threshold=masks.threshold,
    )
