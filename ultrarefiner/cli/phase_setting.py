"""What the commands of the three phases and of the correction have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultrarefiner.cli.setting import RunFlags
from ultrarefiner.cli.split import Split
from ultrarefiner.data import BUSI, FittedCases

NO_LESION = "normal"
"""The label of BUSI's images without a lesion."""


@dataclass(frozen=True, kw_only=True)
class PhaseSetting(RunFlags):
    """Cases with masks, and numbers of a run of one phase.

    Args:
        include_normal: BUSI's normal images, which have no lesion, are cases, too; in all phases or in none.

    Raises:
        ValueError: flags that do not go together, no masks, or what `RunFlags` refuses.
    """

    include_normal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.has_masks:
            message = "boxes are for automedsam: this phase learns from masks; leave boxes out, or train automedsam."
            raise ValueError(message)
        if self.include_normal and (self.synthetic or self.dataset != "busi"):
            message = "include_normal is about BUSI's normal images; leave it out, other sets are taken whole."
            raise ValueError(message)

    def open(self) -> Any:
        """The cases, with BUSI's normal images if they are asked for."""
        if self.include_normal and self.data is not None:
            return BUSI(self.data, normal=True, groups=self._groups())
        return super().open()

    def cases(self) -> dict[str, Any]:
        """What must be the same in all phases, as plain values."""
        return {
            "dataset": "phantoms" if self.synthetic else self.dataset,
            "include_normal": self.include_normal,
            "colour": self.colour,
            "fold": self.fold,
            "folds": self.folds,
            "seed": self.seed,
        }

    def fitted(self, split: Split, frame: int) -> tuple[FittedCases, FittedCases]:
        """Training and validation cases in squares of one side."""
        kept = self.keep_in_memory
        training = FittedCases(split.training, frame, keep_in_memory=kept)
        return training, FittedCases(split.validation, frame, keep_in_memory=kept)


def unseen(split: Split) -> tuple[Any, ...]:
    """What no phase may have been trained on: the cases that choose, and those that are reported."""
    return (split.validation, *split.tests.values())
