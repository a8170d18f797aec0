"""One image of any size and kind, segmented in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.data.fit import FitToSquare
from ultrarefiner.data.restoring import RestoredMasks, restored_masks
from ultrarefiner.prediction.confidence import soft_dice_confidence
from ultrarefiner.prediction.picture import Picture, as_image
from ultrarefiner.prediction.predictor import Precision, Prediction, Predictor
from ultrarefiner.prediction.reading import read_picture
from ultrarefiner.prediction.views import Flips
from ultrarefiner.systems import UltraRefiner


@dataclass(frozen=True)
class PredictedMasks(RestoredMasks):
    """Both masks of one image, on its own pixels, on the CPU; k is 1 for a model of one lesion class.

    Attributes:
        coarse_probability: the coarse network's masks.
        refined_probability: the final masks, after gate and acceptance rule.
        points: the point prompts (x, y) in pixel indices of the image; None if SAM was told none. What was told about
            an empty mask means nothing, see ``refinable``.
        labels: 1 for lesion, 0 for background, -1 for no point.
        box: the box prompt (x0, y0, x1, y1) in pixel indices of the image, or None.
        region: what SAM looked at, (x0, y0, x1, y1) in pixel edges of the image; None for all of it.
        refinable: False where the coarse mask was empty and nothing was asked of SAM.
        threshold: probability from which on a pixel is lesion.
        iou: SAM's own estimate of the IoU of the mask it proposed; 0 where the coarse mask was empty.
        confidence: of the final masks drawn at the threshold, see `soft_dice_confidence`.
        accepted: False where the acceptance rule kept the coarse mask; None without a rule.
    """

    threshold: float
    iou: Float[Tensor, " k"]
    confidence: Float[Tensor, " k"]
    accepted: Bool[Tensor, " k"] | None

    @property
    def mask(self) -> Bool[Tensor, "k h w"]:
        """The final masks: True for lesion."""
        return self.refined_probability >= self.threshold

    @property
    def coarse_mask(self) -> Bool[Tensor, "k h w"]:
        """The coarse network's masks."""
        return self.coarse_probability >= self.threshold


def segment(
    model: UltraRefiner,
    image: Any,
    *,
    flips: Flips = False,
    rounds: int = 1,
    precision: Precision = "32-true",
    threshold: float = 0.5,
    frame: int | None = None,
    colour: bool = False,
    device: torch.device | str | None = None,
) -> PredictedMasks:
    """Segment one image.

    The image is fitted to the model's frame, and masks are brought back to its own pixels before they are thresholded.

    Args:
        model: a trained one; it is put in evaluation mode and left there.
        image: a file's path, a `Picture`, or what `as_image` takes: a tensor (c, h, w) or an array (h, w) or (h, w, c).
        flips: mirror images to average over, see `Flips`.
        rounds: how often the mask is refined.
        precision: "32-true", or "bf16".
        threshold: probability in (0, 1) from which on a pixel is lesion.
        frame: side of the square that the image is fitted to; None for the model's own.
        colour: whether to keep red, green and blue of a path or an array; a `Picture` is taken as it is.
        device: where to compute; None for where the model is.

    Returns:
        Coarse and refined masks on the image's own pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an option is out of its range, the image cannot be read, or neither the model nor ``frame`` says the
            side of the square.

    Example:
        >>> from ultrarefiner import SAMRefiner, build_sam
        >>> refiner = SAMRefiner(build_sam("tiny", image_size=64))
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 3, padding=1), refiner=refiner, frame=64)
        >>> segment(model, torch.rand(1, 90, 120)).mask.shape
        torch.Size([1, 90, 120])
    """
    check_threshold(threshold)
    fit = FitToSquare(frame_of(model, frame))
    predictor = Predictor(model, flips=flips, rounds=rounds, precision=precision, device=device)
    if isinstance(image, (str, Path)):
        seen = read_picture(image, colour=colour).image
    else:
        seen = image.image if isinstance(image, Picture) else as_image(image, colour=colour)
    size = (seen.shape[-2], seen.shape[-1])
    content = torch.tensor([fit.content_size(size)])
    found = predictor(fit.image(seen)[None], content)
    return restored(found, 0, fit=fit, size=size, threshold=threshold)


def restored(
    prediction: Prediction, index: int, *, fit: FitToSquare, size: tuple[int, int], threshold: float
) -> PredictedMasks:
    """One image of a batch of fitted images, back on its own pixels.

    Args:
        prediction: what the `Predictor` made of the fitted images.
        index: of the image in the batch.
        fit: the fit into the square.
        size: (height, width) of the picture.
        threshold: probability in (0, 1) from which on a pixel is lesion.
    """
    masks = restored_masks(prediction, index, fit=fit, size=size)
    return PredictedMasks(
        **vars(masks),
        threshold=threshold,
        iou=prediction.iou[index].cpu(),
        confidence=soft_dice_confidence(masks.refined_probability, threshold),
        accepted=None if prediction.accepted is None else prediction.accepted[index].cpu(),
    )


def check_threshold(threshold: float) -> None:
    """Raise unless a threshold is between 0 and 1.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_threshold(0.5)
    """
    if not 0 < threshold < 1:
        message = f"threshold must lie between 0 and 1, but it is {threshold}; 0.5 is the usual one."
        raise ValueError(message)


def frame_of(model: UltraRefiner, frame: int | None) -> int:
    """The side of the square that images are fitted to: the given one, else the model's own.

    Raises:
        ValueError: neither says one, or it is below 1.

    Example:
        >>> from ultrarefiner import SAMRefiner, build_sam
        >>> model = UltraRefiner(coarse=torch.nn.Identity(), refiner=SAMRefiner(build_sam("tiny")), frame=256)
        >>> frame_of(model, None), frame_of(model, 512)
        (256, 512)
    """
    side = model.frame if frame is None else frame
    if side is None or side < 1:
        said = "the model does not say it (model.frame is None)" if side is None else f"it is {side}"
        message = (
            f"frame must be the side of the square that images are fitted to, as in training, but {said}; give "
            "frame=256, or whatever the model was trained on."
        )
        raise ValueError(message)
    return side
