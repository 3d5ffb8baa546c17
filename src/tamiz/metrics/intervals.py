"""How uncertain a figure is: Wilson's intervals of plain shares, bootstrap intervals of all else.

A share of examples, such as accuracy, is a binomial count, whose interval is known and has a width at 0 and at 1 too.

A resample draws `n` of the `n` examples with replacement, which is the same as multinomial weights on the examples. All
resamples of a chunk are measured at once from their weights; a chunk's weights take about 16 MB whatever `n` is.

Resamples repeat examples and miss others, which moves some metrics in one direction: average precision up, macro F1 of
rare labels down. The percentiles are therefore moved by the estimated bias, the mean of the resamples less the observed
value, and show the spread around what was measured. Where all resamples give the same, as a macro F1 of 1 does, they
show no spread, and there is no interval.

Source:
    Shares: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
    Percentile intervals and the estimate of bias: Efron, Tibshirani (1993), An Introduction to the Bootstrap, chapters
    13 and 10.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import ConfigError
from tamiz.metrics._inputs import Inputs, brier_losses, checked, log_losses, ranked
from tamiz.metrics.names import METRICS
from tamiz.types import BoolArray, FloatArray, Task

__all__ = ["bootstrap", "share_interval"]

_CHUNK_CELLS = 2_000_000  # of weights: 16 MB
_RANKING_CELLS = 100_000_000  # work allowed to ranking metrics: examples x labels x resamples
_FEWEST_RANKING_RESAMPLES = 200
_UNBOUNDED = ("log_loss", "brier")  # all others lie in [0, 1]
_ROUNDING = 1e-12


def bootstrap(
    targets: NDArray[Any],
    probabilities: FloatArray,
    decided: NDArray[Any],
    *,
    task: Task,
    labels: Sequence[str],
    positive: int = 1,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return intervals of what `score` gives, except `ece` (resampling biases it upwards).

    Plain shares of examples (accuracy, coverage and the like) have Wilson's interval, other metrics percentiles of
    resamples; there is none where all resamples give the same.

    `roc_auc_macro` and `average_precision_macro` need a pass over the sorted examples per label: where `n * k *
    resamples` is above 1e8 they get fewer resamples, at least 200. A resample in which a metric is undefined does not
    count for it. The same seed gives the same intervals.

    Args:
        targets: see `score`, as are `probabilities`, `decided`, `task`, `labels` and `positive`.
        probabilities: `(n, k)`.
        decided: `(n,)` or `(n, k)`.
        task: what kind of answer is given.
        labels: the `k` labels.
        positive: index of the positive label of a binary task.
        resamples: how many resamples to draw.
        seed: of the resamples.
        level: share of resamples inside the interval.

    Raises:
        ConfigError: `resamples` or `level` is out of range.
        DataError: there is no example, or the arrays do not fit together.
    """
    check_plan(resamples, level)
    inputs = checked(targets, probabilities, decided, task, len(labels), positive)
    rankings = _rankings(inputs)
    n = len(inputs.targets)
    plain = measures(inputs, ranking=False)
    ranking_left = affordable_resamples(n * len(rankings)) if rankings else 0

    def measured(weights: FloatArray, ranking_resamples: int) -> dict[str, FloatArray]:
        values = plain(weights)
        if ranking_resamples > 0:
            values |= _ranking_values(rankings, np.ascontiguousarray(weights[:, :ranking_resamples]))
        return values

    observed = measured(np.ones((n, 1)), len(rankings))
    samples: dict[str, list[FloatArray]] = defaultdict(list)
    for weights in drawn_weights(n, resamples, seed):
        for name, sample in measured(weights, ranking_left).items():
            samples[name].append(sample)
        ranking_left -= weights.shape[1]
    return _intervals(observed, samples, _shares(inputs), level)


