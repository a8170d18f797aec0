"""A mask refined several times over: each round starts from the last round's mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ultrarefiner.ops.checks import check_images
from ultrarefiner.ops.logits import resize_logits
from ultrarefiner.systems import SAMRefiner, UltraRefiner
from ultrarefiner.systems.at_size import main_logits
from ultrarefiner.systems.gating import gated
from ultrarefiner.types import Refinement


@dataclass(frozen=True)
class RefinedRounds:
    """What came out of the last round, before any acceptance rule.

    Attributes:
        coarse_probability: what the coarse network said.
        refined_probability: the last round's mask, after the gate.
        refinement: what the refiner returned in the last round; its ``iou`` is SAM's estimate for that mask.
    """

    coarse_probability: Float[Tensor, "b k h w"]
    refined_probability: Float[Tensor, "b k h w"]
    refinement: Refinement


def refine_in_rounds(
    model: UltraRefiner,
    images: Float[Tensor, "b c h w"],
    content_sizes: Int[Tensor, "b 2"] | None = None,
    *,
    rounds: int = 1,
) -> RefinedRounds:
    r"""Segment, then refine again and again what came out.

    With the coarse mask :math:`p_0 = c`, the refiner :math:`s` and the gate :math:`g`

    .. math:: p_r = c + g(c, s(p_{r - 1})) \, (s(p_{r - 1}) - c)

    so that the gate holds every round against the coarse network's own mask. SAM's image encoder runs again only on
    masks whose region moved; without a cropper it runs once.

    Args:
        model: in evaluation mode. Its acceptance rule is not asked.
        images: grey or RGB in [0, 1].
        content_sizes: (height, width) of what of each image is not padding right or below; None for all of it.
        rounds: how often to refine, at least 1; with 1 this is the model without its acceptance rule.

    Returns:
        The last round's masks, what SAM was told in it, and the coarse masks.

    Raises:
        ValueError: rounds is below 1, or the images are not images.

    Example:
        >>> from ultrarefiner import ROICropper, build_sam
        >>> refiner = SAMRefiner(build_sam("tiny", image_size=64), cropper=ROICropper())
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 3, padding=1), refiner=refiner).eval()
        >>> refine_in_rounds(model, torch.rand(2, 1, 64, 64), rounds=2).refined_probability.shape
        torch.Size([2, 1, 64, 64])
    """
    if rounds < 1:
        message = f"rounds must be at least 1, but it is {rounds}; 1 refines each mask once."
        raise ValueError(message)
    check_images(images)
    answered = main_logits(model.coarse(images))
    logits = resize_logits(answered if answered.dtype == torch.float64 else answered.float(), images.shape[-2:])
    coarse_probability = torch.sigmoid(logits)
    seen = _Seen(model.refiner, images, content_sizes)
    probability = coarse_probability
    for _ in range(rounds):
        refinement = seen.refined(probability, logits)
        logits, probability, _ = gated(model.gate, images, coarse_probability, refinement)
    return RefinedRounds(coarse_probability, probability, refinement)


class _Seen:
    """Images as SAM has seen them so far: embeddings, and the regions that they were made for."""

    def __init__(self, refiner: SAMRefiner, images: Tensor, content_sizes: Tensor | None) -> None:
        self.refiner = refiner
        self.images = images
        self.content_sizes = content_sizes
        self.embeddings: Tensor | None = None
        self.boxes: Tensor | None = None

    def refined(self, probability: Tensor, logits: Tensor) -> Refinement:
        # Dense prompts are made from what the encoder sees, which embeddings do not tell.
        images = self.images if self.refiner.dense_prompts is not None else None
        embeddings = None if images is not None else self._encoded(probability)
        refinement: Refinement = self.refiner(
            images,
            probability,
            embeddings=embeddings,
            boxes=None if embeddings is None else self.boxes,
            image_size=self.images.shape[-2:],
            coarse_logits=logits,
            content_sizes=self.content_sizes,
        )
        return refinement

    def _encoded(self, probability: Tensor) -> Tensor:
        """Embeddings of the images, or of each mask's region; what was encoded before is not encoded again."""
        cropper = self.refiner.cropper
        if cropper is None:
            if self.embeddings is None:
                self.embeddings = self.refiner.encode(self.images)
            return self.embeddings
        boxes = cropper.locate(probability, self.images.shape[-2:], content_sizes=self.content_sizes)
        if self.embeddings is None or self.boxes is None:
            self.embeddings = self.refiner.encode(self.images, boxes)
        else:
            moved = (boxes != self.boxes).any(-1)
            image, mask = moved.nonzero(as_tuple=True)  # an accelerator waits here, and is spared its encoder
            if len(image):
                renewed = self.refiner.encode(self.images[image], boxes[image, mask][:, None])
                self.embeddings = self.embeddings.index_put((image, mask), renewed[:, 0])
        self.boxes = boxes
        return self.embeddings
