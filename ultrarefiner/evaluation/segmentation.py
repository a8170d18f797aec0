"""Evaluate one segmentation model on cases: image by image, on each image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ultrarefiner.data import Case, Cases, Fit
from ultrarefiner.data.fit import as_fit
from ultrarefiner.evaluation.answering import device_of, mask_logits
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.options import check_cases, check_options
from ultrarefiner.evaluation.ranking import evenly_ranked
from ultrarefiner.evaluation.segmentation_figures import SegmentationPanel
from ultrarefiner.evaluation.structure_measures import StructureMeasures, structure_measures
from ultrarefiner.ops.boxes import fill_box
from ultrarefiner.ops.logits import resize_logits


@dataclass(frozen=True)
class SegmentationEvaluation:
    """How good one model's masks are, case by case.

    Attributes:
        names: of the cases.
        groups: what belongs together (patient, near-duplicates), one a case.
        metrics: of each case's mask, on the image's own pixels.
        structure: of each case's probability map; None where they were not asked for.
        panels: cases to look at, from the lowest Dice to the highest, evenly spaced in rank.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    metrics: tuple[CaseMetrics, ...]
    structure: tuple[StructureMeasures, ...] | None
    panels: tuple[SegmentationPanel, ...]


def evaluate_segmentation(
    model: nn.Module,
    cases: Cases,
    *,
    size: int | Fit,
    batch_size: int = 8,
    threshold: float = 0.5,
    measures: bool = False,
    panels: int = 5,
    progress: bool = True,
) -> SegmentationEvaluation:
    """Segment every case and measure its mask against the truth.

    Images are fitted into a square as in training; probabilities are brought back to each image's own pixels, soft, and
    thresholded there. No case is dropped: a missed lesion has Dice 0 and the image's diagonal as its distance.

    Args:
        model: any module from images (b, c, s, s) in [0, 1] to logits (b, 1, h, w), or to `MultiScaleLogits` or a
            `PromptedSegmentation` (as `AutoSAM` and `AutoMedSAM`), on any device; it is put in evaluation mode and left
            there. An `UltraRefiner` is measured by its refined masks; `evaluate` compares them with the coarse ones.
        cases: with true masks; grey or RGB.
        size: as in training: the side of the square for `FitToSquare`, or a fit such as ``StretchToSquare(224)``.
        batch_size: images at once.
        threshold: probability in (0, 1) from which on a pixel is lesion. True masks are always lesion from 0.5.
        measures: whether to compute `structure_measures` of each probability map, too, not stretched. They need
            PySODMetrics (``pip install 'ultrarefiner[measures]'``).
        panels: how many cases to draw, 0 for none.
        progress: whether to show a progress bar.

    Returns:
        The metrics of every case, and the panels.

    Raises:
        ValueError: there are no cases, the threshold is not between 0 and 1, batch_size is not positive, panels is
            negative, or the model answers with several masks an image or with NaN.

    Example:
        >>> from ultrarefiner.data import Phantoms
        >>> model = nn.Conv2d(1, 1, 3, padding=1)
        >>> found = evaluate_segmentation(model, Phantoms(3, size=(48, 64)), size=32, panels=2, progress=False)
        >>> found.names[0], len(found.metrics), found.structure, len(found.panels)
        ('phantom 0', 3, None, 2)
    """
    check_cases(cases)
    check_options(batch_size, panels, threshold)
    fit = as_fit(size)
    model.eval()
    metrics: list[CaseMetrics] = []
    structure: list[StructureMeasures] = []
    with tqdm(total=len(cases), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(cases), batch_size):
            together = [cases[index] for index in range(start, min(start + batch_size, len(cases)))]
            for case, probability in _segmented(model, together, fit):
                metrics.append(segmentation_metrics(probability >= threshold, case.mask >= 0.5))
                if measures:
                    structure.append(structure_measures(probability, case.mask >= 0.5))
                bar.update()
    drawn = []
    for index in evenly_ranked([case.dice for case in metrics], panels):
        # Segmented once more: to keep every map until the cases are ranked would take too much memory.
        ((case, probability),) = _segmented(model, [cases[index]], fit)
        drawn.append(SegmentationPanel(case.name, case.image, probability, case.mask, metrics[index], threshold))
    return SegmentationEvaluation(
        tuple(cases.names), tuple(cases.groups), tuple(metrics), tuple(structure) if measures else None, tuple(drawn)
    )


def filled_box_metrics(cases: Cases, *, measures: bool = False, progress: bool = True) -> SegmentationEvaluation:
    """Measure the trivial answer of learning from boxes: each true mask's tight box, filled.

    A model that was trained from boxes, and was given none, should be better than this, which was given the true one;
    an ellipse that fills its box has Dice 0.88 with it (pi/2 over 1 + pi/4). Several lesions of an image share one box,
    as its mask is their union. A case without a lesion has an empty box, and Dice 1.

    Args:
        cases: with true masks, measured on their own pixels.
        measures: whether to compute `structure_measures`, too, with probability 1 inside of the box.
        progress: whether to show a progress bar.

    Returns:
        The metrics of every case, without panels; `segmentation_table` takes it as any model's.

    Raises:
        ValueError: there are no cases.

    Example:
        >>> from ultrarefiner.data import Phantoms
        >>> found = filled_box_metrics(Phantoms(4, size=(64, 64)), progress=False)
        >>> all(case.recall == 1.0 and 0.3 < case.dice < 1.0 for case in found.metrics)
        True
    """
    check_cases(cases)
    metrics: list[CaseMetrics] = []
    structure: list[StructureMeasures] = []
    with tqdm(total=len(cases), desc="boxes", unit="image", disable=None if progress else True) as bar:
        for index in range(len(cases)):
            target = cases[index].mask >= 0.5
            box = fill_box(target) > 0
            metrics.append(segmentation_metrics(box, target))
            if measures:
                structure.append(structure_measures(box.float(), target))
            bar.update()
    return SegmentationEvaluation(
        tuple(cases.names), tuple(cases.groups), tuple(metrics), tuple(structure) if measures else None, ()
    )


def _segmented(model: nn.Module, together: list[Case], fit: Fit) -> Iterator[tuple[Case, Tensor]]:
    """Cases and their probabilities (1, h, w) on their own pixels, on the CPU."""
    for case, soft in zip(together, _probability(model, together, fit), strict=True):
        # Interpolation may leave [0, 1] by a rounding.
        yield case, fit.restore(soft, case.mask.shape[-2:]).clamp(0, 1)


@torch.no_grad()
def _probability(model: nn.Module, together: list[Case], fit: Fit) -> Tensor:
    """Probabilities (b, 1, size, size) in the square, on the CPU."""
    device = device_of(model)
    images = torch.stack([fit.image(case.image) for case in together]).to(device)
    content = torch.tensor([fit.content_size(case.image.shape[-2:]) for case in together], device=device)
    logits = mask_logits(model, images, content, of=f"the images from {together[0].name!r} on")
    return resize_logits(logits, (fit.size, fit.size)).sigmoid().cpu()
