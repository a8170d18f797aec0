"""What the commands of the three phases and of the correction have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from ultrarefiner.cli.frozen_sam import SAMFlags
from ultrarefiner.cli.phase_flags import refuse_devices, refuse_no_folder
from ultrarefiner.cli.setting import RunFlags
from ultrarefiner.cli.split import Split
from ultrarefiner.data import BUSI, Augmentation, FittedCases

Augment = Literal["none", "ultrasound", "glas", "monuseg", "polyp"]

_PRESETS = {"glas": "glas", "monuseg": "monuseg", "polyps": "polyp"}
NO_LESION = "normal"
"""The label of BUSI's images without a lesion."""


@dataclass(frozen=True, kw_only=True)
class PhaseSetting(RunFlags):
    """Cases with masks, and numbers of a run of one phase.

    Args:
        include_normal: BUSI's normal images, which have no lesion, are cases, too; in all phases or in none.

    Raises:
        ValueError: flags that do not go together, no masks, no such device or no number of them, or out takes no files.
    """

    include_normal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_no_folder(self.out)
        refuse_devices(self.devices, on_cpu=self.device().type == "cpu")
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

    def device(self) -> torch.device:
        """Where this process computes outside of the loop.

        Raises:
            ValueError: there is no such device.
        """
        return SAMFlags(accelerator=self.accelerator).device()

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


def augmentation(chosen: Augment | None, dataset: str) -> Augmentation | None:
    """What moves and shades images in training.

    Args:
        chosen: a preset, "none", or None for the data set's own: as AutoSAM published it, else for ultrasound.
        dataset: its name.

    Example:
        >>> augmentation("none", "busi") is None, augmentation(None, "glas") is None
        (True, False)
    """
    name = chosen or _PRESETS.get(dataset, "ultrasound")
    return None if name == "none" else Augmentation.preset(cast("Any", name))


def unseen(split: Split) -> tuple[Any, ...]:
    """What no phase may have been trained on: the cases that choose, and those that are reported."""
    return (split.validation, *split.tests.values())
