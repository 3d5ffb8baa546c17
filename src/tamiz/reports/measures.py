"""What the charts of a report show, as plain numbers: reliability, thresholds, curves, confusions.

Source:
    Reliability diagram: Niculescu-Mizil, Caruana (2005), Predicting Good Probabilities with Supervised Learning.
    Macro curves: the mean over labels at equal false positive rate or recall (Fawcett 2006, An Introduction to ROC
    Analysis, section 8, vertical averaging); micro curves: all pairs of example and label counted together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.metrics import ECE_BINS, bins_of, calibration_error, confusion, per_label
from tamiz.reports.sample import Sample
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = [
    "Bin",
    "Confusion",
    "Curve",
    "Reliability",
    "ThresholdCurve",
    "label_figures",
    "precision_recall_curves",
    "reliability",
    "roc_curves",
    "threshold_curve",
    "threshold_curves",
    "top_confusions",
]

MOST_LABELS = 12
"""Up to so many labels each has a curve of its own."""
_POINTS = 200
_MOST_PAIRS = 500_000  # of example and label; above, curves of many labels are drawn from a random part of the examples
_STEPS = np.arange(101) / 100


class Bin(NamedTuple):
    """The examples whose confidence lies in one interval: how many, their mean confidence, the share that is right."""

    low: float
    high: float
    examples: int
    confidence: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be believed.

    Attributes:
        bins: intervals with at least one example; of the top label's probability, for multi-label tasks of the
            probability of every label.
        ece: expected calibration error, as in the table of metrics.
    """

    bins: tuple[Bin, ...]
    ece: float


class Curve(NamedTuple):
    """A curve, `x` ascending, with what it is of and the area below it."""

    name: str
    x: FloatArray
    y: FloatArray
    area: float


class ThresholdCurve(NamedTuple):
    """Precision (NaN without a decision), recall and F1 of one label against its threshold."""

    name: str
    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


class Confusion(NamedTuple):
    """How often one label was taken for another."""

    truth: str
    decided: str
    examples: int
    share: float


def reliability(sample: Sample, *, calibrated: bool = True, bins: int = ECE_BINS) -> Reliability:
    """Compare probabilities with frequencies, before or after calibration.

    Args:
        sample: the examples.
        calibrated: whether to look at calibrated probabilities.
        bins: intervals of equal width, open to the left.
    """
    probabilities = sample.probabilities if calibrated else sample.raw
    if sample.task is Task.MULTI_LABEL:
        confidence, right = probabilities.ravel(), sample.targets.ravel()
    else:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == sample.targets
    error = calibration_error(sample.targets, probabilities, sample.decided, task=sample.task, labels=sample.labels)
    return Reliability(_binned(confidence, right, bins), error)


def _binned(confidence: FloatArray, right: BoolArray, bins: int) -> tuple[Bin, ...]:
    place = bins_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    return tuple(
        Bin(i / bins, (i + 1) / bins, int(count[i]), float(total[i] / count[i]), float(hits[i] / count[i]))
        for i in np.flatnonzero(count).tolist()
    )


def threshold_curve(name: str, outcome: BoolArray, probability: FloatArray) -> ThresholdCurve:
    """Return precision, recall and F1 of one label at thresholds of 0, .01, ..., 1.

    Args:
        name: what the curve is of.
        outcome: whether each example has the label, `(n,)`.
        probability: of the label, `(n,)`.
    """
    order = np.argsort(probability, kind="stable")
    first = np.searchsorted(probability[order], _STEPS, side="left")
    hits_from = np.concatenate([np.cumsum(outcome[order][::-1])[::-1], [0]])
    decided, hits = len(outcome) - first, hits_from[first]
    true = int(outcome.sum())
    with np.errstate(invalid="ignore"):
        precision = np.where(decided > 0, hits / np.maximum(decided, 1), np.nan)
    recall = hits / max(true, 1)
    return ThresholdCurve(name, _STEPS, precision, recall, 2 * hits / np.maximum(decided + true, 1))


