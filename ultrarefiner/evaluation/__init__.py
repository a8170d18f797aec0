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
from ultrarefiner.evaluation.failure_figures import failure_comparison_figure, failure_sheet
from ultrarefiner.evaluation.failures import (
    FailureComparison,
    FailureStatistics,
    MeasureComparison,
    Spread,
    compare_failures,
    failure_statistics,
    failures_table,
)
from ultrarefiner.evaluation.figures import Panel, panel_figure
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.saliency import Attentive, attention_map, attention_rollout, grad_cam
from ultrarefiner.evaluation.saliency_figure import draw_saliency
from ultrarefiner.evaluation.tables import markdown_table, write_csv
from ultrarefiner.evaluation.volume_figures import SlicePanel, volume_figure
from ultrarefiner.evaluation.volume_metrics import VolumeMeans, VolumeMetrics, volume_means, volume_metrics
from ultrarefiner.evaluation.volume_tables import volumes_table, write_volumes_csv
from ultrarefiner.evaluation.volumes import VolumeEvaluation, evaluate_volumes

__all__ = [
    "Attentive",
    "CaseMetrics",
    "Comparison",
    "Estimate",
    "Evaluation",
    "FailureComparison",
    "FailureStatistics",
    "MeasureComparison",
    "MetricComparison",
    "Panel",
    "SlicePanel",
    "Spread",
    "VolumeEvaluation",
    "VolumeMeans",
    "VolumeMetrics",
    "attention_map",
    "attention_rollout",
    "bootstrap_estimates",
    "case_detection",
    "case_outcome",
    "compare",
    "compare_failures",
    "draw_saliency",
    "evaluate",
    "evaluate_volumes",
    "failure_comparison_figure",
    "failure_sheet",
    "failure_statistics",
    "failures_table",
    "grad_cam",
    "markdown_table",
    "paired_p_value",
    "panel_figure",
    "segmentation_metrics",
    "volume_figure",
    "volume_means",
    "volume_metrics",
    "volumes_table",
    "write_csv",
    "write_volumes_csv",
]
