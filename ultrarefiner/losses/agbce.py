"""Annotation-guided cross entropy: the pixels about which two annotators disagree weigh more."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.losses.per_mask import Reduction, aligned, reduced
from ultrarefiner.losses.ranges import check_not_negative
from ultrarefiner.ops.checks import check_probability


def disagreement_region(
    target: Float[Tensor, "b k h w"], other_annotation: Float[Tensor, "b k h w"], *, kernel_size: int
) -> Bool[Tensor, "b k h w"]:
    """The pixels where two annotations differ, dilated by a square.

    Both annotations are binarised (at least 0.5), then compared pixel by pixel, then dilated. An even square has no
    centre: a differing pixel reaches ``kernel_size // 2`` pixels to the right and downwards, and
    ``(kernel_size - 1) // 2`` to the left and upwards, as OpenCV's ``dilate`` does it. Nothing leaves the device.

    Source: Jiang et al., "MicroSegNet", arXiv 2305.19956, whose code dilates with OpenCV.

    Args:
        target: the true masks in [0, 1].
        other_annotation: the masks of the second annotator in [0, 1], on the same pixels. Equal masks, two empty ones
            for example, give an empty region.
        kernel_size: side of the square in pixels; 1 does not dilate.

    Returns:
        True in the hard pixels.

    Raises:
        ValueError: if the shapes differ, ``kernel_size`` is less than 1, or the other annotation is not in [0, 1] (its
            values are not read on an accelerator).

    Example:
        >>> import torch
        >>> target, other = torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 1, 5)
        >>> other[..., 2] = 1
        >>> disagreement_region(target, other, kernel_size=2).int().tolist()
        [[[[0, 0, 1, 1, 0]]]]
    """
    _check_kernel_size(kernel_size)
    target, other_annotation = aligned(target, other_annotation, name="other_annotation", of="target")
    check_probability(other_annotation, "other_annotation")
    differs = ((target >= 0.5) != (other_annotation >= 0.5)).to(target.dtype)
    before, after = kernel_size // 2, kernel_size - 1 - kernel_size // 2
    padded = functional.pad(differs, (before, after, before, after))
    return functional.max_pool2d(padded, kernel_size, stride=1) > 0


def annotation_guided_bce_loss(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    other_annotation: Float[Tensor, "b k h w"],
    *,
    weight: float = 12.0,
    kernel_size: int = 4,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Annotation-guided binary cross entropy (AG-BCE), the mean over the pixels of each mask.

    .. math::
        L = \frac{1}{hw} \sum_i a_i e_i, \qquad
        e_i = -\tfrac{1}{2} \left[ t_i \log \sigma(z_i) + (1 - t_i) \log (1 - \sigma(z_i)) \right], \qquad
        a_i = \begin{cases} w / (1 + w) & i \text{ hard} \\ 1 / (1 + w) & \text{else} \end{cases}

    Hard are the pixels of `disagreement_region`. A hard pixel weighs w times an easy one. With w = 1 all weigh 1/2, and
    the loss is a quarter of `binary_cross_entropy_loss`. Where the annotations agree everywhere, no pixel is hard, and
    it is that loss divided by 2 (1 + w): 1/26 of it for w = 12. Nothing makes up for this: a mask on which both
    annotators agree weighs less than one they dispute. No gradient reaches the other annotation.

    The paper's w is 12. The published code's default is 4; it adds 1e-6 inside the logarithms, which computing from
    logits makes needless.

    Source: Jiang et al., "MicroSegNet: A deep learning approach for prostate segmentation on micro-ultrasound images",
    arXiv 2305.19956.

    Args:
        logits: mask logits.
        target: the true masks in [0, 1], the expert's. Binarised (at least 0.5) for the region only. An empty one is
            nothing special.
        other_annotation: the second annotator's masks in [0, 1]: a less experienced person's, a coarse network's, or
            simulated ones.
        weight: w, at least 0.
        kernel_size: side in pixels of the square that dilates the disagreement, at least 1.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in nats, in float32 or wider.

    Raises:
        ValueError: if the shapes differ, a mask is not in [0, 1] (values are not read on an accelerator), ``weight`` is
            negative, ``kernel_size`` is less than 1, or the reduction is unknown.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> agreed = annotation_guided_bce_loss(logits, target, target)
        >>> disputed = annotation_guided_bce_loss(logits, target, 1 - target)
        >>> round((disputed / agreed).item(), 4)
        12.0
    """
    check_not_negative(weight=weight)
    logits, target = aligned(logits, target)
    check_probability(target, "target")
    hard = disagreement_region(target, other_annotation, kernel_size=kernel_size)
    pixels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weighted = torch.where(hard, weight * pixels, pixels)
    return reduced(weighted.mean((-2, -1)) / (2 * (1 + weight)), reduction)


class AGBCELoss(nn.Module):
    """`annotation_guided_bce_loss` with its options kept.

    Args:
        weight: how much more a hard pixel weighs than an easy one; 12 in the paper, 4 in the published code.
        kernel_size: side in pixels of the square that dilates the disagreement.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Attributes:
        compares_annotations: True. A loss that has this attribute is called with a third argument, the other
            annotation; `DeepSupervision` asks for it.

    Raises:
        ValueError: if ``weight`` is negative or ``kernel_size`` less than 1.

    Example:
        >>> import torch
        >>> expert, student = torch.eye(4)[None, None], torch.ones(1, 1, 4, 4)
        >>> AGBCELoss(weight=4.0)(torch.zeros(1, 1, 4, 4), expert, student).shape
        torch.Size([])
    """

    compares_annotations: ClassVar[bool] = True

    def __init__(self, *, weight: float = 12.0, kernel_size: int = 4, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_not_negative(weight=weight)
        _check_kernel_size(kernel_size)
        self.weight = weight
        self.kernel_size = kernel_size
        self.reduction: Reduction = reduction

    def forward(
        self,
        logits: Float[Tensor, "b k h w"],
        target: Float[Tensor, "b k h w"],
        other_annotation: Float[Tensor, "b k h w"],
    ) -> Float[Tensor, "*values"]:
        """The loss; see `annotation_guided_bce_loss`."""
        return annotation_guided_bce_loss(
            logits,
            target,
            other_annotation,
            weight=self.weight,
            kernel_size=self.kernel_size,
            reduction=self.reduction,
        )


def _check_kernel_size(kernel_size: int) -> None:
    if not isinstance(kernel_size, Integral) or isinstance(kernel_size, bool) or int(kernel_size) < 1:
        message = f"kernel_size must be a whole number of at least 1 pixel, which does not dilate; got {kernel_size}."
        raise ValueError(message)
