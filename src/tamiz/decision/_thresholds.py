"""The search for a threshold: every cut that a label's scores allow, judged by counts alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tamiz._rule_config import ThresholdsConfig, beta_of
from tamiz.types import BoolArray, FloatArray

__all__ = ["FEWEST_POSITIVES", "Cut", "best_cut"]

FEWEST_POSITIVES = 5
"""Positive examples that a label needs for a threshold of its own."""

_DEFAULT = 0.5
_TIE = 1e-12


class Cut(NamedTuple):
    """A threshold, and whether it keeps all that `at_least` asks for on these examples."""

    threshold: float
    keeps: bool


def best_cut(scores: FloatArray, outcomes: BoolArray, goal: ThresholdsConfig) -> Cut | None:
    """Return the best cut, of several the one nearest .5; `None` with too few positives.

    Cuts lie midway between neighbouring distinct scores, between 0 and the lowest score (which takes everything) and
    between the highest score and 1 (which takes nothing). Where no cut keeps what `at_least` asks for, those that come
    nearest compete.

    Args:
        scores: probabilities of one label, `(n,)`.
        outcomes: whether the label is true, bool `(n,)`.
        goal: what to tune for.
    """
    positives = int(np.count_nonzero(outcomes))
    if positives < FEWEST_POSITIVES:
        return None
    cuts, taken, right = _cuts(scores, outcomes)
    values = _values(goal.metric, taken, right, positives, len(outcomes))
    keeps = True
    if goal.at_least:
        counts = (taken, right, positives, len(outcomes))
        lacks = [np.maximum(0.0, bound - _values(name, *counts)) for name, bound in goal.at_least.items()]
        missing = np.sum(lacks, axis=0)
        keeps = bool(missing.min() <= _TIE)
        values = np.where(missing <= missing.min() + _TIE, values, -np.inf)
    best = cuts[values >= values.max() - _TIE]
    return Cut(float(best[np.abs(best - _DEFAULT).argmin()]), keeps)


def _cuts(scores: FloatArray, outcomes: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return thresholds in ascending order, how many examples each takes and how many of these are right."""
    levels, level_of = np.unique(scores, return_inverse=True)
    count = np.bincount(level_of, minlength=len(levels))
    hits = np.bincount(level_of, weights=outcomes, minlength=len(levels))
    taken, right = count[::-1].cumsum()[::-1], hits[::-1].cumsum()[::-1]  # at or above each level
    below = np.concatenate([[0.0], levels[:-1]])
    cuts = (below + levels) / 2
    cuts = np.where(cuts > below, cuts, levels)  # between adjacent floats there is no middle
    above = max((levels[-1] + 1) / 2, np.nextafter(levels[-1], 2))
    if above <= 1:
        cuts, taken, right = np.append(cuts, above), np.append(taken, 0), np.append(right, 0.0)
    return cuts, taken.astype(np.float64), right


def _values(metric: str, taken: FloatArray, right: FloatArray, positives: int, n: int) -> FloatArray:
    """Return the metric at each cut; a ratio without a denominator is 0 (specificity: 1)."""
    beta = beta_of(metric)
    if beta is not None:
        return (1 + beta**2) * right / (taken + beta**2 * positives)
    negatives = n - positives
    rejected = negatives - (taken - right)
    recall = right / positives
    specificity = rejected / negatives if negatives else np.ones_like(taken)
    found = {
        "recall": recall,
        "specificity": specificity,
        "precision": right / np.maximum(taken, 1),
        "accuracy": (right + rejected) / n,
        "balanced_accuracy": (recall + specificity) / 2,
    }
    return found["balanced_accuracy" if metric == "youden" else metric]
