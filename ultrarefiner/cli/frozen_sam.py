"""The SAM that a command leaves as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.cli.accelerator import device_of
from ultrarefiner.cli.cases import CaseFlags
from ultrarefiner.sam import SAM, build_sam

_TINY = 256


@dataclass(frozen=True, kw_only=True)
class SAMFlags(CaseFlags):
    """Which cases, and which SAM.

    Args:
        sam: which SAM; by default vit_b, of made-up cases tiny.
        sam_weights: its checkpoint, SAM's or MedSAM's. Only made-up cases may do without.
        input_policy: how images become its input; it belongs to the weights.
        seed: of folds, order, augmentation and initial weights.
        accelerator: auto, cpu, cuda, mps.

    Raises:
        ValueError: flags that do not go together, or no such device.
    """

    sam: Literal["tiny", "vit_b", "vit_l", "vit_h"] | None = None
    sam_weights: Path | None = None
    input_policy: Literal["sam", "medsam"] = "sam"
    seed: int = 0
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        device_of(self.accelerator)

    def frozen_sam(self, *, made_up: bool) -> SAM:
        """SAM with its weights, on the device of this process.

        Args:
            made_up: whether the cases are; random weights are refused for others.

        Raises:
            ValueError: no weights, or MedSAM's with SAM's input.
            FileNotFoundError: there is no such file.
        """
        name = self.sam or ("tiny" if made_up else "vit_b")
        if self.sam_weights is None and not made_up:
            message = (
                "sam_weights must name a checkpoint: a frozen SAM of random weights has nothing to say about images. "
                "Get SAM's or MedSAM's (ultrarefiner.download), or try made-up cases."
            )
            raise ValueError(message)
        if self.sam_weights is not None and "medsam" in self.sam_weights.name.lower() and self.input_policy != "medsam":
            message = (
                f"sam_weights is {self.sam_weights.name}, but input_policy is {self.input_policy!r}: MedSAM's weights "
                "see images prepared in MedSAM's way; give --input-policy medsam, or rename another file."
            )
            raise ValueError(message)
        if self.sam_weights is not None and self.sam_weights.name.startswith("sam_vit") and self.input_policy != "sam":
            message = (
                f"sam_weights is {self.sam_weights.name}, SAM's own, but input_policy is {self.input_policy!r}; give "
                "--input-policy sam, or rename another file."
            )
            raise ValueError(message)
        torch.manual_seed(self.seed)
        sam = build_sam(name, input_policy=self.input_policy, image_size=_TINY if name == "tiny" else None)
        if self.sam_weights is not None:
            load_weights(sam, self.sam_weights, layout="sam")
        return sam.to(device_of(self.accelerator))
