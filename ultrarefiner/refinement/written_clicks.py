"""WrittenClicks: a correction that has nothing to learn, to stand in for one, and to measure one against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.refinement.correction import CorrectionState, GRUCorrection
from ultrarefiner.refinement.point_selection import select_errors
from ultrarefiner.refinement.point_writing import write_points, written_voxels
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class WrittenAnswer:
    """What `WrittenClicks` answers.

    Attributes:
        logits: with the clicks written into them.
        written: the voxels that were written.
        state: None; there is nothing to remember.
    """

    logits: Float[Tensor, "b 1 *space"]
    written: Bool[Tensor, "b 1 *space"]
    state: None = None


class WrittenClicks(nn.Module):
    r"""Write what a click says into the voxels next to it that contradict it: no weights, no memory, no image.

    Of the voxels within ``radius`` of a click whose prediction is not what it says (`select_errors`), the ``count``
    nearest get the logit ``value`` where the click is on the object, ``-value`` where it is not. Several clicks share
    ``count`` voxels each. Any `GRUCorrection` should be better than this; where there is none yet, it lets a session
    listen to clicks. Called and used like one, in 2-D and 3-D.

    Args:
        count: voxels a click, at least 1.
        radius: Euclidean, in voxels.
        value: the logit that is written, above 0.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> clicks = Clicks.at([(0, 1)], positive=[True])
        >>> WrittenClicks(count=2, radius=3.0)(torch.full((1, 1, 1, 5), -1.0), clicks).logits
        tensor([[[[ 5.,  5., -1., -1., -1.]]]])
    """

    def __init__(self, *, count: int = 50, radius: float = 8.0, value: float = 5.0) -> None:
        super().__init__()
        if count < 1 or not 0 <= radius < float("inf") or not 0 < value < float("inf"):
            message = (
                "WrittenClicks takes count >= 1, a finite radius >= 0 and a finite value > 0, but was given "
                f"count={count}, radius={radius} and value={value}."
            )
            raise ValueError(message)
        self.count, self.radius, self.value = count, radius, value

    def forward(
        self,
        logits: Float[Tensor, "b 1 *space"],
        clicks: Clicks,
        state: CorrectionState | None = None,  # noqa: ARG002 - it takes the place of a GRUCorrection
    ) -> WrittenAnswer:
        """Write clicks into logits.

        Args:
            logits: (b, 1, d, h, w) or (b, 1, h, w), finite.
            clicks: all that are to be written; a volume without a valid one stays as it is.
            state: not looked at; there for the sake of `GRUCorrection`'s place.

        Returns:
            The logits with the clicks in them.

        Raises:
            ValueError: logits or clicks do not fit, or a click lies outside.
        """
        made = max(clicks.positions.shape[1], 1)
        with torch.no_grad():
            errors = select_errors(logits.sigmoid(), clicks, count=self.count * made, radius=self.radius)
        # Whatever is an error has the other sign.
        said = torch.where(errors.probability > 0.5, -self.value, self.value)
        positions = errors.indices.to(said.dtype)
        written = write_points(logits, positions, said, errors.valid, mode="set")
        return WrittenAnswer(written, written_voxels(positions, errors.valid, tuple(logits.shape[2:])))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"count={self.count}, radius={self.radius}, value={self.value}"


ClickCorrection = GRUCorrection | WrittenClicks
"""What answers a click after any network."""
