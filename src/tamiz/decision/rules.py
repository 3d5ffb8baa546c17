"""The decision rule: from calibrated probabilities to a label, several, or none.

Costs give the answer with the least expected cost under the calibrated probabilities; for two outcomes that is the
threshold `c_fp / (c_fp + c_fn)`. It is taken from the costs, not tuned on validation data: calibration has used those
already, and a formula has no chance in it where a label is rare.

Source:
    Thresholds by maximising a metric on held-out data, label by label (`SCut`), and why rare labels need another way:
    Yang (2001), A Study on Thresholding Strategies for Text Categorization. Costs: Elkan (2001), The Foundations of
    Cost-Sensitive Learning, section 2. Abstention by confidence or cost: Chow (1970), On Optimum Recognition Error and
    Reject Tradeoff. Coverage and error on held-out data: El-Yaniv, Wiener (2010), On the Foundations of Noise-free
    Selective Classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tamiz._rule_config import ThresholdsConfig, check_threshold_metric
from tamiz.decision._thresholds import best_cut
from tamiz.decision.conformal import Conformal
from tamiz.errors import ConfigError, DataError, PackageError, reason_of
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = ["DecisionRule", "fit_rule"]

_DEFAULT = 0.5


@dataclass(frozen=True)
class DecisionRule:
    """How calibrated probabilities become an answer.

    Binary: the positive label where its probability is at least the threshold, else the other. Multi-class: the label
    with the highest probability, or with costs the one with the least expected cost; the first of several. Multi-label:
    every label whose probability is at least its threshold; there may be none.

    Attributes:
        task: what kind of answer is given.
        thresholds: binary: one; multi-label: one per label; `None`: .5. Multi-class: always `None`.
        positive: index of the positive label of a binary task.
        abstain_below: binary and multi-class: answer nothing where the highest probability of the row is lower.
        costs: binary and multi-class: `(k, k)`, cost by true label (row) and decided label (column); `None`: 0 for the
            right label and 1 for another. A binary rule uses them for `abstain_cost` alone; its threshold decides.
        abstain_cost: binary and multi-class: answer nothing where the answer is expected to cost more.
        conformal: makes sets of labels; may let the rule abstain.
        reason: what the fit could not keep, in words.
        settings: the keys of the candidate that the rule and its calibration were fitted by.

    Example:
        >>> DecisionRule(Task.BINARY, thresholds=(0.3,)).decide(np.array([[0.6, 0.4], [0.8, 0.2]]))
        array([1, 0])
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: Task
    thresholds: tuple[float, ...] | None = None
    positive: int = 1
    abstain_below: float | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    abstain_cost: float | None = None
    conformal: Conformal | None = None
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that do not fit the task."""
        if self.thresholds is not None:
            self._check_thresholds(self.thresholds)
        if self.task is Task.BINARY and self.positive not in (0, 1):
            raise ConfigError(f"positive label of a binary task: index {self.positive}, allowed: 0, 1")
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise ConfigError(f"abstain_below: got {self.abstain_below}, allowed: 0 to 1")
        if self.task is Task.MULTI_LABEL:
            for name in ("abstain_below", "abstain_cost", "costs"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name}: a multi-label task cannot abstain; it may answer no label")
        if self.costs is not None:
            self._check_costs(self.costs)

    def _check_thresholds(self, thresholds: tuple[float, ...]) -> None:
        if self.task is Task.MULTI_CLASS:
            raise ConfigError("thresholds: a multi-class task takes the label with the highest probability")
        if self.task is Task.BINARY and len(thresholds) != 1:
            raise ConfigError(f"thresholds: a binary task has one, not {len(thresholds)}")
        if not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ConfigError("thresholds: each must be from 0 to 1")

    def _check_costs(self, costs: tuple[tuple[float, ...], ...]) -> None:
        if any(len(row) != len(costs) for row in costs) or (self.task is Task.BINARY and len(costs) != 2):
            raise ConfigError("costs: a row and a column for each label are needed")
        if not all(cost >= 0 for row in costs for cost in row):
            raise ConfigError("costs: each must be 0 or more")

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
            met: BoolArray = probabilities >= (_DEFAULT if self.thresholds is None else self._threshold_array)
            return met
        expected = None if self.costs is None else self._expected_costs(probabilities)
        labels = self._labels(probabilities, expected)
        unsure = self._unsure(probabilities, labels, expected)
        if unsure is not None:
            labels[unsure] = -1
        return labels

    def prediction_set(self, probabilities: FloatArray) -> BoolArray:
        """Return which labels may be true for each row of calibrated probabilities: bool `(n, k)`.

        Raises:
            ConfigError: the rule has no conformal part.
            DataError: the shape does not fit the task or the rule.
        """
        if self.conformal is None:
            raise ConfigError("this decision rule makes no sets; give the candidate `conformal: {coverage: 0.9}`")
        probabilities = np.asarray(probabilities, dtype=np.float64)
        self._check_shape(probabilities)
        return self.conformal.sets(probabilities)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary from which `from_dict` restores the rule exactly."""
        data: dict[str, Any] = TypeAdapter(DecisionRule).dump_python(self, mode="json", exclude_defaults=True)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` wrote, now or in an earlier release: missing keys get their defaults.

        Raises:
            PackageError: the task is missing, a key is unknown, or a value does not fit the task.
        """
        try:
            restored = TypeAdapter(DecisionRule).validate_python(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "rule"
            raise PackageError(f"decision rule of the model package: {place}: {reason_of(first)}") from error
        return cls(**vars(restored))

    @cached_property
    def _threshold_array(self) -> FloatArray:
        return np.array(self.thresholds, dtype=np.float64)

    @cached_property
    def _cost_array(self) -> FloatArray:
        return np.array(self.costs, dtype=np.float64)

    def _labels(self, probabilities: FloatArray, expected: FloatArray | None) -> IntArray:
        if self.task is Task.MULTI_CLASS:
            best = probabilities.argmax(axis=1) if expected is None else expected.argmin(axis=1)
            labels: IntArray = best.astype(np.int64)
            return labels
        threshold = _DEFAULT if self.thresholds is None else self.thresholds[0]
        met = probabilities[:, self.positive] >= threshold
        labels = np.where(met, self.positive, 1 - self.positive).astype(np.int64)
        return labels

    def _expected_costs(self, probabilities: FloatArray) -> FloatArray:
        """Return the expected cost of each answer `(n, k)`, summed label by label: a row never depends on others."""
        costs = self._cost_array
        expected: FloatArray = probabilities[:, :1] * costs[0]
        for j in range(1, len(costs)):
            expected += probabilities[:, j : j + 1] * costs[j]
        return expected

    def _unsure(self, probabilities: FloatArray, labels: IntArray, expected: FloatArray | None) -> BoolArray | None:
        """Return where to answer nothing; `None` where the rule always answers, at no cost."""
        unsure: BoolArray | None = None
        if self.abstain_below is not None:
            unsure = probabilities.max(axis=1, initial=0) < self.abstain_below
        if self.abstain_cost is not None:
            costs = 1 - probabilities if expected is None else expected
            dear = costs[np.arange(len(labels)), labels] > self.abstain_cost
            unsure = dear if unsure is None else unsure | dear
        if self.conformal is not None and self.conformal.abstain:
            sets = self.conformal.sets(probabilities)
            open_ = (sets.sum(axis=1) != 1) | ~sets[np.arange(len(labels)), labels]
            unsure = open_ if unsure is None else unsure | open_
        return unsure

    def _check_shape(self, probabilities: FloatArray) -> None:
        k = probabilities.shape[1] if probabilities.ndim == 2 else 0
        wanted = 2 if self.task is Task.BINARY else len(self.thresholds or self.costs or ()) or k
        if k == 0 or k != wanted:
            raise DataError(f"probabilities: shape {probabilities.shape}, expected (n, {wanted or 'labels'})")
        if self.conformal is not None and len(self.conformal.quantiles) not in (1, k):
            raise DataError(f"probabilities: shape {probabilities.shape}, the conformal part has other labels")


def fit_rule(
    thresholds: str | ThresholdsConfig,
    probabilities: FloatArray,
    targets: NDArray[Any],
    task: Task,
    positive: int = 1,
    abstain_below: float | None = None,
) -> DecisionRule:
    """Tune thresholds on calibrated probabilities of held-out examples.

    A metric takes the threshold that is best by it: for the positive label (binary) or for each label (multi-label). A
    binary task with fewer than five positive examples keeps .5. A label of a multi-label task with fewer than five
    takes the one threshold that is best over all labels pooled, since its own would be chance; where even the pool has
    fewer than five, .5. Where no threshold keeps what `at_least` asks for, the nearest is taken and `reason` says so. A
    multi-class task has no thresholds; there every metric is the same as `default`.

    Args:
        thresholds: `default` (.5), a metric such as `f1`, or the whole section.
        probabilities: `(n, k)`, calibrated.
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        positive: index of the positive label of a binary task.
        abstain_below: see `DecisionRule`.

    Raises:
        ConfigError: the metric is unknown, or a setting does not fit the task.
        DataError: the shapes do not fit together.
    """
    if isinstance(thresholds, str):
        check_threshold_metric(thresholds)
        thresholds = ThresholdsConfig(metric=thresholds)
    rule = DecisionRule(Task(task), None, positive, abstain_below)
    if thresholds.metric == "default" or rule.task is Task.MULTI_CLASS:
        return rule
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    rule._check_shape(probabilities)
    wanted = probabilities.shape if rule.task is Task.MULTI_LABEL else probabilities.shape[:1]
    if targets.shape != wanted:
        raise DataError(f"targets of a {rule.task} task: shape {targets.shape}, expected {wanted}")
    if rule.task is Task.BINARY:
        columns, outcomes = probabilities[:, [positive]], (targets == positive)[:, None]
    else:
        columns, outcomes = probabilities, targets.astype(np.bool_)
    chosen, missed = _tuned(columns, outcomes, thresholds)
    return DecisionRule(rule.task, chosen, positive, abstain_below, reason=_missed(missed, len(chosen), thresholds))


def _tuned(columns: FloatArray, outcomes: BoolArray, goal: ThresholdsConfig) -> tuple[tuple[float, ...], int]:
    """Return a threshold per column, and for how many of them `at_least` is not kept."""
    own = [best_cut(column, outcome, goal) for column, outcome in zip(columns.T, outcomes.T, strict=True)]
    pooled = best_cut(columns.ravel(), outcomes.ravel(), goal) if None in own and len(own) > 1 else None
    cuts = [pooled if cut is None else cut for cut in own]
    return tuple(_DEFAULT if cut is None else cut.threshold for cut in cuts), sum(
        cut is None or not cut.keeps for cut in cuts
    )


def _missed(missed: int, labels: int, goal: ThresholdsConfig) -> str:
    if not missed or not goal.at_least:
        return ""
    wanted = ", ".join(f"{name} {bound:g}" for name, bound in goal.at_least.items())
    whom = f" for {missed} of {labels} labels" if labels > 1 else ""
    return f"no threshold reaches {wanted} on validation{whom}; the nearest was taken"
