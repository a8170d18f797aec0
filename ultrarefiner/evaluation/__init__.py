"""How good the masks are: metrics of each case, coarse against refined, tables and pictures."""

from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates, paired_p_value
from ultrarefiner.evaluation.comparison import (
    Comparison,
    MetricComparison,
    case_detection,
    case_outcome,
    compare,
)
from ultrarefiner.evaluation.evaluate import Evaluation, evaluate
from ultrarefiner.evaluation.figures import Panel, panel_figure
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.tables import markdown_table, write_csv

__all__ = [
    "CaseMetrics",
    "Comparison",
    "Estimate",
    "Evaluation",
    "MetricComparison",
    "Panel",
    "bootstrap_estimates",
    "case_detection",
    "case_outcome",
    "compare",
    "evaluate",
    "markdown_table",
    "paired_p_value",
    "panel_figure",
    "segmentation_metrics",
    "write_csv",
]
