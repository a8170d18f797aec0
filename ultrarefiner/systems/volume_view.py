"""One view of a volume, of the size that a network takes: encoded, and asked with plain prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_answer
from ultrarefiner.refinement import ClickCorrection
from ultrarefiner.systems.click_rounds import ClickMemory, ClickRound, PromptedNetwork, next_round
from ultrarefiner.systems.volume_state import Told
from ultrarefiner.systems.volume_windows import Box3D, Size3D
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class ViewReader:
    """Puts views and prompts on the network's device and into its dtype.

    Attributes:
        network: what is asked.
        correction: None for the network alone.
        redecode: see `next_round`.
    """

    network: PromptedNetwork
    correction: ClickCorrection | None
    redecode: bool

    @property
    def grid(self) -> Size3D:
        """(slices, rows, columns) of a view."""
        depth, height, width = self.network.volume_size
        return depth, height, width

    def encode(self, view: Float[Tensor, "1 1 d h w"]) -> Tensor:
        """The embedding of a view."""
        parameter = next(cast("nn.Module", self.network).parameters(), None)
        return self.network.encode(view if parameter is None else view.to(parameter))

    def ask(
        self,
        embedding: Tensor,
        box: Box3D | None,
        told: Told,
        *,
        text: Tensor | None,
        before: ClickMemory | None,
    ) -> ClickRound:
        """`next_round` with a box and clicks in the view's voxels; of it what the next click needs is remembered.

        Raises:
            ValueError: the network answers with NaN or infinity.
        """
        device = embedding.device
        clicks = Clicks.none(1, 3, device=device)
        if told:
            clicks = Clicks.at([voxel for voxel, _ in told], positive=[label for _, label in told], device=device)
        made = next_round(
            _Checked(self.network),
            embedding,
            clicks=clicks,
            boxes=None if box is None else torch.tensor([box], dtype=torch.float32, device=device),
            text=None if text is None else text.to(embedding),
            correction=self.correction,
            before=before,
            redecode=self.redecode,
        )
        # One of several candidates is a view that keeps all of them.
        logits = made.logits.clone() if made.logits.untyped_storage().nbytes() > made.logits.nbytes else made.logits
        return ClickRound(logits, ClickMemory(made.memory.state, None if self.redecode else logits))


class _Checked:
    """A network whose answers are looked at before anything is made of them."""

    def __init__(self, network: PromptedNetwork) -> None:
        self.network, self.volume_size = network, network.volume_size

    def encode(self, volume: Tensor, /) -> Tensor:
        return self.network.encode(volume)

    def decode(self, embedding: Tensor, /, **prompts: Any) -> Any:
        answer = self.network.decode(embedding, **prompts)
        check_answer(answer.mask_logits)
        return answer
