"""The published block of SegVol-GRU-Correction, for its weights; `GRUCorrection` is what works."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PublishedGRUBlock(nn.Module):
    """One of the published network's five blocks: a GRU over all states so far, its last step, coordinates, a sigmoid.

    Its names are the published ones, so a checkpoint's ``model.gru_blocks.0.*`` fit (`load_weights` with the layout
    "segvol_gru" fills an ``nn.ModuleList`` of five). The published code writes what this returns, a probability, as a
    logit into a corner of the volume, so that nothing is corrected; this class ends before that.

    Args:
        points: K; the published 200.
        hidden: the published 2000.
        dimensions: D, axes of the volume.

    Example:
        >>> block = PublishedGRUBlock(points=2, hidden=4)
        >>> block(torch.rand(1, 6, 16), torch.rand(1, 4, 3)).shape
        torch.Size([1, 4])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """

    def __init__(self, *, points: int = 200, hidden: int = 2000, dimensions: int = 3) -> None:
        super().__init__()
        self.gru = nn.GRU(points * (2 * dimensions + 2), hidden, batch_first=True)
        self.fc_prob = nn.Linear(hidden + 2 * points * dimensions, 2 * points)

    def forward(
        self, sequence: Float[Tensor, "b t kf"], coordinates: Float[Tensor, "b points d"]
    ) -> Float[Tensor, "b points"]:
        """A value in (0, 1) for each of 2K points.

        Args:
            sequence: the states so far, two steps for each click: K uncertain rows, then K errors, flattened.
            coordinates: of the latest 2K points.

        Returns:
            In (0, 1), one for each row of ``coordinates``.
        """
        last = self.gru(sequence)[0][:, -1]
        return torch.sigmoid(self.fc_prob(torch.cat([last, coordinates.flatten(1)], 1)))
