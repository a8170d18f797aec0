"""Predictor: a model as it is used, with mirror images, several rounds, a precision and a device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.prediction.rounds import RefinedRounds, refine_in_rounds
from ultrarefiner.prediction.views import Flips, mirrored, views_of
from ultrarefiner.systems import UltraRefiner, prompts_on_image
from ultrarefiner.types import Prompts

Precision = Literal["32-true", "bf16"]
"""Numbers that a network computes with: float32, or bfloat16 where autocast thinks it safe."""


@dataclass(frozen=True)
class Prediction:
    """What a `Predictor` returns, on the pixels of the images that came in.

    Attributes:
        coarse_probability: the coarse network's masks.
        refined_probability: the final masks, after gate and acceptance rule.
        iou: SAM's estimate for the mask it proposed; 0 where the coarse mask was empty.
        accepted: which refined masks the acceptance rule let pass; the others are the coarse masks. None without a
            rule.
        prompts: what SAM was told in the last round about the image as it is, points and boxes in pixel indices of the
            image.
        regions: what SAM looked at then, (x0, y0, x1, y1) in pixel edges of the image; None without a cropper.
    """

    coarse_probability: Float[Tensor, "b k h w"]
    refined_probability: Float[Tensor, "b k h w"]
    iou: Float[Tensor, "b k"]
    accepted: Bool[Tensor, "b k"] | None
    prompts: Prompts
    regions: Float[Tensor, "b k 4"] | None


class Predictor:
    r"""Segment batches of images with a trained model.

    Without flips, with one round and in float32 this is the model. Of several views of an image the coarse masks, the
    refined masks and SAM's estimates are averaged, each brought back from its mirror image; a view in which the coarse
    mask is empty counts with that mask and the estimate 0. The acceptance rule judges the averages once, so that a mask
    is taken or not as a whole, and always against the coarse network's own mask, however many rounds there were.

    Args:
        model: it is put in evaluation mode and left there.
        flips: which mirror images are seen besides each image, see `Flips`. In ultrasound, left and right may be
            swapped; top and bottom are no mirror images of one another.
        rounds: how often each mask is refined, see `refine_in_rounds`.
        precision: "32-true", or "bf16" for autocast.
        device: where to compute; the model is moved there. None leaves it where it is.

    Raises:
        ValueError: an unknown choice of flips or precision, rounds below 1, or a device that is not there.

    Example:
        >>> from ultrarefiner import SAMRefiner, build_sam
        >>> refiner = SAMRefiner(build_sam("tiny", image_size=64))
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 3, padding=1), refiner=refiner)
        >>> found = Predictor(model, flips=True, rounds=2)(torch.rand(2, 1, 64, 64))
        >>> found.refined_probability.shape, found.iou.shape
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 1]))

    References:
        Averaging over mirror images: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional
        Neural Networks", NeurIPS 2012.
    """

    def __init__(
        self,
        model: UltraRefiner,
        *,
        flips: Flips = False,
        rounds: int = 1,
        precision: Precision = "32-true",
        device: torch.device | str | None = None,
    ) -> None:
        self.views = views_of(flips)
        if rounds < 1:
            message = f"rounds must be at least 1, but it is {rounds}; 1 refines each mask once."
            raise ValueError(message)
        if precision not in ("32-true", "bf16"):
            message = f"precision must be '32-true' or 'bf16', but it is {precision!r}; take '32-true' if in doubt."
            raise ValueError(message)
        if device is not None:
            model.to(_checked(device))
        self.model = model.eval()
        self.rounds = rounds
        self.precision = precision

    @torch.no_grad()  # not inference_mode, whose tensors a caller could not go on with
    def __call__(self, images: Float[Tensor, "b c h w"], content_sizes: Int[Tensor, "b 2"] | None = None) -> Prediction:
        """Segment a batch.

        Args:
            images: grey or RGB in [0, 1], on any device.
            content_sizes: (height, width) of what of each image is not padding right or below; None for all of it.

        Returns:
            The masks, on the model's device.

        Raises:
            ValueError: the images are not images, or the coarse network answers something else than masks.
        """
        device = next(self.model.parameters()).device
        images = images.to(device)
        content_sizes = None if content_sizes is None else content_sizes.to(device)
        found: list[RefinedRounds] = []
        with self._autocast(device):
            for view in self.views:
                seen = mirrored(images, view, content_sizes)
                found.append(refine_in_rounds(self.model, seen, content_sizes, rounds=self.rounds))
        back = list(zip(found, self.views, strict=True))
        coarse = _mean([mirrored(one.coarse_probability, view, content_sizes) for one, view in back])
        refined = _mean([mirrored(one.refined_probability, view, content_sizes) for one, view in back])
        iou = _mean([one.refinement.iou.float() for one in found])
        valid = torch.stack([one.refinement.prompts.valid for one in found]).any(0)
        accepted = None
        if self.model.acceptance is not None:
            accepted = self.model.acceptance(coarse, refined, iou) | ~valid
            refined = refined.where(accepted[..., None, None], coarse)
        refinement = found[0].refinement
        prompts = prompts_on_image(self.model.refiner, refinement, images.shape[-2:])
        return Prediction(coarse, refined, iou, accepted, prompts, refinement.boxes)

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision == "32-true":
            return nullcontext()
        return cast("AbstractContextManager[object]", torch.autocast(device.type, torch.bfloat16))


def _mean(tensors: list[Tensor]) -> Tensor:
    """The mean; one tensor as it is, to the bit."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(0)


def _checked(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = (
            f"device must be one that this machine has, but {str(device)!r} cannot be used "
            f"({str(error).splitlines()[0]}); 'cpu' always can."
        )
        raise ValueError(message) from error
    return found