def share_interval(right: int, among: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share: `right` of `among` examples, at least one.

    Source: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.

    Example:
        >>> low, high = share_interval(100, 100)
        >>> round(low, 3), high
        (0.963, 1.0)
    """
    from scipy.stats import binomtest

    bounds = binomtest(right, among).proportion_ci(confidence_level=level, method="wilson")
    return float(bounds.low), float(bounds.high)


def _shares(inputs: Inputs) -> dict[str, tuple[int, int]]:
    """Return the metrics that are shares of examples: how many, of how many; none of no example."""
    targets, decided, n = inputs.targets, inputs.decided, len(inputs.targets)
    if inputs.task is Task.MULTI_LABEL:
        return {"subset_accuracy": (int((targets == decided).all(axis=1).sum()), n)}
    right, answered = int((targets == decided).sum()), int((decided >= 0).sum())
    shares = dict.fromkeys(("accuracy", "recall_micro", "recall_weighted"), (right, n))
    if answered == n:
        return shares | dict.fromkeys(("f1_micro", "precision_micro"), (right, n))
    of_answers = dict.fromkeys(("precision_micro", "selective_accuracy"), (right, answered)) if answered else {}
    return shares | {"coverage": (answered, n)} | of_answers


def measures(inputs: Inputs, *, ranking: bool) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """Return what gives each metric `(b,)` under weights of examples `(n, b)`; ranking metrics only where asked for."""
    means, counts = _Means(_row_values(inputs)), _Counts(inputs.targets, inputs.decided, inputs.k)
    rankings = _rankings(inputs) if ranking else []

    def measured(weights: FloatArray) -> dict[str, FloatArray]:
        if ranking:
            return _ranking_values(rankings, np.ascontiguousarray(weights)) if rankings else {}
        values = {**means.of(weights), **counts.of(weights)}
        if inputs.task is Task.BINARY:
            values |= counts.of_label(weights, inputs.positive)
        return values

    return measured


def affordable_resamples(cells: int) -> int:
    """Return how many resamples ranking metrics get on so many examples x labels."""
    return max(_FEWEST_RANKING_RESAMPLES, _RANKING_CELLS // max(1, cells))


class _Means:
    """Metrics that are means of a value per example, or ratios of two."""

    def __init__(self, values: dict[str, FloatArray]) -> None:
        self.names = list(values)
        self.values = np.array(list(values.values()))

    def of(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Return each metric `(b,)` under the weights `(n, b)`."""
        means = dict(zip(self.names, self.values @ weights / weights.shape[0], strict=True))
        if "coverage" in means:
            means["selective_accuracy"] = _ratio(means["accuracy"], means["coverage"], empty=np.nan)
        return means


class _Counts:
    """Metrics made of three counts per label: right decisions, decisions, true examples."""

    def __init__(self, targets: NDArray[Any], decided: NDArray[Any], k: int) -> None:
        right = (targets & decided) if targets.ndim == 2 else np.where(targets == decided, targets, -1)
        self.members = [_membership(answers, k) for answers in (right, decided, targets)]

    def of(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Return each metric `(b,)` under the weights `(n, b)`; NaN where nothing is true and nothing decided."""
        right, decided, true = self._counts(weights)
        found = (decided + true) > 0
        labels = found.sum(axis=0)
        totals = right.sum(axis=0), decided.sum(axis=0), true.sum(axis=0)
        values = {}
        for name, ratio in _RATIOS.items():
            each = ratio(right, decided, true)
            values[f"{name}_macro"] = _ratio(each.sum(axis=0), labels, empty=np.nan)
            values[f"{name}_micro"] = np.where(labels > 0, ratio(*totals), np.nan)
            values[f"{name}_weighted"] = np.where(labels > 0, _ratio((each * true).sum(axis=0), totals[2]), np.nan)
        return values

    def of_label(self, weights: FloatArray, label: int) -> dict[str, FloatArray]:
        """Return the metrics of one label as `f1_positive` and the like."""
        right, decided, true = (counts[label] for counts in self._counts(weights))
        found = (decided + true) > 0
        return {
            f"{name}_positive": np.where(found, ratio(right, decided, true), np.nan) for name, ratio in _RATIOS.items()
        }

    def _counts(self, weights: FloatArray) -> list[FloatArray]:
        return [members @ weights for members in self.members]


class _Ranking(NamedTuple):
    """One label's examples in ascending order of score, `m` of them positive.

    Attributes:
        order: rows `(n,)` in that order.
        positives: rows `(m,)` of the positive ones in that order.
        first, last: for each positive, how many examples score lower, and lower or the same `(m,)`.
        first_positive, last_positive: the same, counting positive examples only.
    """

    order: NDArray[np.int32]
    positives: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    first_positive: NDArray[np.int32]
    last_positive: NDArray[np.int32]


def _rankings(inputs: Inputs) -> list[_Ranking]:
    outcomes, scores = ranked(inputs)
    both = outcomes.any(axis=0) & ~outcomes.all(axis=0)
    return [_ranking(outcomes[:, j], scores[:, j]) for j in np.flatnonzero(both)]


def _ranking(outcomes: BoolArray, scores: FloatArray) -> _Ranking:
    order = np.argsort(scores, kind="stable")
    ascending, positives = scores[order], order[outcomes[order]]
    own = scores[positives]
    places = [np.searchsorted(among, own, side) for among in (ascending, own) for side in ("left", "right")]
    return _Ranking(*(rows.astype(np.int32) for rows in (order, positives, *places)))


def _ranking_values(rankings: list[_Ranking], weights: FloatArray) -> dict[str, FloatArray]:
    """Return ROC AUC and average precision, means over labels with both outcomes in the resample `(b,)`."""
    resamples = weights.shape[1]
    sums, labels = np.zeros((2, resamples)), np.zeros(resamples)
    room = np.zeros((weights.shape[0] + 1, resamples))
    for ranking in rankings:
        auc, average_precision, defined = _weighted_ranking(ranking, weights, room)
        sums += np.where(defined, (auc, average_precision), 0)
        labels += defined
    auc_macro, average_precision_macro = _ratio(sums, labels, empty=np.nan)
    return {"roc_auc_macro": auc_macro, "average_precision_macro": average_precision_macro}


def _weighted_ranking(
    ranking: _Ranking, weights: FloatArray, room: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return AUC and average precision of one label by resample `(b,)`, and where both are defined.

    `room` is `(n + 1, b)` and overwritten with the weight of all examples before each place.
    """
    np.take(weights, ranking.order, axis=0, out=room[1:], mode="clip")
    np.cumsum(room[1:], axis=0, out=room[1:])
    own = weights[ranking.positives]
    before = np.zeros((len(own) + 1, own.shape[1]))
    np.cumsum(own, axis=0, out=before[1:])
    lower, lower_positive = room[ranking.first], before[ranking.first_positive]
    positive, negative = before[-1], room[-1] - before[-1]
    # A negative that scores the same as a positive counts half.
    beaten = own * (lower + room[ranking.last] - lower_positive - before[ranking.last_positive]) / 2
    precision = _ratio(positive - lower_positive, room[-1] - lower)
    auc = _ratio(beaten.sum(axis=0), positive * negative)
    return auc, _ratio((own * precision).sum(axis=0), positive), (positive > 0) & (negative > 0)


def _row_values(inputs: Inputs) -> dict[str, FloatArray]:
    return {
        **_row_agreement(inputs.targets, inputs.decided, inputs.task),
        "log_loss": log_losses(inputs),
        "brier": brier_losses(inputs),
    }


def _row_agreement(targets: NDArray[Any], decided: NDArray[Any], task: Task) -> dict[str, FloatArray]:
    if task is Task.MULTI_LABEL:
        wrong = targets != decided
        return {"subset_accuracy": (~wrong.any(axis=1)).astype(np.float64), "hamming_loss": wrong.mean(axis=1)}
    values = {"accuracy": (targets == decided).astype(np.float64)}
    if (decided < 0).any():
        values["coverage"] = (decided >= 0).astype(np.float64)
    return values


def _membership(answers: NDArray[Any], k: int) -> Any:
    """Return the sparse `(k, n)` matrix that sums an example's weight into its labels."""
    from scipy.sparse import csr_array

    if answers.ndim == 2:
        rows, labels = np.nonzero(answers)
    else:
        rows = np.flatnonzero(answers >= 0)
        labels = answers[rows]
    places = labels.astype(np.int32), rows.astype(np.int32)
    return csr_array((np.ones(len(rows)), places), shape=(k, len(answers)))


def drawn_weights(n: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each example was drawn, `(n, b)` with `b` resamples at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_CELLS // n)
    for done in range(0, resamples, at_once):
        width = min(at_once, resamples - done)
        weights = np.empty((n, width))
        for column in range(width):
            weights[:, column] = np.bincount(rng.integers(0, n, n), minlength=n)
        yield weights


def _ratio(over: NDArray[Any], under: NDArray[Any], *, empty: float = 0.0) -> FloatArray:
    """Divide, with `empty` where the denominator is 0."""
    over, under = np.broadcast_arrays(over, under)
    result: FloatArray = np.divide(over, under, out=np.full(over.shape, empty), where=under > 0)
    return result


def _precision(right: FloatArray, decided: FloatArray, true: FloatArray) -> FloatArray:
    return _ratio(right, decided)


def _recall(right: FloatArray, decided: FloatArray, true: FloatArray) -> FloatArray:
    return _ratio(right, true)


def _f1(right: FloatArray, decided: FloatArray, true: FloatArray) -> FloatArray:
    return _ratio(2 * right, decided + true)


_RATIOS = {"precision": _precision, "recall": _recall, "f1": _f1}


def _intervals(
    observed: dict[str, FloatArray],
    samples: dict[str, list[FloatArray]],
    shares: dict[str, tuple[int, int]],
    level: float,
) -> dict[str, tuple[float, float]]:
    intervals = {}
    for name in METRICS:
        if name in shares:
            intervals[name] = share_interval(*shares[name], level)
            continue
        value = float(observed[name][0]) if name in observed else np.nan
        drawn = np.concatenate(samples[name]) if name in samples else np.empty(0)
        drawn = drawn[np.isfinite(drawn)]
        if drawn.size and np.isfinite(value) and np.ptp(drawn) > _ROUNDING:
            low, high = interval(value, drawn, level)
            highest = np.inf if name in _UNBOUNDED else 1.0
            intervals[name] = (max(low, 0.0), min(high, highest))
    return intervals


def interval(observed: float, drawn: FloatArray, level: float) -> tuple[float, float]:
    """Return percentiles of what was drawn, moved so that its mean falls on the observed value."""
    if drawn.size == 0:
        return observed, observed
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2)) - (drawn.mean() - observed)
    return float(low), float(high)


def check_plan(resamples: int, level: float) -> None:
    """Refuse numbers that no plan of resamples can have.

    Raises:
        ConfigError: `resamples` or `level` is out of range.
    """
    if resamples < 1:
        raise ConfigError(f"resamples: got {resamples}, allowed: 1 or more")
    if not 0 < level < 1:
        raise ConfigError(f"level: got {level}, allowed: above 0 and below 1, such as .95")
