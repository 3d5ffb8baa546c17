"""What all metrics start from: checked arrays, and the losses of single examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import DataError
from tamiz.types import BoolArray, FloatArray, IntArray, Task

ECE_BINS = 15
"""Bins of equal width in which confidence and accuracy are compared."""
_SMALLEST = float(np.finfo(np.float64).eps)  # the same bound as scikit-learn's log_loss


class Inputs(NamedTuple):
    """Checked targets, probabilities and answers of `n` examples over `k` labels."""

    targets: NDArray[Any]
    probabilities: FloatArray
    decided: NDArray[Any]
    task: Task
    k: int
    positive: int


def checked(
    targets: NDArray[Any], probabilities: FloatArray, decided: NDArray[Any], task: Task, k: int, positive: int
) -> Inputs:
    """Return the arrays in their proper types.

    Raises:
        DataError: there is no example, shapes do not fit together, or a label index is out of range.
    """
    task = Task(task)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] != k:
        raise DataError(f"probabilities: shape {probabilities.shape}, expected (n, {k})")
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities: some are not finite numbers; the classifier or its calibration is at fault")
    if task is Task.BINARY and (k != 2 or positive not in (0, 1)):
        raise DataError(f"a binary task has 2 labels and a positive one, not {k} labels and index {positive}")
    n = len(probabilities)
    targets = checked_answers(targets, task, n, k, "targets", lowest=0)
    decided = checked_answers(decided, task, n, k, "decided", lowest=-1)
    return Inputs(targets, probabilities, decided, task, k, positive)


def checked_answers(answers: NDArray[Any], task: Task, n: int, k: int, what: str, *, lowest: int) -> NDArray[Any]:
    """Return label indices `(n,)` from `lowest` to `k - 1` as int64, or bool `(n, k)` for multi-label tasks.

    Raises:
        DataError: there is none, the shape is another, or an index is out of range.
    """
    answers = np.asarray(answers)
    shape = (n, k) if task is Task.MULTI_LABEL else (n,)
    if n == 0:
        raise DataError(f"{what}: no example to measure; check the split's sizes")
    if answers.shape != shape:
        raise DataError(f"{what} of a {task} task: shape {answers.shape}, expected {shape}")
    if task is Task.MULTI_LABEL:
        return answers.astype(np.bool_)
    answers = answers.astype(np.int64)
    if answers.min() < lowest or answers.max() >= k:
        raise DataError(f"{what}: indices {answers.min()} to {answers.max()}, allowed: {lowest} to {k - 1}")
    return answers


def bins_of(confidence: FloatArray, bins: int = ECE_BINS) -> IntArray:
    """Return in which of the bins of equal width each confidence lies; they are open to the left, but for the first."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def ranked(inputs: Inputs) -> tuple[BoolArray, FloatArray]:
    """Return outcomes and scores `(n, c)` to rank: one column per label; binary: only the positive label's."""
    if inputs.task is Task.MULTI_LABEL:
        return inputs.targets, inputs.probabilities
    if inputs.task is Task.BINARY:
        only = [inputs.positive]
        return inputs.targets[:, None] == only, inputs.probabilities[:, only]
    return inputs.targets[:, None] == np.arange(inputs.k), inputs.probabilities


def log_losses(inputs: Inputs) -> FloatArray:
    """Return the log loss of each example `(n,)`; multi-label: its mean over labels."""
    truth = inputs.probabilities
    if inputs.task is Task.MULTI_LABEL:
        truth = np.where(inputs.targets, truth, 1 - truth)
    else:
        truth = truth[np.arange(len(truth)), inputs.targets][:, None]
    truth = np.clip(truth, _SMALLEST, 1)
    losses: FloatArray = -np.log(truth, out=truth).mean(axis=1)  # in place: arrays of all labels are large
    return losses


def brier_losses(inputs: Inputs) -> FloatArray:
    """Return the squared error of each example `(n,)`, as `brier` defines it for the task."""
    outcomes, scores = ranked(inputs)
    squares = scores - outcomes
    squares *= squares
    losses: FloatArray = squares.mean(axis=1) if inputs.task is Task.MULTI_LABEL else squares.sum(axis=1)
    return losses