def threshold_curves(sample: Sample) -> list[ThresholdCurve]:
    """Return the curves of the positive label, or of each label of a multi-label task (all together, if many)."""
    if sample.task is Task.MULTI_CLASS:
        return []
    outcomes, p = sample.outcomes, sample.probabilities
    if sample.task is Task.BINARY:
        i = sample.positive
        return [threshold_curve(sample.labels[i], outcomes[:, i], p[:, i])]
    if len(sample.labels) > MOST_LABELS:
        outcomes, p, note = _part(outcomes, p)
        return [threshold_curve(f"all labels together{note}", outcomes.ravel(), p.ravel())]
    together = threshold_curve("all labels together", outcomes.ravel(), p.ravel())
    return [together, *(threshold_curve(name, outcomes[:, j], p[:, j]) for j, name in enumerate(sample.labels))]


def roc_curves(sample: Sample) -> list[Curve]:
    """Return true against false positive rate: of the positive label, of each label, or micro and macro if many."""
    return _curves(sample, _roc)


def precision_recall_curves(sample: Sample) -> list[Curve]:
    """Return precision against recall: of the positive label, of each label, or micro and macro if many."""
    return _curves(sample, _precision_recall)


def _curves(sample: Sample, of: Any) -> list[Curve]:
    outcomes, p = sample.outcomes, sample.probabilities
    places = [sample.positive] if sample.task is Task.BINARY else list(range(len(sample.labels)))
    note = ""
    if len(places) > MOST_LABELS:
        outcomes, p, note = _part(outcomes, p)
    known = [j for j in places if 0 < np.count_nonzero(outcomes[:, j]) < len(outcomes)]
    each = [of(sample.labels[j], outcomes[:, j], p[:, j]) for j in known]
    if not known or len(places) <= MOST_LABELS:
        return [_thinned(curve) for curve in each]
    macro = np.mean([np.interp(_STEPS, curve.x, curve.y) for curve in each], axis=0)
    area = float(np.mean([curve.area for curve in each]))
    micro = of(f"micro{note}", outcomes.ravel(), p.ravel())
    return [_thinned(micro), Curve(f"macro{note}", _STEPS, macro, area)]


def _part(outcomes: BoolArray, p: FloatArray) -> tuple[BoolArray, FloatArray, str]:
    """Return a random part of the examples, if there are many, and how it is to be called."""
    n, most = len(p), _MOST_PAIRS // p.shape[1]
    if n <= most:
        return outcomes, p, ""
    rows = np.random.default_rng(0).choice(n, most, replace=False)
    return outcomes[rows], p[rows], f" ({most:,} examples)"


def _roc(name: str, outcome: BoolArray, probability: FloatArray) -> Curve:
    from sklearn.metrics import auc, roc_curve

    x, y, _ = roc_curve(outcome, probability)
    return Curve(name, x, y, float(auc(x, y)))


def _precision_recall(name: str, outcome: BoolArray, probability: FloatArray) -> Curve:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(outcome, probability, drop_intermediate=False)
    # Average precision is the area below the steps; asking for it apart would sort all examples again.
    return Curve(name, recall[::-1], precision[::-1], float(-np.sum(np.diff(recall) * precision[:-1])))


def _thinned(curve: Curve) -> Curve:
    """Keep so few points that a page with many curves stays small."""
    if len(curve.x) <= _POINTS:
        return curve
    kept = np.unique(np.linspace(0, len(curve.x) - 1, _POINTS).round().astype(np.int64))
    return curve._replace(x=curve.x[kept], y=curve.y[kept])


def top_confusions(sample: Sample, n: int = 30) -> list[Confusion]:
    """Return the most frequent confusions of a binary or multi-class task, with their share of the true label."""
    matrix: IntArray = confusion(sample.targets, sample.decided, len(sample.labels))
    totals = np.bincount(sample.targets, minlength=len(sample.labels))
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    rows: NDArray[Any] = np.stack(np.unravel_index(order, wrong.shape), axis=1)
    return [
        Confusion(sample.labels[i], sample.labels[j], int(wrong[i, j]), float(wrong[i, j] / totals[i]))
        for i, j in rows.tolist()
        if wrong[i, j]
    ]


def label_figures(sample: Sample) -> list[dict[str, Any]]:
    """Return support, decisions, precision, recall, F1, ROC AUC and average precision of each label."""
    return per_label(sample.targets, sample.probabilities, sample.decided, task=sample.task, labels=sample.labels)
