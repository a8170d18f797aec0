"""Evaluate a model on cases: coarse against refined, image by image, on each image's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ultrarefiner.data import Case, Cases, FitToSquare, collate
from ultrarefiner.data.restoring import RefinedBatch, RestoredMasks, restored_masks
from ultrarefiner.evaluation.comparison import Comparison, compare
from ultrarefiner.evaluation.figures import Panel
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.options import check_cases, check_options
from ultrarefiner.evaluation.ranking import evenly_ranked
from ultrarefiner.systems import UltraRefiner, prompts_on_image
from ultrarefiner.types import Prompts, RefinedSegmentation


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        comparison: every case's metrics, means with intervals, paired tests, and who gained and lost.
        panels: cases to look at, from the greatest loss of Dice to the greatest gain, evenly spaced in rank.
    """

    comparison: Comparison
    panels: tuple[Panel, ...]


def evaluate(
    model: UltraRefiner,
    cases: Cases,
    *,
    size: int,
    batch_size: int = 8,
    panels: int = 5,
    threshold: float = 0.5,
    progress: bool = True,
) -> Evaluation:
    """Segment and refine every case and measure both masks against the truth.

    Images are fitted into a square as in training, and SAM's regions stay inside their content; masks are brought back
    to each image's own pixels, soft, and thresholded there. No case is dropped: a missed lesion has Dice 0 and the
    image's diagonal as its distance.

    Args:
        model: on any device; it is put in evaluation mode and left there.
        cases: with true masks.
        size: side of the square, as in training.
        batch_size: images at once.
        panels: how many cases to draw, 0 for none.
        threshold: probability in (0, 1) from which on a pixel is lesion; panels draw their contours there. True masks
            are always lesion from 0.5.
        progress: whether to show a progress bar.

    Returns:
        The comparison and the panels.

    Raises:
        ValueError: there are no cases, the threshold is not between 0 and 1, batch_size is not positive, or panels is
            negative.

    Example:
        >>> import torch
        >>> from ultrarefiner import SAMRefiner, UltraRefiner, build_sam
        >>> from ultrarefiner.data import Phantoms
        >>> refiner = SAMRefiner(build_sam("tiny", image_size=64))
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 3, padding=1), refiner=refiner)
        >>> found = evaluate(model, Phantoms(3, size=(64, 64)), size=64, panels=1, progress=False)
        >>> len(found.comparison.coarse), len(found.panels)
        (3, 1)
    """
    model.eval()

    @torch.inference_mode()
    def refine(images: Tensor, content_sizes: Tensor) -> _Answer:
        device = next(model.parameters()).device
        result: RefinedSegmentation = model(images.to(device), content_sizes.to(device))
        prompts = prompts_on_image(model.refiner, result.refinement, (size, size))
        return _Answer(result.coarse_probability, result.refined_probability, prompts, result.refinement.boxes)

    return evaluate_refined(
        refine, cases, size=size, batch_size=batch_size, panels=panels, threshold=threshold, progress=progress
    )


def evaluate_refined(
    refine: Callable[[Tensor, Tensor], RefinedBatch],
    cases: Cases,
    *,
    size: int,
    batch_size: int,
    panels: int,
    threshold: float,
    progress: bool,
) -> Evaluation:
    """`evaluate`, of whatever answers a batch of fitted images with coarse and refined masks.

    Args:
        refine: from images (b, c, size, size) and content sizes (b, 2), both on the CPU, to masks and prompts, such as
            a `ultrarefiner.prediction.Predictor`.
        cases: with true masks.
        size: side of the square.
        batch_size: images at once.
        panels: how many cases to draw, 0 for none.
        threshold: probability in (0, 1) from which on a pixel is lesion.
        progress: whether to show a progress bar.

    Returns:
        The comparison and the panels.

    Raises:
        ValueError: there are no cases, the threshold is not between 0 and 1, batch_size is not positive, or panels is
            negative.

    Example:
        >>> from types import SimpleNamespace
        >>> from ultrarefiner.data import Phantoms
        >>> def halves(images, content_sizes):
        ...     prompts = Prompts(None, None, None, None, torch.ones(len(images), 1, dtype=torch.bool))
        ...     masks = {"coarse_probability": images, "refined_probability": 0.5 * images}
        ...     return SimpleNamespace(**masks, prompts=prompts, regions=None)
        >>> options = {"size": 64, "batch_size": 2, "panels": 0, "threshold": 0.6, "progress": False}
        >>> found = evaluate_refined(halves, Phantoms(3, size=(64, 64)), **options)
        >>> [case.prediction_pixels for case in found.comparison.refined]
        [0, 0, 0]
    """
    check_cases(cases)
    check_options(batch_size, panels, threshold)
    coarse: list[CaseMetrics] = []
    refined: list[CaseMetrics] = []
    with tqdm(total=len(cases), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(cases), batch_size):
            together = [cases[index] for index in range(start, min(start + batch_size, len(cases)))]
            for case, masks in zip(together, _restored(refine, together, size), strict=True):
                target = case.mask >= 0.5
                coarse.append(segmentation_metrics(masks.coarse_probability >= threshold, target))
                refined.append(segmentation_metrics(masks.refined_probability >= threshold, target))
                bar.update()
    comparison = compare(cases.names, coarse, refined, groups=cases.groups)
    drawn = []
    for index in evenly_ranked(
        [after.dice - before.dice for before, after in zip(coarse, refined, strict=True)], panels
    ):
        # Segmented once more: to keep every map until the cases are ranked would take too much memory.
        case = cases[index]
        (masks,) = _restored(refine, [case], size)
        drawn.append(_panel(case, masks, threshold, coarse[index], refined[index]))
    return Evaluation(comparison, tuple(drawn))


@dataclass(frozen=True)
class _Answer:
    """What a model answers, as a `RefinedBatch`."""

    coarse_probability: Float[Tensor, "b k s s"]
    refined_probability: Float[Tensor, "b k s s"]
    prompts: Prompts
    regions: Float[Tensor, "b k 4"] | None


def _restored(refine: Callable[[Tensor, Tensor], RefinedBatch], together: list[Case], size: int) -> list[RestoredMasks]:
    """The masks of each case on its own pixels."""
    fit = FitToSquare(size)
    fitted = collate([fit(case) for case in together])
    batch = refine(fitted.images, fitted.content_sizes)
    return [restored_masks(batch, index, fit=fit, size=case.image.shape[-2:]) for index, case in enumerate(together)]


def _panel(case: Case, masks: RestoredMasks, threshold: float, coarse: CaseMetrics, refined: CaseMetrics) -> Panel:
    # What an empty mask's prompts say means nothing, and SAM's answer to them was not used.
    told = bool(masks.refinable[0])

    def first(said: Tensor | None) -> Tensor | None:
        return said[0] if said is not None and told else None

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
        threshold=threshold,
    )
