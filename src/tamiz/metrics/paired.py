"""Two models on the same test examples: how far apart they are, and how sure that is.

Resamples draw examples, and both models are measured on each draw: what makes an example hard for both cancels out, so
that a difference shows that two separate intervals would hide.

Source:
    Paired bootstrap: Koehn (2004), Statistical Significance Tests for Machine Translation Evaluation; Berg-Kirkpatrick,
    Burkett, Klein (2012), An Empirical Investigation of Statistical Significance in NLP. McNemar (1947), Note on the
    Sampling Error of the Difference Between Correlated Proportions or Percentages; its mid-p form: Fagerland, Lydersen,
    Laake (2013), The McNemar test for binary matched-pairs data. Difference of paired shares: Newcombe (1998), Improved
    Confidence Intervals for the Difference Between Binomial Proportions Based on Paired Data, method 10. Several
    comparisons at once: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import ConfigError, DataError, one_of
from tamiz.metrics import intervals
from tamiz.metrics._inputs import ECE_BINS, Inputs, bins_of, checked
from tamiz.metrics.names import METRICS, base_name
from tamiz.types import BoolArray, FloatArray, Task

__all__ = ["Comparison", "McNemar", "compare", "compare_values", "difference_interval", "holm", "mcnemar"]

_RESAMPLES = 2000
_ROUNDING = 1e-12
Measure = Callable[[FloatArray], FloatArray]


class Comparison(NamedTuple):
    """A figure of two models on the same examples.

    Attributes:
        first: value of the first model.
        second: value of the second.
        difference: first minus second.
        low: lower end of the interval of the difference.
        high: upper end.
        p_higher: share of resamples in which the first is higher; a tie is not.
        p_lower: share of resamples in which the first is lower.
        n: number of examples.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_higher: float
    p_lower: float
    n: int


class McNemar(NamedTuple):
    """Which of two models is right where they differ.

    Attributes:
        first_only: examples that only the first has right.
        second_only: examples that only the second has right.
        p: two-sided mid-p value of no difference.
        p_exact: two-sided exact p-value, which is never too small and often too large.
        p_first_better: one-sided mid-p value: how likely so many wins of the first are between two equals.
        p_second_better: the same for the second.
    """

    first_only: int
    second_only: int
    p: float
    p_exact: float
    p_first_better: float
    p_second_better: float


