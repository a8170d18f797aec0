"""What a tight box says about a mask, in one loss: empty outside, touched on all sides, of a plausible size."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.box_size import PixelSizeLoss, SizeLoss
from ultrarefiner.losses.empty_box import EmptyLoss
from ultrarefiner.losses.ranges import check_not_negative
from ultrarefiner.losses.tight_bands import BandTightBoxLoss
from ultrarefiner.losses.tight_box import TightBoxLoss


class WeakBoxLoss(nn.Module):
    r"""The weighted sum of three losses that need boxes and no mask.

    .. math:: L = L_{empty} + \lambda_1 L_{tight} + \lambda_2 L_{size}

    The default parts are those of the Automatic MedSAM project; `paper_weak_box_loss` makes the paper's. There is no
    other term: a predicted box is trained by `BoxRegressionLoss`, which is added where it is wanted. An empty box
    leaves the first term alone, over the whole frame: no lesion anywhere. A box that covers the frame leaves the
    other two.

    Each part is called with (logits, boxes). Their reductions must agree: scalars, or (b, k) each.

    Source: Gaillochet et al., "Automating MedSAM by Learning Prompts with Weak Few-Shot Supervision",
    arXiv 2409.20293; the README of Automatic MedSAM (vinhnamhai321/AutoMedSAM).

    Args:
        empty: what to ask outside the box; None for `EmptyLoss`.
        tight: what to ask of its rows and columns; None for `TightBoxLoss`.
        size: what to ask of its area; None for `SizeLoss`.
        tight_weight: the first lambda, at least 0.
        size_weight: the second, at least 0.

    Raises:
        ValueError: if a weight is negative.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> round(WeakBoxLoss()(torch.zeros(1, 1, 4, 4), box).item(), 4)
        0.6972
    """

    def __init__(
        self,
        *,
        empty: nn.Module | None = None,
        tight: nn.Module | None = None,
        size: nn.Module | None = None,
        tight_weight: float = 1e-4,
        size_weight: float = 0.01,
    ) -> None:
        super().__init__()
        check_not_negative(tight_weight=tight_weight, size_weight=size_weight)
        self.empty = EmptyLoss() if empty is None else empty
        self.tight = TightBoxLoss() if tight is None else tight
        self.size = SizeLoss() if size is None else size
        self.tight_weight = tight_weight
        self.size_weight = size_weight

    def forward(self, logits: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"]) -> Float[Tensor, "*values"]:
        """The loss.

        Args:
            logits: mask logits.
            boxes: (x0, y0, x1, y1), tight, in pixel edges of the masks; rounded, and cut off at the frame.

        Returns:
            The sum as the parts reduce it: a scalar by default, in float32 or wider.

        Raises:
            ValueError: if the shapes do not fit, or a coordinate is NaN.
        """
        empty: Tensor = self.empty(logits, boxes)
        tight: Tensor = self.tight(logits, boxes)
        size: Tensor = self.size(logits, boxes)
        return empty + self.tight_weight * tight + self.size_weight * size


_PUBLISHED_SIDE = 1024


def project_weak_box_loss(*, size: int = 1024, tight_weight: float = 1e-4, size_weight: float = 0.01) -> WeakBoxLoss:
    """`WeakBoxLoss` as the project has it, for masks of any side.

    Tightness counts pixels while the other terms are means, so its published weight belongs to masks of 1024 pixels; on
    smaller ones it grows by 1024 / size, and the terms keep their proportions.

    Args:
        size: side of the masks that the loss sees, in pixels.
        tight_weight: of the tightness term at 1024 pixels.
        size_weight: of the size term.

    Returns:
        The loss, which is called with logits and boxes.

    Raises:
        ValueError: a size below 1, or a negative weight.

    Example:
        >>> project_weak_box_loss(size=256).tight_weight
        0.0004
    """
    return WeakBoxLoss(tight_weight=_at(size, tight_weight), size_weight=size_weight)


def _at(size: int, weight: float) -> float:
    if size < 1:
        message = f"size must be at least 1 pixel, but it is {size}; give the side of the masks."
        raise ValueError(message)
    return weight * _PUBLISHED_SIDE / size


def paper_weak_box_loss(*, size: int = 1024, tight_weight: float = 1e-4, size_weight: float = 0.01) -> WeakBoxLoss:
    """`WeakBoxLoss` as the paper has it: bands of width 5, an area of 0.5 to 0.9 of the box in pixels, 1e-4 and 0.01.

    Args:
        size: side of the masks that the loss sees, in pixels; the tightness term is weighted as in
            `project_weak_box_loss`.
        tight_weight: of the tightness term at 1024 pixels.
        size_weight: of the size term.

    Returns:
        The loss, which is called with logits and boxes.

    It differs from the published code in two details: each mask weighs the same in the term outside the box, and a
    single line left over by the bands has a band of its own.

    Source: Gaillochet et al., "Automating MedSAM by Learning Prompts with Weak Few-Shot Supervision",
    arXiv 2409.20293.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
        >>> paper_weak_box_loss()(torch.zeros(1, 1, 4, 4), box).shape
        torch.Size([])
    """
    return WeakBoxLoss(
        tight=BandTightBoxLoss(width=5),
        size=PixelSizeLoss(low=0.5, high=0.9),
        tight_weight=_at(size, tight_weight),
        size_weight=size_weight,
    )
