"""Teaching SAM's IoU head to tell how good each of its candidates is."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def candidate_iou(
    candidate_logits: Float[Tensor, "b k m h w"], target: Float[Tensor, "b k h w"]
) -> Float[Tensor, "b k m"]:
    r"""True intersection over union of each candidate's hard mask (logit > 0) with the target (> 0.5).

    .. math:: IoU = \frac{|A \cap B|}{|A \cup B|}, \qquad \text{1 where both are empty}

    It carries no gradient: a count of pixels has none.

    Args:
        candidate_logits: the m masks that SAM proposes for each prompt.
        target: the true masks on the same pixels, in [0, 1].

    Returns:
        One value a candidate, in [0, 1], in float32.

    Raises:
        ValueError: if the target does not lie on the candidates' pixels.

    Example:
        >>> import torch
        >>> candidates = torch.ones(1, 1, 3, 2, 2)
        >>> candidate_iou(candidates, torch.eye(2)[None, None]).tolist()
        [[[0.5, 0.5, 0.5]]]
    """
    wanted = (*candidate_logits.shape[:2], *candidate_logits.shape[3:])
    if candidate_logits.ndim != 5 or wanted != target.shape:
        message = (
            "target must be (b, k, h, w) on the pixels of candidate_logits (b, k, m, h, w); got target "
            f"{tuple(target.shape)} and candidate_logits {tuple(candidate_logits.shape)}. Resize the target."
        )
        raise ValueError(message)
    masks = candidate_logits > 0
    truth = (target > 0.5)[:, :, None]
    intersection = (masks & truth).sum((-2, -1))
    union = (masks | truth).sum((-2, -1))
    iou = intersection.to(torch.float32) / union.clamp(min=1)
    return iou.masked_fill(union == 0, 1.0)


def iou_regression_loss(
    predicted_iou: Float[Tensor, "b k m"],
    candidate_logits: Float[Tensor, "b k m h w"],
    target: Float[Tensor, "b k h w"],
    valid: Bool[Tensor, "b k"] | None = None,
) -> Float[Tensor, ""]:
    r"""Mean squared error between SAM's own estimate of each candidate's IoU and the truth.

    .. math:: L = \operatorname{mean}_{b, k, m} \left( \widehat{IoU} - IoU \right)^2

    The gradient goes to the estimate alone, never to the masks. Every candidate is taught, because the
    selection compares all of them: teaching only the best one would leave the others' estimates free to beat
    it.

    Source: Kirillov et al., "Segment Anything", ICCV 2023 (mean squared error on the IoU head).

    Args:
        predicted_iou: what SAM's head says.
        candidate_logits: the masks it says it of, at any resolution.
        target: the true masks at that resolution, in [0, 1].
        valid: False where there was nothing to refine; those masks are left out of the mean, whatever is in
            them.

    Returns:
        A scalar of at least 0, in float32 or wider; 0 when no mask is valid.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> import torch
        >>> candidates, target = torch.ones(1, 1, 3, 2, 2), torch.ones(1, 1, 2, 2)
        >>> iou_regression_loss(torch.full((1, 1, 3), 0.5), candidates, target).item()
        0.25
    """
    truth = candidate_iou(candidate_logits, target)
    if predicted_iou.shape != truth.shape:
        message = (
            f"predicted_iou must hold one value a candidate, (b, k, m) = {tuple(truth.shape)}; "
            f"got {tuple(predicted_iou.shape)}."
        )
        raise ValueError(message)
    predicted = predicted_iou.to(torch.promote_types(predicted_iou.dtype, torch.float32))
    truth = truth.to(predicted.dtype)
    if valid is None:
        return (predicted - truth).square().mean()
    if valid.shape != truth.shape[:2]:
        message = f"valid must be (b, k) = {tuple(truth.shape[:2])}; got {tuple(valid.shape)}."
        raise ValueError(message)
    counted = valid[:, :, None].expand_as(truth)
    # Replacing before the subtraction keeps a NaN of a left-out mask out of the gradient too.
    difference = torch.where(counted, predicted, truth) - truth
    return difference.square().sum() / counted.sum().clamp(min=1)


class IoURegressionLoss(nn.Module):
    """`iou_regression_loss` as a module. It has no options.

    Example:
        >>> import torch
        >>> loss = IoURegressionLoss()
        >>> loss(torch.ones(1, 2, 3), torch.ones(1, 2, 3, 4, 4), torch.ones(1, 2, 4, 4)).item()
        0.0
    """

    def forward(
        self,
        predicted_iou: Float[Tensor, "b k m"],
        candidate_logits: Float[Tensor, "b k m h w"],
        target: Float[Tensor, "b k h w"],
        valid: Bool[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss; see `iou_regression_loss`."""
        return iou_regression_loss(predicted_iou, candidate_logits, target, valid)
