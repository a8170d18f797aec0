"""Own parts around ultrarefiner."""

from lesionlab.data import Discs
from lesionlab.gate import DistanceGate
from lesionlab.loss import TverskyLoss
from lesionlab.network import TwoScales
from lesionlab.prompts import CornerPrompts
from lesionlab.training import refine_discs

__all__ = ["CornerPrompts", "Discs", "DistanceGate", "TverskyLoss", "TwoScales", "refine_discs"]
