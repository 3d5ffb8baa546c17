"""From a classifier's probabilities to answers: calibration first, then the decision rule.

Both parts are versioned with the model. Applying them needs numpy alone; only fitting imports scipy and scikit-learn.
"""

from tamiz.decision.calibration import METHODS, Calibrator, fit_calibrator
from tamiz.decision.conformal import Conformal, fit_conformal
from tamiz.decision.fitting import check_decision, fit_decision, halves, set_thresholds
from tamiz.decision.held_out import Answered, answered, cross_fitted
from tamiz.decision.rules import DecisionRule, fit_rule

__all__ = [
    "METHODS",
    "Answered",
    "Calibrator",
    "Conformal",
    "DecisionRule",
    "answered",
    "check_decision",
    "cross_fitted",
    "fit_calibrator",
    "fit_conformal",
    "fit_decision",
    "fit_rule",
    "halves",
    "set_thresholds",
]
