"""What earlier phases trained, built again and loaded, with the cases that they may not have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ultrarefiner.cli.phase_network import CoarseNetwork
from ultrarefiner.cli.phase_record import PhaseRecord, earlier_phase
from ultrarefiner.cli.phase_refiner import RefinerParts, built_gate, joined
from ultrarefiner.cli.phase_setting import PhaseSetting, unseen
from ultrarefiner.cli.split import Split
from ultrarefiner.systems import AtSize, SAMRefiner, UltraRefiner
from ultrarefiner.training import load_coarse, load_gate, load_refiner

BEST = "best.pt"


@dataclass(frozen=True)
class JointParts:
    """What phase 3 adds to the parts of phases 1 and 2.

    Attributes:
        coarse: `CoarseNetwork`'s fields.
        refiner: `RefinerParts`'s fields.
        gate: `RefinerParts.gate`, which phase 3 may choose where phase 2 had none.
        gate_bias: of a learned gate at the start.
        gradient_scale: of `UltraRefiner`.
        accept_iou: of `AcceptanceRule`.
        accept_agreement: likewise.
    """

    coarse: dict[str, Any]
    refiner: dict[str, Any]
    gate: Any
    gate_bias: float
    gradient_scale: float
    accept_iou: float
    accept_agreement: float

    def join(self, coarse: AtSize, refiner: SAMRefiner, gate: nn.Module | None, *, frame: int) -> UltraRefiner:
        """The model of parts that are there.

        Args:
            coarse: the network.
            refiner: behind it.
            gate: of phase 2; None for the one that phase 3 adds, if any.
            frame: side of the square that images are fitted to.
        """
        return joined(
            coarse,
            refiner,
            built_gate(self.gate, bias=self.gate_bias) if gate is None else gate,
            frame=frame,
            gradient_scale=self.gradient_scale,
            accept_iou=self.accept_iou,
            accept_agreement=self.accept_agreement,
        )

    def build(self, *, frame: int) -> UltraRefiner:
        """The model with random weights."""
        return self.join(CoarseNetwork(**self.coarse).build(), RefinerParts(**self.refiner).build(), None, frame=frame)


def trained_coarse(setting: PhaseSetting, split: Split, *, by: str) -> tuple[AtSize, PhaseRecord]:
    """The best coarse network of phase 1.

    Args:
        setting: of the command.
        split: its cases; those that choose and those that are reported trained nothing.
        by: who asks for it.

    Raises:
        ValueError: phase 1 is not finished, or of other cases.
    """
    record, folder = earlier_phase(setting, "coarse", by=by), setting.run_folder("coarse")
    network = record.built(CoarseNetwork, folder).build()
    load_coarse(network, folder / BEST, unseen=unseen(split))
    return network, record


def trained_refiner(
    setting: PhaseSetting, split: Split, *, by: str
) -> tuple[SAMRefiner, nn.Module | None, RefinerParts, PhaseRecord]:
    """The best refiner of phase 2, and its gate if it has one.

    Args:
        setting: of the command.
        split: its cases; those that choose and those that are reported trained nothing.
        by: who asks for it.

    Raises:
        ValueError: phase 2 is not finished, or of other cases, or of another coarse network than is there now.
    """
    record, folder = earlier_phase(setting, "refiner", by=by), setting.run_folder("refiner")
    parts = record.built(RefinerParts, folder)
    _refuse_other_coarse(record, earlier_phase(setting, "coarse", by=by), folder)
    refiner, gate = parts.build(), parts.build_gate()
    load_refined(refiner, gate, folder / BEST, unseen=unseen(split))
    return refiner, gate, parts, record


def trained_joint(setting: PhaseSetting, split: Split, *, by: str) -> tuple[UltraRefiner, PhaseRecord]:
    """The best model of phase 3.

    Args:
        setting: of the command.
        split: its cases; those that choose and those that are reported trained nothing.
        by: who asks for it.

    Raises:
        ValueError: phase 3 is not finished, or of other cases.
    """
    record, folder = earlier_phase(setting, "joint", by=by), setting.run_folder("joint")
    model = record.built(JointParts, folder).build(frame=record.frame)
    load_joint(model, folder / BEST, unseen=unseen(split))
    return model, record


def load_joint(model: UltraRefiner, path: Path, *, unseen: tuple[Any, ...]) -> None:
    """Load coarse network, refiner and gate of phase 3.

    Args:
        model: built as it was for training.
        path: of the checkpoint.
        unseen: data sets that no phase may have been trained on.
    """
    load_coarse(model.coarse, path, unseen=unseen)
    load_refined(model.refiner, model.gate, path, unseen=unseen)


def load_refined(refiner: SAMRefiner, gate: nn.Module | None, path: Path, *, unseen: tuple[Any, ...]) -> None:
    """Load refiner and gate of phase 2 or 3.

    Args:
        refiner: built as it was for training.
        gate: likewise, if there is one.
        path: of the checkpoint.
        unseen: data sets that no phase may have been trained on.
    """
    load_refiner(refiner, path, unseen=unseen)
    if gate is not None:
        load_gate(gate, path, unseen=unseen)


def _refuse_other_coarse(refiner: PhaseRecord, coarse: PhaseRecord, folder: Path) -> None:
    if refiner.behind is not None and dict(refiner.behind) != dict(coarse.parts):
        message = (
            f"{folder} was trained behind another coarse network ({_named(refiner.behind)}) than is there now "
            f"({_named(coarse.parts)}); train the refiner anew in another out."
        )
        raise ValueError(message)


def _named(parts: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items())
