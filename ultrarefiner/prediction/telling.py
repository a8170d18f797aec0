"""What is said of one prediction: its row in the table, and the caption of its panel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from ultrarefiner.prediction.panel import Drawing
from ultrarefiner.prediction.picture import Picture
from ultrarefiner.prediction.plan import PlannedFile
from ultrarefiner.prediction.rows import PredictionRow
from ultrarefiner.prediction.segmenting import PredictedMasks


def described(
    found: PredictedMasks, file: PlannedFile, picture: Picture, mask_file: str, options: str
) -> PredictionRow:
    """The row of a picture; numbers with the six digits that the table keeps."""
    coarse, refined = found.coarse_mask, found.mask
    height, width = refined.shape[-2:]
    coarse_pixels, refined_pixels = int(coarse.sum()), int(refined.sum())
    overlap = int((coarse & refined).sum())
    pixel = None if picture.spacing is None else math.prod(picture.spacing)
    return PredictionRow(
        name=picture.name,
        file=str(file.path),
        height=height,
        width=width,
        coarse_pixels=coarse_pixels,
        refined_pixels=refined_pixels,
        coarse_mm2=None if pixel is None else _six(coarse_pixels * pixel),
        refined_mm2=None if pixel is None else _six(refined_pixels * pixel),
        refined_share=_six(refined_pixels / (height * width)),
        coarse_refined_dice=_six(
            2 * overlap / (coarse_pixels + refined_pixels) if coarse_pixels + refined_pixels else 1.0
        ),
        sam_iou_estimate=_six(float(found.iou[0])),
        soft_dice_confidence=_six(float(found.confidence[0])),
        accepted=None if found.accepted is None else bool(found.accepted[0]),
        coarse_empty=coarse_pixels == 0,
        refined_empty=refined_pixels == 0,
        note="; ".join(picture.notes),
        mask_file=mask_file,
        bytes=file.bytes,
        modified=file.modified,
        options=options,
    )


def drawing_of(
    found: PredictedMasks,
    row: PredictionRow,
    picture: Picture,
    coarse: Bool[Tensor, "h w"],
    refined: Bool[Tensor, "h w"],
) -> Drawing:
    """What the panel of a picture shows; masks and picture as shown. Prompts of an empty mask mean nothing."""
    told = bool(found.refinable[0])
    points = told and found.points is not None and found.labels is not None
    return Drawing(
        image=picture.image,
        size=(row.height, row.width),
        coarse=coarse,
        refined=refined,
        points=found.points[0] if points and found.points is not None else None,
        labels=found.labels[0] if points and found.labels is not None else None,
        box=found.box[0] if told and found.box is not None else None,
        region=found.region[0] if told and found.region is not None else None,
        caption=_caption(row, told=told),
    )


def why_failed(file: PlannedFile, error: Exception, index: int) -> str:
    """A sentence, in one line, on a file that failed.

    Args:
        file: which.
        error: what was raised.
        index: of the picture in the file.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        reason = f"{file.path} is too large for this machine's memory; shrink it first"
    elif isinstance(error, (ValueError, OSError, ModuleNotFoundError)) and str(error).strip():
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {error}"
    named = reason if file.path.name in reason else f"{file.path}: {reason}"
    if file.kind == "dicom" and file.count > 1:
        named += f" (the first of its {file.count} frames that failed is number {index}, counted from 0)"
    return " ".join(named.split())


def _caption(row: PredictionRow, *, told: bool) -> tuple[str, ...]:
    def area(pixels: int, square: float | None) -> str:
        return f"{pixels:,} px" + ("" if square is None else f" ({square:,.4g} mm²)")

    areas = (
        f"area: coarse {area(row.coarse_pixels, row.coarse_mm2)}, refined {area(row.refined_pixels, row.refined_mm2)}, "
        f"{100 * row.refined_share:.3g} % of the picture; agreement (Dice) {row.coarse_refined_dice:.3f}"
    )
    verdict = {None: "", True: "refined mask accepted", False: "not credible: coarse mask kept"}[row.accepted]
    if not told:
        verdict = "no coarse mask: nothing to refine"
    said = f"SAM's IoU estimate {row.sam_iou_estimate:.3f}; soft Dice confidence {row.soft_dice_confidence:.3f}"
    lines = [
        f"{row.name}   {row.width} x {row.height} pixels",
        areas,
        f"{said}; {verdict}" if verdict else said,
    ]
    return (*lines, f"note: {row.note}") if row.note else tuple(lines)


def _six(number: float) -> float:
    """Six digits, as the table has them: a row that is read again equals the one that was written."""
    return float(format(number, ".6g"))
