"""UltraRefiner: a coarse network and SAM, joined by differentiable prompts, trained together."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_images
from ultrarefiner.ops.gradient import scale_gradient
from ultrarefiner.ops.logits import resize_logits
from ultrarefiner.refinement import AcceptanceRule
from ultrarefiner.systems.at_size import main_logits
from ultrarefiner.systems.gating import gated
from ultrarefiner.systems.pretrained_system import PretrainedSystem
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.types import RefinedSegmentation


class UltraRefiner(PretrainedSystem, nn.Module):
    """Segment with a coarse network, refine with SAM, and send the refined mask's gradient back to the coarse network.

    Args:
        coarse: any module from images (b, c, h, w) to logits (b, k, h', w'), or to `MultiScaleLogits` of them; logits
            of another resolution are resized to the images'.
        refiner: the `SAMRefiner`.
        gate: how much of SAM's mask enters the final mask; None takes SAM's mask as it is.
        gradient_scale: factor on the gradient that the refined mask sends to the coarse network. It acts on that
            tensor: scaling the parameters' gradients instead does nothing under AdamW.
        acceptance: in evaluation mode, which refined masks are taken; the others come back as the coarse network made
            them. None takes all.
        frame: side of the square that images are fitted to before they come here, for those who prepare them
            (prediction and evaluation do). The model itself takes any size.

    Raises:
        ValueError: gradient_scale is no finite number of at least 0, or frame is below 1.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> model = UltraRefiner(coarse=nn.Conv2d(1, 1, 3, padding=1), refiner=SAMRefiner(build_sam("tiny")))
        >>> result = model(torch.rand(2, 1, 64, 96))
        >>> result.coarse_logits.shape, result.refined_probability.shape
        (torch.Size([2, 1, 64, 96]), torch.Size([2, 1, 64, 96]))

    After UltraRefiner (github.com/Autzoko/UltraRefiner).
    """

    def __init__(
        self,
        *,
        coarse: nn.Module,
        refiner: SAMRefiner,
        gate: nn.Module | None = None,
        gradient_scale: float = 1.0,
        acceptance: AcceptanceRule | None = None,
        frame: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= gradient_scale < float("inf"):
            message = f"gradient_scale must be a finite number of at least 0, but it is {gradient_scale}."
            raise ValueError(message)
        if frame is not None and frame < 1:
            message = f"frame must be the side of a square in pixels, at least 1, but it is {frame}."
            raise ValueError(message)
        self.coarse = coarse
        self.refiner = refiner
        self.gate = gate
        self.gradient_scale = gradient_scale
        self.acceptance = acceptance
        self.frame = frame

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        content_sizes: Int[Tensor, "b 2"] | None = None,
        *,
        embeddings: Float[Tensor, "b d low_h low_w"] | None = None,
    ) -> RefinedSegmentation:
        """Segment and refine.

        Args:
            images: grey or RGB in [0, 1].
            content_sizes: (height, width) of what of each image is not padding right or below (a `Batch` has them):
                SAM's regions stay inside it. None where images are not padded to a common size.
            embeddings: SAM's embeddings of these images (the refiner's ``encode``), to spare its encoder; for a refiner
                that sees whole images.

        Returns:
            Coarse and refined masks on the images' pixels, logits and probabilities. Where the coarse mask is empty the
            refined one equals it.

        Raises:
            ValueError: images of the wrong rank, channels or range, or a coarse network that does not return (b, k, h,
                w).
        """
        check_images(images)
        coarse_logits = self._coarse_logits(images)
        coarse_probability = torch.sigmoid(coarse_logits)
        passed_logits = scale_gradient(coarse_logits, self.gradient_scale)
        passed_probability = torch.sigmoid(passed_logits)
        refinement = self.refiner(
            images if embeddings is None else None,
            passed_probability,
            embeddings=embeddings,
            image_size=images.shape[-2:],
            coarse_logits=passed_logits,
            content_sizes=content_sizes,
        )
        refined_logits, refined_probability, gate = gated(self.gate, images, passed_probability, refinement)
        accepted = None
        if self.acceptance is not None and not self.training:
            accepted = self.acceptance(coarse_probability, refined_probability, refinement.iou)
            accepted = accepted | ~refinement.prompts.valid
            taken = accepted[..., None, None]
            refined_logits = refined_logits.where(taken, coarse_logits.to(refined_logits.dtype))
            refined_probability = refined_probability.where(taken, coarse_probability.to(refined_probability.dtype))
        return RefinedSegmentation(
            coarse_logits=coarse_logits,
            coarse_probability=coarse_probability,
            refined_logits=refined_logits,
            refined_probability=refined_probability,
            iou=refinement.iou,
            prompts=refinement.prompts,
            refinement=refinement,
            gate=gate,
            accepted=accepted,
        )

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values; the coarse network is named by its class."""
        described = getattr(self.coarse, "settings", None)
        return {
            "coarse": type(self.coarse).__name__ if described is None else described(),
            "refiner": self.refiner.settings(),
            "gate": None if self.gate is None else cast("Any", self.gate).settings(),
            "gradient_scale": self.gradient_scale,
            # Left out where there are none, as in checkpoints from before there were these parts.
            **({} if self.acceptance is None else {"acceptance": self.acceptance.settings()}),
            **({} if self.frame is None else {"frame": self.frame}),
        }

    def _coarse_logits(self, images: Tensor) -> Tensor:
        logits = main_logits(self.coarse(images))
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[0] != images.shape[0]:
            came = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            message = (
                f"coarse must return logits (b, k, h, w) with b = {images.shape[0]}, but it returned {came}; wrap a "
                "network that returns something else in a module that picks the lesion's logits."
            )
            raise ValueError(message)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return resize_logits(logits, images.shape[-2:])
