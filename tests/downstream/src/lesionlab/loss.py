"""A loss of its own, and one of the library's beside it."""

from __future__ import annotations

from torch import Tensor, nn

from ultrarefiner import DiceBCELoss
from ultrarefiner.losses import dice_loss


class TverskyLoss(nn.Module):
    """Misses count more than false alarms; plus a share of the library's Dice."""

    def __init__(self, *, miss: float = 0.7, dice_weight: float = 0.5) -> None:
        super().__init__()
        self.miss = miss
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        probability = logits.sigmoid()
        hit = (probability * target).sum((-2, -1))
        missed = ((1 - probability) * target).sum((-2, -1))
        wrong = (probability * (1 - target)).sum((-2, -1))
        tversky = 1 - (hit + 1) / (hit + self.miss * missed + (1 - self.miss) * wrong + 1)
        return (tversky + self.dice_weight * dice_loss(logits, target, reduction="none")).mean()


def plain_loss(logits: Tensor, target: Tensor) -> Tensor:
    """What a module of the library returns is known as a tensor to whoever says so."""
    loss: Tensor = DiceBCELoss()(logits, target)
    return loss
