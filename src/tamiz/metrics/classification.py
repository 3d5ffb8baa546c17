"""Figures of merit on labelled examples, for binary, multi-class and multi-label tasks.

What is undefined is left out, never NaN and never a warning:

- Macro and weighted averages of precision, recall and F1 run over the labels that are true or decided somewhere (the
  default of scikit-learn); within those, a ratio without a denominator counts as 0. Where nothing is true and nothing
  decided, these keys are left out.
- `roc_auc_macro` and `average_precision_macro` run over the labels with both outcomes among the targets; where there is
  none, the key is left out. In binary tasks they are those of the positive label.
- An abstention (-1) decides no label: it is wrong for `accuracy` and missed by recall and F1. Where there is one,
  `coverage` and `selective_accuracy` are given too (the latter unless all examples were abstained from).

Source:
    ECE: Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks, equation 3, with 15 bins of
    equal width over the probability of the top label; multi-label: the mean over labels of the same distance between
    a label's probability and its frequency. Brier: Brier (1950), Verification of Forecasts Expressed in Terms of
    Probability (multi-class: the original sum over classes, from 0 to 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import DataError
from tamiz.metrics._inputs import ECE_BINS, Inputs, bins_of, brier_losses, checked, log_losses, ranked
from tamiz.metrics.names import METRICS
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = ["calibration_error", "confusion", "error_by_chance", "per_label", "score", "score_sets"]

_CHANCE_DRAWS = 200


def score(
    targets: NDArray[Any],
    probabilities: FloatArray,
    decided: NDArray[Any],
    *,
    task: Task,
    labels: Sequence[str],
    positive: int = 1,
) -> dict[str, float]:
    """Measure answers against the truth.

    Args:
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        probabilities: `(n, k)`, calibrated.
        decided: what the decision rule gave: int64 `(n,)` with -1 for an abstention; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        labels: the `k` labels.
        positive: index of the positive label of a binary task.

    Returns:
        Values by key of `METRICS`, in its order; those that are undefined or of another task are left out.

    Raises:
        DataError: there is no example, or the arrays do not fit together.
    """
    inputs = checked(targets, probabilities, decided, task, len(labels), positive)
    values = {
        **_agreement(inputs),
        **_averages(inputs),
        **_ranking(inputs),
        "log_loss": float(log_losses(inputs).mean()),
        "brier": float(brier_losses(inputs).mean()),
        "ece": _ece(inputs),
    }
    return {name: values[name] for name in METRICS if name in values}


def per_label(
    targets: NDArray[Any],
    probabilities: FloatArray,
    decided: NDArray[Any],
    *,
    task: Task,
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    """Measure each label on its own, one dictionary a label in the order of `labels`.

    Returns:
        Dictionaries with `label`, `support` (true examples), `decided` (decisions for it), `precision`, `recall`, `f1`,
        `roc_auc` and `average_precision`; `None` where undefined (precision without a decision, recall without an
        example, F1 without either, the last two without both outcomes).

    Raises:
        DataError: as in `score`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    inputs = checked(targets, probabilities, decided, task, len(labels), 1)
    everything = np.arange(inputs.k)
    precision, recall, f1, support = precision_recall_fscore_support(
        inputs.targets, inputs.decided, labels=everything, average=None, zero_division=0
    )
    count = _decided_count(inputs)
    outcomes = _outcomes(inputs)
    rows = []
    for j, label in enumerate(labels):
        auc, average_precision = _rank_quality(outcomes[:, j], inputs.probabilities[:, j]) or (None, None)
        rows.append(
            {
                "label": label,
                "support": int(support[j]),
                "decided": int(count[j]),
                "precision": float(precision[j]) if count[j] else None,
                "recall": float(recall[j]) if support[j] else None,
                "f1": float(f1[j]) if count[j] or support[j] else None,
                "roc_auc": auc,
                "average_precision": average_precision,
            }
        )
    return rows


def calibration_error(
    targets: NDArray[Any], probabilities: FloatArray, decided: NDArray[Any], *, task: Task, labels: Sequence[str]
) -> float:
    """Return the `ece` of `score` alone.

    Raises:
        DataError: as in `score`.
    """
    return _ece(checked(targets, probabilities, decided, task, len(labels), 1))


def error_by_chance(probabilities: FloatArray, task: Task, *, seed: int = 0) -> float:
    """Return the `ece` that 95 of 100 tests of this size would not exceed if the probabilities were right.

    An `ece` below it says nothing against them; the fewer the examples, the larger it is.

    Args:
        probabilities: `(n, k)`, of which the outcomes are drawn.
        task: the task.
        seed: of the draws.

    Source: Broecker, Smith (2007), Increasing the Reliability of Reliability Diagrams.
    """
    rng = np.random.default_rng(seed)
    scores = probabilities.T if task is Task.MULTI_LABEL else [probabilities.max(axis=1)]
    found = np.zeros(_CHANCE_DRAWS)
    for confidences in scores:
        bins, confidence = _binned(confidences)
        for draw in range(_CHANCE_DRAWS):
            hits = np.bincount(bins, weights=rng.random(len(bins)) < confidences, minlength=ECE_BINS)
            found[draw] += np.abs(confidence - hits).sum()
    return float(np.quantile(found, 0.95) / (len(scores) * len(probabilities)))


