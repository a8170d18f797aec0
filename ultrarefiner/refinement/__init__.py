"""The small parts around SAM: the region it looks at, the selection of its masks, the gate, correction by clicks."""

from __future__ import annotations

from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.refinement.acceptance import AcceptanceRule
from ultrarefiner.refinement.correction import Correction, CorrectionState, GRUCorrection
from ultrarefiner.refinement.gates import Gate, LearnedGate, ProductGate, UncertaintyGate, blend
from ultrarefiner.refinement.near_clicks import near_clicks
from ultrarefiner.refinement.point_rows import point_rows
from ultrarefiner.refinement.point_selection import SelectedPoints, select_errors, select_uncertain
from ultrarefiner.refinement.point_state import PointState, build_state, unit_coordinates
from ultrarefiner.refinement.point_writing import write_points, written_voxels
from ultrarefiner.refinement.published_gru import PublishedGRUBlock
from ultrarefiner.refinement.roi import ROICropper
from ultrarefiner.refinement.selection import BestSelection, SoftSelection
from ultrarefiner.refinement.written_clicks import ClickCorrection, WrittenAnswer, WrittenClicks

__all__ = [
    "AcceptanceRule",
    "BestSelection",
    "ClickCorrection",
    "Correction",
    "CorrectionState",
    "GRUCorrection",
    "Gate",
    "LearnedGate",
    "PointState",
    "ProductGate",
    "PublishedGRUBlock",
    "ROICropper",
    "SelectedPoints",
    "SoftSelection",
    "UncertaintyGate",
    "WrittenAnswer",
    "WrittenClicks",
    "blend",
    "build_state",
    "finite_logit",
    "near_clicks",
    "point_rows",
    "select_errors",
    "select_uncertain",
    "unit_coordinates",
    "write_points",
    "written_voxels",
]
