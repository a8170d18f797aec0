"""Squared distance of a predicted box from the true one, in units of the frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.box_region import check_boxes
from ultrarefiner.losses.per_mask import Reduction, reduced


def box_regression_loss(
    predicted_boxes: Float[Tensor, "b k 4"],
    boxes: Float[Tensor, "b k 4"],
    size: Sequence[int],
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*values"]:
    r"""Mean squared difference of the four coordinates, x divided by the frame's width and y by its height.

    .. math:: L = \frac{1}{4} \sum_j (\hat b_j - b_j)^2, \qquad x \to x / w, \; y \to y / h

    Trains the box that `PromptModule` predicts. The published code of Automatic MedSAM adds it with a weight of 1 and
    does not name it; the paper does not have it. Here it is a term of its own, in no other loss. A predicted box
    outside the frame is not clipped, so it is pulled back. A true box without area (no lesion) is no target: its loss
    is 0, without a gradient.

    Source: Automatic MedSAM (vinhnamhai321/AutoMedSAM).

    Args:
        predicted_boxes: (x0, y0, x1, y1) in pixel edges of the frame; not rounded.
        boxes: the true ones, in the same frame; not rounded.
        size: (height, width) of the frame.
        reduction: ``"mean"`` over the boxes, or ``"none"`` for (b, k).

    Returns:
        Values of at least 0, in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit, a true coordinate is NaN, the size is not two numbers above 0, or the
            reduction is unknown.

    Example:
        >>> import torch
        >>> predicted, true = torch.tensor([[[20.0, 10.0, 80.0, 40.0]]]), torch.tensor([[[25.0, 12.5, 75.0, 37.5]]])
        >>> round(box_regression_loss(predicted, true, (50, 100)).item(), 4)  # 0.05 squared
        0.0025
    """
    if len(size) != 2 or min(size) <= 0:
        message = f"size must be (height, width) of the frame that the boxes are in, both above 0; got {tuple(size)}."
        raise ValueError(message)
    check_boxes(boxes, "boxes", tuple(predicted_boxes.shape[:2]))
    if predicted_boxes.shape != boxes.shape:
        message = (
            f"predicted_boxes must be (b, k, 4) = {tuple(boxes.shape)}, one for each true box; "
            f"got shape {tuple(predicted_boxes.shape)}. Predict one box for each mask."
        )
        raise ValueError(message)
    dtype = torch.promote_types(predicted_boxes.dtype, torch.float32)
    true = boxes.detach().to(dtype)
    off = predicted_boxes.to(dtype) - true
    squares = torch.cat([off[..., 0::2] / size[1], off[..., 1::2] / size[0]], -1).square().mean(-1)
    return reduced(squares.where((true[..., 2:] > true[..., :2]).all(-1), 0), reduction)


class BoxRegressionLoss(nn.Module):
    """`box_regression_loss` with its options kept.

    Args:
        reduction: ``"mean"`` over the boxes, or ``"none"`` for (b, k).

    Example:
        >>> import torch
        >>> BoxRegressionLoss()(torch.zeros(2, 1, 4), torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(2, 1, 4), (4, 4)).shape
        torch.Size([])
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(
        self, predicted_boxes: Float[Tensor, "b k 4"], boxes: Float[Tensor, "b k 4"], size: Sequence[int]
    ) -> Float[Tensor, "*values"]:
        """The loss; see `box_regression_loss`."""
        return box_regression_loss(predicted_boxes, boxes, size, reduction=self.reduction)
