"""A softmax over background and lesions, read as one logit a lesion."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.types import MultiScaleLogits


def foreground_logits(class_logits: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    r"""One logit for each class but the first, whose sigmoid is the softmax's probability of that class.

    .. math:: z_i = l_i - \log \sum_{j \ne i} e^{l_j}, \quad \sigma(z_i) = \mathrm{softmax}(l)_i

    For two classes this is the difference :math:`l_1 - l_0`.

    Args:
        class_logits: the background first; c is at least 2.

    Returns:
        k = c - 1 masks.

    Raises:
        ValueError: there is only one channel, which is a lesion's logit already.

    Example:
        >>> foreground_logits(torch.tensor([1.0, 3.0])[None, :, None, None]).item()
        2.0
    """
    channels = class_logits.shape[1]
    if channels < 2:
        message = (
            f"class_logits must have the background and at least one class, but there is {channels} channel; a network "
            "with one class gives its logit already, use it as it is."
        )
        raise ValueError(message)
    if channels == 2:
        return class_logits[:, 1:] - class_logits[:, :1]
    # log(sum of the others) without cancellation: each class is taken out of the sum, not subtracted from it.
    others = class_logits.unsqueeze(1).expand(-1, channels, -1, -1, -1)
    itself = torch.eye(channels, dtype=torch.bool, device=class_logits.device)[None, :, :, None, None]
    return (class_logits - others.masked_fill(itself, -torch.inf).logsumexp(2))[:, 1:]


class ForegroundLogits(nn.Module):
    """A network with a softmax over background and lesions as one with a logit a lesion (`foreground_logits`).

    Args:
        network: images to class logits (b, c, h, w), or to `MultiScaleLogits` of them.

    Example:
        >>> ForegroundLogits(nn.Conv2d(1, 2, 3, padding=1))(torch.rand(1, 1, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"] | MultiScaleLogits:
        """The lesions' logits; side logits are read in the same way.

        Args:
            images: as the network wants them.

        Returns:
            Of every class but the background, its log odds against all the others.
        """
        answer = self.network(images)
        if isinstance(answer, MultiScaleLogits):
            return MultiScaleLogits(
                foreground_logits(answer.logits), tuple(foreground_logits(side) for side in answer.side_logits)
            )
        return foreground_logits(answer)

    def settings(self) -> dict[str, Any]:
        """The network's settings, or its class."""
        described = getattr(self.network, "settings", None)
        return {"network": type(self.network).__name__ if described is None else described()}
