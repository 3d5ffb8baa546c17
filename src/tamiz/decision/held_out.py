"""Answers to examples: as they are served, and as if calibration and rule had not learnt from those very examples.

Figures of the examples that calibration and thresholds were fitted on flatter what fits most closely: by such a log
loss, isotonic calibration always wins. Cross-fitting takes that away and keeps every example for both uses.

Source:
    Cross-validatory assessment of what was fitted on the same examples: Stone (1974), Cross-Validatory Choice and
    Assessment of Statistical Predictions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.config import CandidateConfig
from tamiz.decision.calibration import Calibrator
from tamiz.decision.fitting import fit_decision
from tamiz.decision.rules import DecisionRule
from tamiz.errors import ConfigError
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = ["Answered", "answered", "cross_fitted"]

_FOLDS = 5
_FEWEST = 20  # examples; four fifths of fewer say next to nothing


class Answered(NamedTuple):
    """What became of the classifier's own probabilities.

    Attributes:
        probabilities: calibrated, `(n, k)`.
        decided: int64 `(n,)`; multi-label: bool `(n, k)`.
        sets: which labels may be true, bool `(n, k)`; `None` without `conformal`.
    """

    probabilities: FloatArray
    decided: NDArray[Any]
    sets: BoolArray | None


def answered(calibrator: Calibrator, rule: DecisionRule, raw: FloatArray) -> Answered:
    """Return the answers for a classifier's probabilities `(n, k)`, as they are served."""
    probabilities = calibrator.apply(raw)
    sets = None if rule.conformal is None else rule.prediction_set(probabilities)
    return Answered(probabilities, rule.decide(probabilities), sets)


def cross_fitted(
    calibrator: Calibrator, rule: DecisionRule, raw: FloatArray, targets: NDArray[Any], labels: tuple[str, ...]
) -> Answered:
    """Return answers for the examples that calibrator and rule were fitted on, each by ones that have not seen it.

    The examples are divided into five folds, always the same and stratified unless multi-label; each is answered by a
    calibrator (of the same method) and a rule fitted on the other four. The answers are those that are served where
    nothing was fitted, where there are fewer than 20 examples, where a fold cannot keep what the rule must, and for a
    package of a release that did not record what its rule was fitted for.

    Args:
        calibrator: fitted on these examples.
        rule: fitted on these examples.
        raw: the classifier's own probabilities, `(n, k)`.
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        labels: the `k` labels.

    Raises:
        DataError: the shapes do not fit together.
    """
    served = answered(calibrator, rule, raw)
    # `auto` keeps the method it chose: choosing one of four again and again costs much and changes next to nothing.
    config = CandidateConfig(family="any", **{**rule.settings, "calibrate": calibrator.method})
    known = bool(rule.settings) or rule == DecisionRule(rule.task, positive=rule.positive)
    if not known or not _learns(config) or len(raw) < _FEWEST:
        return served
    about: dict[str, Any] = {"task": rule.task, "labels": labels, "positive": rule.positive}
    folds = _folds(targets, rule.task)
    for fold in range(_FOLDS):
        held, rest = folds == fold, folds != fold
        try:
            fitted = fit_decision(config, raw[rest], targets[rest], **about)
        except ConfigError:  # such as an error by abstention that these examples do not reach
            return answered(calibrator, rule, raw)
        for into, found in zip(served, answered(*fitted, raw[held]), strict=True):
            if into is not None and found is not None:
                into[held] = found
    return served


def _learns(config: CandidateConfig) -> bool:
    """Return whether anything of the decision is fitted on examples."""
    fitted = config.calibrate != "none" or config.thresholds.metric != "default"
    return fitted or config.abstain is not None or config.conformal is not None


def _folds(targets: NDArray[Any], task: Task) -> IntArray:
    """Return the fold of each example `(n,)`; a rare label is spread as far as it goes."""
    order = np.random.default_rng(0).permutation(len(targets))
    if task is not Task.MULTI_LABEL:
        order = order[np.argsort(targets[order], kind="stable")]
    folds = np.empty(len(targets), np.int64)
    folds[order] = np.arange(len(targets)) % _FOLDS
    return folds
