"""Confident learning: which given labels do held-out probabilities speak against?

Source: Northcutt, Jiang & Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", Journal of
Artificial Intelligence Research 70. The confident joint is counted with class thresholds (section 3.1), calibrated to
the number of rows of each label, and tells how many rows of each pair of labels to suspect: those with the largest
margin ("prune by noise rate", section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tamiz.types import BoolArray, FloatArray, IntArray

__all__ = ["Doubts", "doubt_labels", "doubt_sets"]


@dataclass(frozen=True)
class Doubts:
    """What speaks against the given labels of `n` rows.

    Attributes:
        suspected: whether a row is among the most doubtful, as many as the confident joint estimates, `(n,)`.
        margin: probability of the given label less that of the likeliest other, in [-1, 1]; multi-label: of its most
            doubtful label, `(n,)`.
        suggested: likeliest other label, int64 `(n,)`; multi-label: the labels after change, bool `(n, k)`.
        probability: held-out probability of the suggestion, `(n,)`.
    """

    suspected: BoolArray
    margin: FloatArray
    suggested: IntArray | BoolArray
    probability: FloatArray


def doubt_labels(probabilities: FloatArray, given: IntArray) -> Doubts:
    """Judge one label a row.

    A row counts for a label if its probability reaches that label's threshold, the mean probability among the rows
    given it, and for the likeliest of such labels if there are several. From the shares that count for another label
    than the given one follows how many rows of each pair of labels are suspected.

    Args:
        probabilities: held-out probabilities `(n, k)`.
        given: labels `(n,)`, in `[0, k)`.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])
        >>> doubt_labels(p, np.array([0, 0, 1, 1, 1])).suspected.tolist()
        [False, False, False, False, True]
    """
    n, k = probabilities.shape
    own = probabilities[np.arange(n), given]
    counts = np.bincount(given, minlength=k)
    sums = np.bincount(given, weights=own, minlength=k)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    others = probabilities.copy()
    others[np.arange(n), given] = -np.inf
    suggested = others.argmax(axis=1)
    best_other = others.max(axis=1)
    suspected = _most_doubtful(probabilities, given, own, _wrong_by_pair(probabilities, given, thresholds))
    return Doubts(suspected, own - best_other, suggested.astype(np.int64), best_other)


def _wrong_by_pair(probabilities: FloatArray, given: IntArray, thresholds: FloatArray) -> IntArray:
    """Return the estimated number of rows by given label and true label, `(k, k)`."""
    k = probabilities.shape[1]
    reaching = np.where(probabilities >= thresholds, probabilities, -np.inf)
    counts = np.isfinite(reaching.max(axis=1))
    joint = np.zeros((k, k), np.int64)
    np.add.at(joint, (given[counts], reaching.argmax(axis=1)[counts]), 1)
    # Only rows that reach a threshold were counted; the others are taken to be wrong as often.
    rows = np.bincount(given, minlength=k)[:, None]
    rates = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.rint(rates * rows), np.int64)


def _most_doubtful(probabilities: FloatArray, given: IntArray, own: FloatArray, wanted: IntArray) -> BoolArray:
    """Mark for each pair of labels as many rows as wanted, those that speak most for the other label."""
    marked = np.zeros(len(given), np.bool_)
    for label in np.flatnonzero(wanted.sum(axis=1) > wanted.diagonal()):
        rows = np.flatnonzero(given == label)
        for other in np.flatnonzero(wanted[label]):
            if other != label:
                gap = probabilities[rows, other] - own[rows]
                order = np.argsort(-gap, kind="stable")[: wanted[label, other]]
                marked[rows[order[gap[order] > 0]]] = True
    return marked


def doubt_sets(probabilities: FloatArray, given: BoolArray, *, least: int = 1) -> Doubts:
    """Judge several labels a row, each label as a yes-or-no question of its own.

    Args:
        probabilities: held-out probabilities `(n, k)`.
        given: which labels each row has, `(n, k)`.
        least: rows with a label and rows without it that judging the label takes; other labels are never in doubt.
    """
    judged = np.minimum(given.sum(axis=0), (~given).sum(axis=0)) >= max(least, 1)
    own = np.where(given, probabilities, 1 - probabilities)
    own[:, ~judged] = 1.0  # as if it were sure
    wrong = np.zeros_like(given)
    for j in np.flatnonzero(judged):
        column = np.stack([1 - probabilities[:, j], probabilities[:, j]], axis=1)
        wrong[:, j] = doubt_labels(column, given[:, j].astype(np.int64)).suspected
    margins = 2 * own - 1
    doubtful = np.where(wrong, margins, np.inf).min(axis=1)
    suspected = np.asarray(wrong.any(axis=1), np.bool_)
    margin = np.where(suspected, doubtful, margins.min(axis=1))
    # Only what is suspected is changed; unsuspected rows would change in their most doubtful label.
    change = np.where(suspected[:, None], wrong, margins == margins.min(axis=1, keepdims=True))
    return Doubts(suspected, margin, given ^ change, (1 - margin) / 2)
