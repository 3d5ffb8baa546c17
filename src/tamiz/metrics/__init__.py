"""How good a classifier is: figures, their uncertainty, and which way is up."""

from tamiz.metrics._inputs import ECE_BINS, bins_of
from tamiz.metrics.classification import calibration_error, confusion, error_by_chance, per_label, score, score_sets
from tamiz.metrics.intervals import bootstrap, share_interval
from tamiz.metrics.names import METRICS, higher_is_better
from tamiz.metrics.paired import Comparison, McNemar, compare, compare_values, difference_interval, holm, mcnemar

__all__ = [
    "ECE_BINS",
    "METRICS",
    "Comparison",
    "McNemar",
    "bins_of",
    "bootstrap",
    "calibration_error",
    "compare",
    "compare_values",
    "confusion",
    "difference_interval",
    "error_by_chance",
    "higher_is_better",
    "holm",
    "mcnemar",
    "per_label",
    "score",
    "score_sets",
    "share_interval",
]