def compare(
    metric: str,
    targets: NDArray[Any],
    first: tuple[FloatArray, NDArray[Any]],
    second: tuple[FloatArray, NDArray[Any]],
    *,
    task: Task,
    labels: Sequence[str],
    positive: int = 1,
    resamples: int = _RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two models in any metric of `score` by a paired bootstrap.

    Ranking metrics get fewer resamples on large data, as in `bootstrap`, but all that `confidence` needs. Resampling
    moves some metrics in one direction; the interval is moved back by that much, and `p_higher` counts only resamples
    beyond it.

    Args:
        metric: a key of `METRICS`; a prefix `val_` or `test_` does not matter.
        targets: see `score`, as are `task`, `labels` and `positive`.
        first: probabilities and decisions of the first model.
        second: those of the second.
        task: what kind of answer is given.
        labels: the labels.
        positive: index of the positive label of a binary task.
        resamples: how many resamples to draw.
        confidence: what `p_higher` and `p_lower` must be able to come to; a high one needs more resamples.
        seed: of the resamples.
        level: share of resamples inside the interval.

    Raises:
        ConfigError: the metric is none that examples decide, or a setting is out of range.
        DataError: there is no example, the arrays do not fit together, or the metric is undefined on them.
    """
    name = base_name(metric)
    if name not in METRICS:
        raise ConfigError(f"metric {metric!r} cannot be compared by pairs; {one_of(name, METRICS)}")
    both = [
        checked(targets, probabilities, decided, task, len(labels), positive)
        for probabilities, decided in (first, second)
    ]
    n = len(both[0].targets)
    ranking = name in ("roc_auc_macro", "average_precision_macro")
    if ranking:
        resamples = min(resamples, intervals.affordable_resamples(n * len(labels)))
    if resamples > 0:  # of r resamples a share is r / (r + 1) at most
        resamples = max(resamples, math.ceil(round(1 / (1 - confidence), 6)))
    return _compared(name, [_measure(name, inputs) for inputs in both], n, resamples=resamples, seed=seed, level=level)


def compare_values(
    first: FloatArray, second: FloatArray, *, resamples: int = _RESAMPLES, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare the means of a value per example `(n,)` of two models, as `compare` does.

    Raises:
        DataError: there is no example, or not as many in both.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise DataError(
            f"values of two models: shapes {first.shape} and {second.shape}, expected (n,) twice, n above 0"
        )
    measures = [_mean_of(first), _mean_of(second)]
    return _compared("value", measures, len(first), resamples=resamples, seed=seed, level=level)


def mcnemar(first_right: BoolArray, second_right: BoolArray) -> McNemar:
    """Test whether two models are right equally often, from the examples on which one is right and the other wrong.

    Args:
        first_right: where the first model is right, `(n,)`.
        second_right: where the second is.

    Raises:
        DataError: not as many examples in both.

    Example:
        >>> found = mcnemar(np.array([True] * 8 + [False] * 2), np.array([False] * 8 + [True] * 2))
        >>> found.first_only, found.second_only, round(found.p_exact, 4), round(found.p, 4)
        (8, 2, 0.1094, 0.0654)
    """
    from scipy.stats import binom, binomtest

    first, second = np.asarray(first_right, dtype=np.bool_), np.asarray(second_right, dtype=np.bool_)
    if first.shape != second.shape:
        raise DataError(f"answers of two models: shapes {first.shape} and {second.shape} differ")
    wins, losses = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    n = wins + losses
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0, 1.0, 1.0)

    def one_sided(count: int) -> float:
        return float(binom.sf(count, n, 0.5) + 0.5 * binom.pmf(count, n, 0.5))

    p_first, p_second = one_sided(wins), one_sided(losses)
    exact = float(binomtest(wins, n, 0.5).pvalue)
    return McNemar(wins, losses, min(1.0, 2 * min(p_first, p_second)), exact, p_first, p_second)


def difference_interval(first_right: BoolArray, second_right: BoolArray, level: float = 0.95) -> tuple[float, float]:
    """Return Newcombe's interval of how much more often the first model is right than the second.

    Unlike resamples it has a width where no example speaks against one of the two.

    Args:
        first_right: where the first model is right, `(n,)`, `n` above 0.
        second_right: where the second is.
        level: how often such intervals hold the true difference.

    Example:
        >>> first, second = np.repeat([True, True, False], [36, 12, 2]), np.repeat([True, False, True], [36, 12, 2])
        >>> [round(bound, 4) for bound in difference_interval(first, second)]
        [0.0569, 0.3404]
    """
    first, second = np.asarray(first_right, dtype=np.bool_), np.asarray(second_right, dtype=np.bool_)
    n, right = len(first), (int(first.sum()), int(second.sum()))
    together = float(n * int((first & second).sum()) - right[0] * right[1])
    if together > 0:
        together = max(0.0, together - n / 2)
    spread = float(np.sqrt([float(count * (n - count)) for count in right]).prod())
    correlation = together / spread if spread else 0.0
    shares = [count / n for count in right]
    (low, high), (other_low, other_high) = (intervals.share_interval(count, n, level) for count in right)

    def reach(own: float, other: float) -> float:
        return float(np.sqrt(max(0.0, own * own - 2 * correlation * own * other + other * other)))

    difference = shares[0] - shares[1]
    below, above = reach(shares[0] - low, other_high - shares[1]), reach(high - shares[0], shares[1] - other_low)
    return difference - below, difference + above


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the given order.

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    m = len(p_values)
    adjusted, largest = [0.0] * m, 0.0
    for rank, place in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _compared(name: str, measures: Sequence[Measure], n: int, *, resamples: int, seed: int, level: float) -> Comparison:
    intervals.check_plan(resamples, level)
    first, second = (float(measure(np.ones((n, 1)))[0]) for measure in measures)
    observed = first - second
    if not np.isfinite(observed):
        raise DataError(f"{name} is undefined on these {n} examples; give a larger test or another metric")
    drawn = np.concatenate([measures[0](w) - measures[1](w) for w in intervals.drawn_weights(n, resamples, seed)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = intervals.interval(observed, drawn, level)
    bias = float(drawn.mean()) - observed if drawn.size else 0.0
    # One more than was drawn: no number of resamples makes a difference certain.
    higher = np.count_nonzero(drawn > max(0.0, bias) + _ROUNDING) / (drawn.size + 1)
    lower = np.count_nonzero(drawn < min(0.0, bias) - _ROUNDING) / (drawn.size + 1)
    return Comparison(first, second, observed, low, high, float(higher), float(lower), n)


def _measure(name: str, inputs: Inputs) -> Measure:
    """Return what gives the metric `(b,)` under weights of examples `(n, b)`."""
    if name == "ece":
        return _ece_of(inputs)
    measured = intervals.measures(inputs, ranking=name.startswith(("roc_auc", "average_precision")))
    if inputs.task is not Task.MULTI_LABEL and (inputs.decided >= 0).all():  # who never abstains
        if name == "coverage":
            return lambda weights: np.ones(weights.shape[1])
        name = "accuracy" if name == "selective_accuracy" else name

    def of(weights: FloatArray) -> FloatArray:
        missing = np.full(weights.shape[1], np.nan)
        found: FloatArray = measured(weights).get(name, missing)
        return found

    return of


def _mean_of(values: FloatArray) -> Measure:
    def of(weights: FloatArray) -> FloatArray:
        means: FloatArray = values @ weights / len(values)
        return means

    return of


def _ece_of(inputs: Inputs) -> Measure:
    """Bins do not depend on the resample: each is a sum of confidence less hit over its examples."""
    from scipy.sparse import csr_array

    if inputs.task is Task.MULTI_LABEL:
        confidence, hit = inputs.probabilities, inputs.targets
    else:
        confidence = inputs.probabilities.max(axis=1)[:, None]
        hit = (inputs.probabilities.argmax(axis=1) == inputs.targets)[:, None]
    n, columns = confidence.shape
    bins = bins_of(confidence) + ECE_BINS * np.arange(columns)
    rows = np.repeat(np.arange(n), columns)
    gaps = csr_array(((confidence - hit).ravel(), (bins.ravel(), rows)), shape=(ECE_BINS * columns, n))

    def of(weights: FloatArray) -> FloatArray:
        distances: FloatArray = np.abs(gaps @ weights).sum(axis=0) / (n * columns)
        return distances

    return of
