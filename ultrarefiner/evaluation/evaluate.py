"""Evaluate a model on cases: coarse against refined, image by image, on each image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ultrarefiner.data import Case, Cases, FitToSquare, collate
from ultrarefiner.evaluation.comparison import Comparison, compare
from ultrarefiner.evaluation.figures import Panel
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.options import check_cases, check_options
from ultrarefiner.ops.coordinates import pad_frame
from ultrarefiner.systems import UltraRefiner, prompts_on_image
from ultrarefiner.types import RefinedSegmentation


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
    check_cases(cases)
    check_options(batch_size, panels, threshold)
    model.eval()
    coarse: list[CaseMetrics] = []
    refined: list[CaseMetrics] = []
    with tqdm(total=len(cases), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        for seen in _segmented(model, cases, size, batch_size):
            coarse.append(segmentation_metrics(seen.coarse >= threshold, seen.target))
            refined.append(segmentation_metrics(seen.refined >= threshold, seen.target))
            bar.update()
    comparison = compare(cases.names, coarse, refined, groups=cases.groups)
    chosen = _evenly_ranked([after.dice - before.dice for before, after in zip(coarse, refined, strict=True)], panels)
    drawn = [_panel(model, cases[index], size, threshold, coarse[index], refined[index]) for index in chosen]
    return Evaluation(comparison, tuple(drawn))


@dataclass(frozen=True)
class _Seen:
    """Both masks of one case, and the true one, on its own pixels, on the CPU."""

    coarse: Tensor
    refined: Tensor
    target: Tensor


def _segmented(model: UltraRefiner, cases: Cases, size: int, batch_size: int) -> Iterator[_Seen]:
    """Each case is read once: its fitted image goes through the model while its own mask waits."""
    fit = FitToSquare(size)
    for start in range(0, len(cases), batch_size):
        together = [cases[index] for index in range(start, min(start + batch_size, len(cases)))]
        batch = collate([fit(case) for case in together])
        result = _result(model, batch.images, batch.content_sizes)
        both = zip(result.coarse_probability.float().cpu(), result.refined_probability.float().cpu(), strict=True)
        for case, (coarse, refined) in zip(together, both, strict=True):
            original = case.mask.shape[-2:]
            yield _Seen(fit.restore(coarse, original), fit.restore(refined, original), case.mask >= 0.5)


@torch.inference_mode()
def _result(model: UltraRefiner, images: Tensor, content_sizes: Tensor) -> RefinedSegmentation:
    device = next(model.parameters()).device
    result: RefinedSegmentation = model(images.to(device), content_sizes.to(device))
    return result


def _evenly_ranked(changes: Sequence[float], count: int) -> list[int]:
    order = sorted(range(len(changes)), key=changes.__getitem__)
    count = min(count, len(order))
    if count < 2:
        return order[-count:] if count else []
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]


def _panel(
    model: UltraRefiner, case: Case, size: int, threshold: float, coarse: CaseMetrics, refined: CaseMetrics
) -> Panel:
    fit = FitToSquare(size)
    original = (case.image.shape[-2], case.image.shape[-1])
    batch = collate([fit(case)])
    result = _result(model, batch.images, batch.content_sizes)
    prompts = prompts_on_image(model.refiner, result.refinement, (size, size))
    frame = pad_frame(original, size)
    # What an empty mask's prompts say means nothing, and SAM's answer to them was not used.
    drawn = bool(prompts.valid[0, 0])

    def place(coordinates: Tensor | None, *, shift: float) -> Tensor | None:
        """From the square's pixel indices (shift 0.5) or edges (shift 0) to the image's."""
        if coordinates is None or not drawn:
            return None
        return (frame.from_frame(coordinates[0, 0] + shift) - shift).float().cpu()

    return Panel(
        name=case.name,
        image=case.image,
        coarse_probability=fit.restore(result.coarse_probability[0].float().cpu(), original),
        refined_probability=fit.restore(result.refined_probability[0].float().cpu(), original),
        target=case.mask,
        points=place(prompts.points, shift=0.5),
        labels=None if prompts.labels is None or not drawn else prompts.labels[0, 0].cpu(),
        box=place(prompts.boxes, shift=0.5),
        region=place(result.refinement.boxes, shift=0.0),
        coarse_dice=coarse.dice,
        refined_dice=refined.dice,
        threshold=threshold,
    )
