"""No lesion outside its box: cross entropy with background, on the pixels outside alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.losses.box_region import aligned_boxes
from ultrarefiner.losses.per_mask import Reduction, reduced


def empty_loss(
    logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"], *, reduction: Reduction = "mean"
) -> Float[Tensor, "*values"]:
    r"""The mean of :math:`-\ln(1 - p)` over the pixels outside the box, p being the mask's probability.

    .. math:: L = \frac{1}{|\bar B|} \sum_{i \notin B} \ln(1 + e^{z_i})

    Computed from the logits z, so that it is exact where 1 - p rounds to 0; the published codes add 1e-7 or 1e-10
    instead. Pixels inside the box get no gradient, whatever they are; pixels outside get less the surer they are
    background, and none at logits so low that p rounds to 0.

    An empty box (no pixel, see `box_region`) has every pixel outside: the whole mask is pushed to background, as it
    should be where there is no lesion. A box that covers the frame has no pixel outside, and the loss is 0.

    Each mask is a mean of its own, then come the masks. Gaillochet's code divides once, by the pixels outside of the
    whole batch.

    Source: Kervadec et al., "Bounding boxes for weakly supervised segmentation: Global constraints get close to full
    supervision", MIDL 2020; Gaillochet et al., "Automating MedSAM by Learning Prompts with Weak Few-Shot
    Supervision", arXiv 2409.20293.

    Args:
        logits: mask logits.
        boxes: (x0, y0, x1, y1) in pixel edges of the masks; rounded, and cut off at the frame.
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in nats, in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit, a coordinate is NaN, or the reduction is unknown.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> round(empty_loss(torch.zeros(1, 1, 4, 4), box).item(), 4)  # ln 2
        0.6931
    """
    logits, region = aligned_boxes(logits, boxes)
    outside = ~region.inside
    pixels = -functional.logsigmoid(-logits)
    total = pixels.where(outside, 0).sum((-2, -1))
    return reduced(total / outside.sum((-2, -1)).clamp(min=1), reduction)


class EmptyLoss(nn.Module):
    """`empty_loss` with its options kept.

    Args:
        reduction: ``"mean"`` over the masks, or ``"none"`` for (b, k).

    Example:
        >>> import torch
        >>> EmptyLoss()(torch.zeros(2, 1, 4, 4), torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(2, 1, 4)).shape
        torch.Size([])
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss; see `empty_loss`."""
        return empty_loss(logits, boxes, reduction=self.reduction)
