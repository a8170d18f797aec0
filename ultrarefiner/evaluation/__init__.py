"""How good the masks are: metrics of each case, coarse against refined, tables and pictures."""

from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates, paired_p_value
from ultrarefiner.evaluation.challenge_answers import answer_case, answer_challenge
from ultrarefiner.evaluation.challenge_folder import ChallengeAnswer, ChallengeAnswers, answer_challenge_folder
from ultrarefiner.evaluation.click_curves import area_under_clicks, click_figure, click_table
from ultrarefiner.evaluation.comparison import (
    Comparison,
    MetricComparison,
    case_detection,
    case_outcome,
    compare,
)
from ultrarefiner.evaluation.curves import Curves, curves_figure, draw_curves
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
from ultrarefiner.evaluation.finished_epoch import FinishedEpoch
from ultrarefiner.evaluation.history import History, write_history
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics
from ultrarefiner.evaluation.run_log import BestEpoch, RunLog, read_run_log
from ultrarefiner.evaluation.saliency import Attentive, attention_map, attention_rollout, grad_cam
from ultrarefiner.evaluation.saliency_figure import draw_saliency
from ultrarefiner.evaluation.segmentation import (
    SegmentationEvaluation,
    evaluate_segmentation,
    filled_box_metrics,
)
from ultrarefiner.evaluation.segmentation_figures import SegmentationPanel, segmentation_figure
from ultrarefiner.evaluation.segmentation_tables import segmentation_table, write_segmentation_csv
from ultrarefiner.evaluation.snapshot_figure import SnapshotRow, SnapshotScores, draw_snapshot, snapshot_scores
from ultrarefiner.evaluation.snapshots import Snapshots
from ultrarefiner.evaluation.structure_measures import StructureMeasures, structure_measures
from ultrarefiner.evaluation.surface_dice import normalised_surface_dice
from ultrarefiner.evaluation.tables import markdown_table, write_csv
from ultrarefiner.evaluation.volume_figures import SlicePanel, volume_figure
from ultrarefiner.evaluation.volume_metrics import VolumeMeans, VolumeMetrics, volume_means, volume_metrics
from ultrarefiner.evaluation.volume_sessions import VolumeFileSession, open_session
from ultrarefiner.evaluation.volume_tables import volumes_table, write_volumes_csv
from ultrarefiner.evaluation.volumes import VolumeEvaluation, evaluate_volumes

__all__ = [
    "Attentive",
    "BestEpoch",
    "CaseMetrics",
    "ChallengeAnswer",
    "ChallengeAnswers",
    "Comparison",
    "Curves",
    "Estimate",
    "Evaluation",
    "FailureComparison",
    "FailureStatistics",
    "FinishedEpoch",
    "History",
    "MeasureComparison",
    "MetricComparison",
    "Panel",
    "RunLog",
    "SegmentationEvaluation",
    "SegmentationPanel",
    "SlicePanel",
    "SnapshotRow",
    "SnapshotScores",
    "Snapshots",
    "Spread",
    "StructureMeasures",
    "VolumeEvaluation",
    "VolumeFileSession",
    "VolumeMeans",
    "VolumeMetrics",
    "answer_case",
    "answer_challenge",
    "answer_challenge_folder",
    "area_under_clicks",
    "attention_map",
    "attention_rollout",
    "bootstrap_estimates",
    "case_detection",
    "case_outcome",
    "click_figure",
    "click_table",
    "compare",
    "compare_failures",
    "curves_figure",
    "draw_curves",
    "draw_saliency",
    "draw_snapshot",
    "evaluate",
    "evaluate_segmentation",
    "evaluate_volumes",
    "failure_comparison_figure",
    "failure_sheet",
    "failure_statistics",
    "failures_table",
    "filled_box_metrics",
    "grad_cam",
    "markdown_table",
    "normalised_surface_dice",
    "open_session",
    "paired_p_value",
    "panel_figure",
    "read_run_log",
    "segmentation_figure",
    "segmentation_metrics",
    "segmentation_table",
    "snapshot_scores",
    "structure_measures",
    "volume_figure",
    "volume_means",
    "volume_metrics",
    "volumes_table",
    "write_csv",
    "write_history",
    "write_segmentation_csv",
    "write_volumes_csv",
]
