"""The decision rule: from calibrated probabilities to a label, several, or none.

Source:
    Thresholds by maximising F1 on held-out data, label by label (`SCut`), and why rare labels need another way: Yang
    (2001), A Study on Thresholding Strategies for Text Categorization. Abstention by confidence: Chow (1970), On
    Optimum Recognition Error and Reject Tradeoff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tamiz.errors import ConfigError, DataError, PackageError, one_of
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = ["DecisionRule", "fit_rule"]

_DEFAULT = 0.5
_FEWEST_POSITIVES = 5


@dataclass(frozen=True)
class DecisionRule:
    """How calibrated probabilities become an answer.

    Binary: the positive label where its probability is at least the threshold, else the other. Multi-class: the label
    with the highest probability, the first of several. Multi-label: every label whose probability is at least its
    threshold; there may be none.

    Attributes:
        task: what kind of answer is given.
        thresholds: binary: one; multi-label: one per label; `None`: .5. Multi-class: always `None`.
        positive: index of the positive label of a binary task.
        abstain_below: binary and multi-class: answer nothing where the highest probability of the row is lower.

    Example:
        >>> DecisionRule(Task.BINARY, thresholds=(0.3,)).decide(np.array([[0.6, 0.4], [0.8, 0.2]]))
        array([1, 0])
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: Task
    thresholds: tuple[float, ...] | None = None
    positive: int = 1
    abstain_below: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that do not fit the task."""
        if self.thresholds is not None:
            if self.task is Task.MULTI_CLASS:
                raise ConfigError("thresholds: a multi-class task takes the label with the highest probability")
            if self.task is Task.BINARY and len(self.thresholds) != 1:
                raise ConfigError(f"thresholds: a binary task has one, not {len(self.thresholds)}")
            if not all(0 <= threshold <= 1 for threshold in self.thresholds):
                raise ConfigError("thresholds: each must be from 0 to 1")
        if self.task is Task.BINARY and self.positive not in (0, 1):
            raise ConfigError(f"positive label of a binary task: index {self.positive}, allowed: 0, 1")
        if self.abstain_below is not None:
            if self.task is Task.MULTI_LABEL:
                raise ConfigError("abstain_below: a multi-label task cannot abstain; it may answer no label")
            if not 0 <= self.abstain_below <= 1:
                raise ConfigError(f"abstain_below: got {self.abstain_below}, allowed: 0 to 1")

    def decide(self, probabilities: FloatArray) -> NDArray[Any]:
        """Return the answer for each row of calibrated probabilities `(n, k)`.

        Returns:
            int64 `(n,)` label indices, -1 where the rule abstains; multi-label: bool `(n, k)`.

        Raises:
            DataError: the shape does not fit the task or the thresholds.
        """
        probabilities = np.asarray(probabilities, dtype=np.float64)
        self._check_shape(probabilities)
        if self.task is Task.MULTI_LABEL:
            met: BoolArray = probabilities >= (_DEFAULT if self.thresholds is None else np.array(self.thresholds))
            return met
        labels = self._labels(probabilities)
        if self.abstain_below is not None:
            labels[probabilities.max(axis=1, initial=0) < self.abstain_below] = -1
        return labels

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary from which `from_dict` restores the rule exactly."""
        data: dict[str, Any] = TypeAdapter(DecisionRule).dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` wrote.

        Raises:
            PackageError: a key is missing or unknown, or a value does not fit the task.
        """
        try:
            restored = TypeAdapter(DecisionRule).validate_python(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "rule"
            raise PackageError(f"decision rule of the model package: {place}: {first['msg']}") from error
        return cls(**vars(restored))

    def _labels(self, probabilities: FloatArray) -> IntArray:
        if self.task is Task.MULTI_CLASS:
            labels: IntArray = probabilities.argmax(axis=1).astype(np.int64)
            return labels
        threshold = _DEFAULT if self.thresholds is None else self.thresholds[0]
        met = probabilities[:, self.positive] >= threshold
        labels = np.where(met, self.positive, 1 - self.positive).astype(np.int64)
        return labels

    def _check_shape(self, probabilities: FloatArray) -> None:
        k = probabilities.shape[1] if probabilities.ndim == 2 else 0
        wanted = {Task.BINARY: 2, Task.MULTI_LABEL: len(self.thresholds or ()) or k}.get(self.task, k)
        if k == 0 or k != wanted:
            raise DataError(f"probabilities: shape {probabilities.shape}, expected (n, {wanted or 'labels'})")


def fit_rule(
    thresholds: str,
    probabilities: FloatArray,
    targets: NDArray[Any],
    task: Task,
    positive: int = 1,
    abstain_below: float | None = None,
) -> DecisionRule:
    """Fit the decision rule on calibrated probabilities of held-out examples.

    `f1` takes the threshold with the best F1: of the positive label (binary) or of each label (multi-label). A binary
    task with fewer than five positive examples keeps .5. A label of a multi-label task with fewer than five takes the
    one threshold with the best F1 over all labels pooled, since its own would be chance; where even the pool has
    fewer than five, .5. A multi-class task has no thresholds; there `f1` is the same as `default`.

    Args:
        thresholds: `default` (.5) or `f1`.
        probabilities: `(n, k)`, calibrated.
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        positive: index of the positive label of a binary task.
        abstain_below: see `DecisionRule`.

    Raises:
        ConfigError: `thresholds` is unknown, or a setting does not fit the task.
        DataError: the shapes do not fit together.
    """
    if thresholds not in ("default", "f1"):
        raise ConfigError(f"thresholds {thresholds!r}: {one_of(thresholds, ['default', 'f1'])}")
    rule = DecisionRule(Task(task), None, positive, abstain_below)
    if thresholds == "default" or rule.task is Task.MULTI_CLASS:
        return rule
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    rule._check_shape(probabilities)
    wanted = probabilities.shape if rule.task is Task.MULTI_LABEL else probabilities.shape[:1]
    if targets.shape != wanted:
        raise DataError(f"targets of a {rule.task} task: shape {targets.shape}, expected {wanted}")
    if rule.task is Task.BINARY:
        found = _best_threshold(probabilities[:, positive], targets == positive)
        chosen: tuple[float, ...] = (_DEFAULT if found is None else found,)
    else:
        chosen = _label_thresholds(probabilities, targets.astype(np.bool_))
    return DecisionRule(rule.task, chosen, positive, abstain_below)


def _label_thresholds(probabilities: FloatArray, targets: BoolArray) -> tuple[float, ...]:
    own = [_best_threshold(column, outcome) for column, outcome in zip(probabilities.T, targets.T, strict=True)]
    pooled = _best_threshold(probabilities.ravel(), targets.ravel()) if None in own else None
    fallback = _DEFAULT if pooled is None else pooled
    return tuple(fallback if threshold is None else threshold for threshold in own)


def _best_threshold(scores: FloatArray, outcomes: BoolArray) -> float | None:
    """Return the cut with the best F1, of several the one nearest .5; `None` with too few positives.

    Cuts lie midway between neighbouring distinct scores, and between 0 and the lowest score (which takes everything).
    """
    positives = int(np.count_nonzero(outcomes))
    if positives < _FEWEST_POSITIVES:
        return None
    levels, level_of = np.unique(scores, return_inverse=True)
    count = np.bincount(level_of, minlength=len(levels))
    hits = np.bincount(level_of, weights=outcomes, minlength=len(levels))
    taken, right = count[::-1].cumsum()[::-1], hits[::-1].cumsum()[::-1]  # at or above each level
    f1 = 2 * right / (taken + positives)
    below = np.concatenate([[0.0], levels[:-1]])
    cuts = (below + levels) / 2
    cuts = np.where(cuts > below, cuts, levels)  # between adjacent floats there is no middle
    best = cuts[f1 == f1.max()]
    return float(best[np.abs(best - _DEFAULT).argmin()])
