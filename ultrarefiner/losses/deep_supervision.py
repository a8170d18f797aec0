"""Deep supervision: a loss at every scale of a decoder, against masks that keep their area when they shrink."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.losses.agbce import AGBCELoss
from ultrarefiner.losses.cross_entropy import BinaryCrossEntropyLoss
from ultrarefiner.losses.per_mask import aligned
from ultrarefiner.losses.ranges import check_not_negative
from ultrarefiner.ops.coordinates import accumulation_dtype
from ultrarefiner.ops.resample import apply_weights
from ultrarefiner.types import MultiScaleLogits


class DeepSupervision(nn.Module):
    r"""The weighted sum of a loss over the side outputs of a network and its main output.

    .. math:: L = \sum_i v_i \, L_i(z_i, t_i)

    The sum goes from the coarsest side output to the main one, :math:`z_i` are the logits there and :math:`t_i` the
    target on their pixels: 1 in every pixel of which the mask covers at least half, by exact area, else 0. So a mask
    keeps its area to about 1 %: ellipses gain 1.3 % at half the side, where many pixels are covered to exactly a half,
    and 0.1 % at an eighth. (The published code of MicroSegNet resizes bilinearly and cuts the fractions off, which
    shrinks masks by up to 3 %.) A target that already has the size of an output is passed as it is. A lesion that
    covers less than half of each coarse pixel is empty there.

    A loss with a true attribute ``compares_annotations``, such as `AGBCELoss`, is called with a third argument, the
    other annotation, resized in the same way.

    Args:
        loss: one loss for every scale; or one for each output, coarse to fine, the main output's last. Each is called
            with logits and target.
        weights: v, one number of at least 0 for each output in the same order; None for 1 everywhere.

    Attributes:
        takes_side_logits: true: a recipe gives it all that a network returns, not the mask's logits alone.
        compares_annotations: whether one of its losses does: a recipe then gives it the other annotation.

    Raises:
        ValueError: if there is no loss, a weight is negative, or there are not as many weights as losses.

    Example:
        >>> import torch
        >>> output = MultiScaleLogits(torch.zeros(1, 1, 8, 8), (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4)))
        >>> loss = DeepSupervision(BinaryCrossEntropyLoss(), weights=(0.5, 0.5, 1.0))
        >>> round(loss(output, torch.ones(1, 1, 8, 8)).item(), 4)  # 2 ln 2
        1.3863

    Source: Lee et al., "Deeply-Supervised Nets", AISTATS 2015.
    """

    def __init__(self, loss: nn.Module | Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        _check_kinds(loss, weights)
        # A ModuleList is a module, too, but it holds one loss for each output.
        one = isinstance(loss, nn.Module) and not isinstance(loss, nn.ModuleList)
        self.loss: nn.Module = cast(nn.Module, loss) if one else nn.ModuleList(cast(Sequence[nn.Module], loss))
        self.weights = None if weights is None else tuple(weights)
        check_not_negative(**{f"weights[{index}]": weight for index, weight in enumerate(self.weights or ())})
        counts = {len(part) for part in (self.loss, self.weights) if isinstance(part, (nn.ModuleList, tuple))}
        if 0 in counts or len(counts) > 1:
            message = (
                "loss must be one module or a sequence of them, and weights None or as many numbers; got "
                f"{'1 module' if one else f'a sequence of {len(self._losses(1))}'} and weights={self.weights}."
            )
            raise ValueError(message)

    @classmethod
    def paper(cls, *, weight: float = 12.0, sides: int = 3) -> DeepSupervision:
        """MicroSegNet as the paper has it: cross entropy on the side outputs, AG-BCE with kernel 4 on the main one.

        Cross entropy is that of `BinaryCrossEntropyLoss`, all four weigh 1. AG-BCE carries a factor of 1/2 and weights
        of at most 1, so the side outputs have the larger share of the sum.

        Args:
            weight: of hard pixels.
            sides: number of side outputs.

        Raises:
            ValueError: sides is no whole number of at least 1.

        Example:
            >>> [type(loss).__name__ for loss in DeepSupervision.paper(sides=1).loss]
            ['BinaryCrossEntropyLoss', 'AGBCELoss']

        Source: Jiang et al., "MicroSegNet", arXiv 2305.19956.
        """
        if not isinstance(sides, int) or sides < 1:
            message = f"sides must be at least 1, the whole number of side outputs; got {sides}."
            raise ValueError(message)
        return cls([*(BinaryCrossEntropyLoss() for _ in range(sides)), AGBCELoss(weight=weight, kernel_size=4)])

    @classmethod
    def published_code(cls, *, weight: float = 4.0) -> DeepSupervision:
        """MicroSegNet as its code has it: AG-BCE at all four scales, kernels of 1, 2, 3 and 4 pixels, coarse to fine.

        All four weigh 1. The masks are resized as this class does it, not as the code does.

        Args:
            weight: of hard pixels; 4 is the code's default.

        Example:
            >>> [loss.kernel_size for loss in DeepSupervision.published_code().loss]
            [1, 2, 3, 4]

        Source: github.com/mirthAI/MicroSegNet.
        """
        return cls([AGBCELoss(weight=weight, kernel_size=size) for size in (1, 2, 3, 4)])

    takes_side_logits: ClassVar[bool] = True

    @property
    def compares_annotations(self) -> bool:
        """Whether any of the losses needs the other annotation."""
        return any(_compares(loss) for loss in self._losses(1))

    def forward(
        self,
        output: MultiScaleLogits,
        target: Float[Tensor, "b k h w"],
        other_annotation: Float[Tensor, "b k h w"] | None = None,
    ) -> Float[Tensor, "*values"]:
        """The weighted sum.

        Args:
            output: what a network with deep supervision returns.
            target: the true masks in [0, 1], best on the pixels of the main output.
            other_annotation: the second annotator's masks on the same pixels; unused where no loss compares.

        Returns:
            A scalar if the losses return scalars, (b, k) if they return one value a mask.

        Raises:
            ValueError: if the output is a plain tensor, the number of outputs is not that of the losses or weights, the
                other annotation is needed and missing, or shapes differ.
        """
        scales = self._scales(output)
        weights = self.weights or (1.0,) * len(scales)
        masks = [target, *self._other(target, other_annotation)]
        # One resize for each size, however many outputs have it.
        sizes = dict.fromkeys(tuple(logits.shape[-2:]) for logits in scales)
        resized = {size: [_resize_mask(mask, size) for mask in masks] for size in sizes}
        terms = []
        for logits, loss, weight in zip(scales, self._losses(len(scales)), weights, strict=True):
            known = resized[tuple(logits.shape[-2:])]
            terms.append(weight * loss(logits, *(known if _compares(loss) else known[:1])))
        return torch.stack(terms).sum(0)

    def settings(self) -> dict[str, Any]:
        """The losses with their options, and the weights: what a checkpoint remembers."""
        loss = self._losses(1) if isinstance(self.loss, nn.ModuleList) else self.loss
        return {"loss": loss, "weights": self.weights}

    def _losses(self, scales: int) -> list[nn.Module]:
        """The loss of each scale."""
        return list(self.loss) if isinstance(self.loss, nn.ModuleList) else [self.loss] * scales

    def _scales(self, output: MultiScaleLogits) -> list[Tensor]:
        if not isinstance(output, MultiScaleLogits):
            message = (
                f"output must be MultiScaleLogits, the network's mask and its side outputs; got {type(output).__name__}"
                ". Build the network with deep_supervision=True, or call the loss without DeepSupervision."
            )
            raise ValueError(message)
        scales = [*output.side_logits, output.logits]
        expected = len(self.weights or self._losses(len(scales)))
        if len(scales) != expected:
            message = (
                f"output must have {expected} scales, one for each loss or weight; got {len(scales)} "
                f"({len(scales) - 1} side outputs and the mask). Give one loss for all, or as many as there are scales."
            )
            raise ValueError(message)
        return scales

    def _other(self, target: Tensor, other_annotation: Tensor | None) -> list[Tensor]:
        """The other annotation if a loss asks for it."""
        if not self.compares_annotations:
            return []
        if other_annotation is None:
            message = (
                "other_annotation must be given, because a loss compares it with the target; got None. Pass the second "
                "annotator's masks, the coarse network's, or simulated ones."
            )
            raise ValueError(message)
        aligned(target, other_annotation, name="other_annotation", of="target")
        return [other_annotation]


def _check_kinds(loss: Any, weights: Any) -> None:
    losses = [loss] if isinstance(loss, nn.Module) else loss
    if not isinstance(losses, Sequence) or not all(isinstance(part, nn.Module) for part in losses):
        message = f"loss must be a module, or a sequence of modules; got {loss!r}. Wrap a function in a module."
        raise ValueError(message)
    numbers = weights is None or (isinstance(weights, Sequence) and all(isinstance(one, Real) for one in weights))
    if not numbers:
        message = f"weights must be None or one number for each output, coarse to fine; got {weights!r}."
        raise ValueError(message)


def _resize_mask(mask: Float[Tensor, "b k h w"], size: tuple[int, ...]) -> Float[Tensor, "b k new_h new_w"]:
    """1 where the mask covers at least half of a pixel, by exact area; the mask itself if it has that size."""
    if tuple(mask.shape[-2:]) == size:
        return mask
    (height, width), (new_height, new_width) = mask.shape[-2:], size
    rows, columns = _overlaps(height, new_height, mask.device), _overlaps(width, new_width, mask.device)
    # Sums of whole numbers: a pixel that is covered to exactly a half is never rounded to less.
    dtype = accumulation_dtype(mask)
    covered = apply_weights(mask, rows.to(dtype), columns.to(dtype))
    whole = rows[0].sum() * columns[0].sum()
    return (2 * covered >= whole).to(mask.dtype)


def _compares(loss: nn.Module) -> bool:
    return bool(getattr(loss, "compares_annotations", False))


def _overlaps(inputs: int, outputs: int, device: torch.device) -> Tensor:
    """How much of each input pixel lies in each output pixel, (outputs, inputs), in the largest unit that divides both.

    Each output pixel is as long as ``inputs // gcd(inputs, outputs)`` of these units, which is what its row sums to.
    """
    unit = math.gcd(inputs, outputs)
    length, new_length = outputs // unit, inputs // unit
    start = torch.arange(inputs, device=device)[None, :] * length
    new_start = torch.arange(outputs, device=device)[:, None] * new_length
    end = torch.minimum(start + length, new_start + new_length)
    return (end - torch.maximum(start, new_start)).clamp(min=0)