def confusion(targets: NDArray[Any], decided: NDArray[Any], k: int) -> IntArray:
    """Count answers by truth.

    Returns:
        int64 `(k, k)`, rows the true label and columns the decided one; abstentions stand in no column. Multi-label
        (bool arrays): `(k, 2, 2)`, for each label rows its absence and presence in truth, columns in the answer.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
        array([[1, 0],
               [1, 1]])
    """
    targets, decided = np.asarray(targets), np.asarray(decided)
    if targets.ndim == 2:
        cells = [[(~targets & ~decided), (~targets & decided)], [(targets & ~decided), (targets & decided)]]
        counts = np.array([[cell.sum(axis=0) for cell in row] for row in cells], dtype=np.int64)
        return np.moveaxis(counts, 2, 0)
    answered = decided >= 0
    pairs = targets[answered].astype(np.int64) * k + decided[answered]
    return np.bincount(pairs, minlength=k * k).reshape(k, k).astype(np.int64)


def score_sets(targets: NDArray[Any], sets: BoolArray) -> dict[str, float]:
    """Measure prediction sets against the truth.

    Args:
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        sets: which labels are in the set of each example, bool `(n, k)`.

    Returns:
        `set_coverage` and `set_size`; without a true label, `set_size` alone.

    Raises:
        DataError: there is no example, or the arrays do not fit together.

    Example:
        >>> score_sets(np.array([0, 1]), np.array([[True, True], [True, False]]))
        {'set_coverage': 0.5, 'set_size': 1.5}
    """
    targets, sets = np.asarray(targets), np.asarray(sets, dtype=np.bool_)
    n = len(targets)
    if n == 0 or sets.ndim != 2 or targets.shape not in (sets.shape, (n,)) or len(sets) != n:
        raise DataError(f"sets: shape {sets.shape}, targets: shape {targets.shape}; expected a set for each example")
    held = sets[targets.astype(np.bool_)] if targets.ndim == 2 else sets[np.arange(n), targets]
    values = {"set_coverage": float(held.mean())} if held.size else {}
    return {**values, "set_size": float(sets.sum(axis=1).mean())}


def _agreement(inputs: Inputs) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, hamming_loss

    targets, decided = inputs.targets, inputs.decided
    if inputs.task is Task.MULTI_LABEL:
        return {
            "subset_accuracy": float(accuracy_score(targets, decided)),
            "hamming_loss": float(hamming_loss(targets, decided)),
        }
    values = {"accuracy": float(accuracy_score(targets, decided))}
    answered = decided >= 0
    if not answered.all():
        values["coverage"] = float(answered.mean())
        if answered.any():
            values["selective_accuracy"] = float(accuracy_score(targets[answered], decided[answered]))
    return values


def _averages(inputs: Inputs) -> dict[str, float]:
    from sklearn.metrics import precision_recall_fscore_support

    targets, decided = inputs.targets, inputs.decided
    found = np.flatnonzero(_outcomes(inputs).any(axis=0) | (_decided_count(inputs) > 0))
    if found.size == 0:
        return {}
    plans: list[tuple[str, str | None, NDArray[Any]]] = [
        ("macro", "macro", found),
        ("micro", "micro", found),
        ("weighted", "weighted", found),
    ]
    if inputs.task is Task.BINARY and inputs.positive in found:
        plans.append(("positive", "macro", np.array([inputs.positive])))
    values: dict[str, float] = {}
    for name, average, among in plans:
        precision, recall, f1, _ = precision_recall_fscore_support(
            targets, decided, labels=among, average=average, zero_division=0
        )
        values |= {f"precision_{name}": float(precision), f"recall_{name}": float(recall), f"f1_{name}": float(f1)}
    return values


def _ranking(inputs: Inputs) -> dict[str, float]:
    outcomes, scores = ranked(inputs)
    pairs = zip(outcomes.T, scores.T, strict=True)
    found = [quality for outcome, column in pairs if (quality := _rank_quality(outcome, column)) is not None]
    if not found:
        return {}
    auc, average_precision = np.mean(found, axis=0)
    return {"roc_auc_macro": float(auc), "average_precision_macro": float(average_precision)}


def _rank_quality(outcomes: BoolArray, scores: FloatArray) -> tuple[float, float] | None:
    """Return ROC AUC and average precision of one label, `None` without both outcomes."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not 0 < np.count_nonzero(outcomes) < len(outcomes):
        return None
    return float(roc_auc_score(outcomes, scores)), float(average_precision_score(outcomes, scores))


def _ece(inputs: Inputs) -> float:
    if inputs.task is Task.MULTI_LABEL:
        pairs = zip(inputs.probabilities.T, inputs.targets.T, strict=True)
        return float(np.mean([_bin_distance(scores, outcomes) for scores, outcomes in pairs]))
    top = inputs.probabilities.argmax(axis=1)
    return _bin_distance(inputs.probabilities.max(axis=1), top == inputs.targets)


def _bin_distance(confidences: FloatArray, right: BoolArray) -> float:
    """Return the mean over examples of |mean confidence - share right| of their bin."""
    bins, confidence = _binned(confidences)
    hits = np.bincount(bins, weights=right, minlength=ECE_BINS)
    return float(np.abs(confidence - hits).sum() / len(confidences))


def _binned(confidences: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the bin of each confidence and the sum of those in each bin."""
    bins = bins_of(confidences)
    return bins, np.bincount(bins, weights=confidences, minlength=ECE_BINS).astype(np.float64)


def _outcomes(inputs: Inputs) -> BoolArray:
    one_hot: BoolArray = inputs.targets[:, None] == np.arange(inputs.k)
    return inputs.targets if inputs.task is Task.MULTI_LABEL else one_hot


def _decided_count(inputs: Inputs) -> IntArray:
    if inputs.task is Task.MULTI_LABEL:
        counts: IntArray = inputs.decided.sum(axis=0, dtype=np.int64)
        return counts
    return np.bincount(inputs.decided[inputs.decided >= 0], minlength=inputs.k).astype(np.int64)
