"""Evaluate a model on cases: coarse against refined, image by image, on each image's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ultrarefiner.data import Batch, Case, Cases, FittedCases, FitToSquare, collate
from ultrarefiner.evaluation.comparison import Comparison, compare
from ultrarefiner.evaluation.figures import Panel
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
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

    Images are fitted into a square as in training; masks are brought back to each image's own pixels, soft, and
    thresholded there. No case is dropped: a missed lesion has Dice 0 and the image's diagonal as its distance.

    Args:
        model: on any device; it is put in evaluation mode and left there.
        cases: with true masks.
        size: side of the square, as in training.
        batch_size: images at once.
        panels: how many cases to draw, 0 for none.
        threshold: probability from which a pixel is lesion.
        progress: whether to show a progress bar.

    Returns:
        The comparison and the panels.

    Raises:
        ValueError: there are no cases.

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
    if len(cases) == 0:
        message = "cases must hold at least one case, but it is empty; check the folder, or the fold's names."
        raise ValueError(message)
    model.eval()
    coarse: list[CaseMetrics] = []
    refined: list[CaseMetrics] = []
    bar = tqdm(total=len(cases), desc="evaluate", unit="image", disable=None if progress else True)
    for position, seen in enumerate(_segmented(model, cases, size, batch_size)):
        case = cases[position]
        target = case.mask > 0.5
        coarse.append(segmentation_metrics(seen.coarse >= threshold, target))
        refined.append(segmentation_metrics(seen.refined >= threshold, target))
        bar.update()
    bar.close()
    comparison = compare(cases.names, coarse, refined, groups=cases.groups)
    chosen = _evenly_ranked([after.dice - before.dice for before, after in zip(coarse, refined, strict=True)], panels)
    drawn = [_panel(model, cases[index], size, coarse[index], refined[index]) for index in chosen]
    return Evaluation(comparison, tuple(drawn))


@dataclass(frozen=True)
class _Seen:
    """Both masks of one case on its own pixels, on the CPU."""

    coarse: Tensor
    refined: Tensor


def _segmented(model: UltraRefiner, cases: Cases, size: int, batch_size: int) -> Iterator[_Seen]:
    device = next(model.parameters()).device
    fit = FitToSquare(size)
    loader = DataLoader(
        FittedCases(cases, size, keep_in_memory=False), batch_size=batch_size, collate_fn=collate, shuffle=False
    )
    batch: Batch
    for batch in loader:
        with torch.inference_mode():
            result = model(batch.images.to(device), batch.content_sizes.to(device))
        masks = zip(
            result.coarse_probability.float().cpu(),
            result.refined_probability.float().cpu(),
            batch.original_sizes.tolist(),
            strict=True,
        )
        for coarse, refined, original in masks:
            yield _Seen(fit.restore(coarse, original), fit.restore(refined, original))


def _evenly_ranked(changes: Sequence[float], count: int) -> list[int]:
    order = sorted(range(len(changes)), key=changes.__getitem__)
    count = min(count, len(order))
    if count < 2:
        return order[-count:] if count else []
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]


def _panel(model: UltraRefiner, case: Case, size: int, coarse: CaseMetrics, refined: CaseMetrics) -> Panel:
    fit = FitToSquare(size)
    original = (case.image.shape[-2], case.image.shape[-1])
    with torch.inference_mode():
        device = next(model.parameters()).device
        content = torch.tensor([fit.content_size(original)], device=device)
        result: RefinedSegmentation = model(fit.image(case.image)[None].to(device), content)
    prompts = prompts_on_image(model.refiner, result.refinement, (size, size))
    frame = pad_frame(original, size)

    def place(coordinates: Tensor | None, *, shift: float) -> Tensor | None:
        """From the square's pixel indices (shift 0.5) or edges (shift 0) to the image's."""
        return None if coordinates is None else (frame.from_frame(coordinates[0, 0] + shift) - shift).cpu()

    return Panel(
        name=case.name,
        image=case.image,
        coarse_probability=fit.restore(result.coarse_probability[0].cpu(), original),
        refined_probability=fit.restore(result.refined_probability[0].cpu(), original),
        target=case.mask,
        points=place(prompts.points, shift=0.5),
        labels=None if prompts.labels is None else prompts.labels[0, 0].cpu(),
        box=place(prompts.boxes, shift=0.5),
        region=place(result.refinement.boxes, shift=0.0),
        coarse_dice=coarse.dice,
        refined_dice=refined.dice,
    )
