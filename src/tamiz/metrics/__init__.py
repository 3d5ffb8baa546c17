"""How good a classifier is: figures, their uncertainty, and which way is up."""

from tamiz.metrics.classification import calibration_error, confusion, per_label, score, score_sets
from tamiz.metrics.intervals import Difference, bootstrap, paired_difference
from tamiz.metrics.names import METRICS, higher_is_better

__all__ = [
    "METRICS",
    "Difference",
    "bootstrap",
    "calibration_error",
    "confusion",
    "higher_is_better",
    "paired_difference",
    "per_label",
    "score",
    "score_sets",
]
