"""What is settled after the training, with the exported model: how long texts are read, and in which form it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers.transformer_reading import Ids, Predict, Reader, Rows
from tamiz.encoders.lengths import POLICIES
from tamiz.errors import ConfigError, one_of
from tamiz.metrics import higher_is_better, score
from tamiz.types import FloatArray, Task

__all__ = ["Judge", "Parity", "check_metric", "choose_policy", "parity"]

_ALONE = 32  # texts that are answered one by one too
_QUANTILE = 0.99


@dataclass(frozen=True)
class Judge:
    """Measures probabilities of known texts, decided without any rule.

    Attributes:
        targets: as `fit` has them.
        task: what kind of answer is given.
        labels: labels in order.
    """

    targets: NDArray[Any]
    task: Task
    labels: tuple[str, ...]

    def __call__(self, p: FloatArray) -> dict[str, float]:
        """Return values by metric, but for those of the positive label, since a fit is not told which it is."""
        values = score(self.targets, p, decided(p, self.task), task=self.task, labels=self.labels)
        return {name: value for name, value in values.items() if not _of_positive(name, self.task)}

    def defined(self) -> list[str]:
        """Return the metrics that have a value whatever is answered."""
        return list(self(np.full((len(self.targets), len(self.labels)), 0.4)))  # which decides for none of several


def check_metric(metric: str, task: Task, labels: tuple[str, ...]) -> None:
    """Refuse a metric that can choose nothing in a fit.

    Raises:
        ConfigError: it is of another task, or of the positive label.
    """
    if _of_positive(metric, task):
        raise ConfigError(f"metric: {metric!r} is of the positive label, which the training is not told; take f1_macro")
    k = len(labels)
    every = np.array([[True] * k, [False] * k]) if task is Task.MULTI_LABEL else np.arange(k)
    allowed = Judge(every, task, labels).defined()
    if metric not in allowed:
        raise ConfigError(
            f"metric: {metric!r} is no figure of a training in a {task} task; "
            f"{one_of(metric, allowed, limit=len(allowed))}"
        )


def _of_positive(metric: str, task: Task) -> bool:
    return metric.endswith("_positive") or (task is Task.BINARY and metric == "average_precision_macro")


def decided(p: FloatArray, task: Task) -> NDArray[Any]:
    """Return the likeliest label of each text; multi-label: those with a probability of at least one half."""
    return np.asarray(p >= 0.5) if task is Task.MULTI_LABEL else p.argmax(axis=1)


def choose_policy(
    run: Predict, reader: Reader, tokens: Sequence[Ids], judge: Judge, metric: str
) -> tuple[str, dict[str, float]]:
    """Return the policy for long texts that is best on validation, the cheaper one on ties, and the value of each.

    Args:
        run: gives logits.
        reader: how texts are read but for the policy.
        tokens: of the validation texts.
        judge: measures probabilities of these.
        metric: what counts.
    """
    if all(len(ids) <= reader.room for ids in tokens):
        return "head", {}
    cuts = {policy: reader.by(policy).cut(tokens) for policy in POLICIES}
    logits = _shared(run, cuts)
    values: dict[str, float] = {}
    for policy, rows in cuts.items():
        found = judge(reader.probabilities(logits[policy], rows, judge.task))
        if metric in found:
            values[policy] = found[metric]
    if not values:
        return reader.policy, {}
    sign = 1 if higher_is_better(metric) else -1
    return max(values, key=lambda policy: sign * values[policy]), values  # of equals, the first


def _shared(run: Predict, cuts: dict[str, Rows]) -> dict[str, FloatArray]:
    """Return logits of each policy's rows; a row that several have is answered once."""
    places: dict[bytes, int] = {}
    unique: list[Ids] = []
    where: dict[str, list[int]] = {}
    for policy, rows in cuts.items():
        where[policy] = []
        for ids in rows.ids:
            place = places.setdefault(ids.tobytes(), len(unique))
            if place == len(unique):
                unique.append(ids)
            where[policy].append(place)
    logits = run(unique)
    return {policy: logits[found] for policy, found in where.items()}


@dataclass(frozen=True)
class Parity:
    """How far a form of a model is from fp32 on the same texts.

    Attributes:
        texts: how many.
        agreement: share of texts (multi-label: of labels of texts) with the same decision.
        shift_mean: mean absolute difference of a probability.
        shift_99: 99 % of texts have no larger difference.
        shift_max: the largest difference.
        alone: the largest difference between the form's answer to a text alone and among others.
    """

    texts: int
    agreement: float
    shift_mean: float
    shift_99: float
    shift_max: float
    alone: float

    def within(self, agreement: float, shift: float, alone: float) -> bool:
        """Tell whether the form may stand for fp32."""
        return self.agreement >= agreement and self.shift_99 <= shift and self.alone <= alone


def parity(exact: FloatArray, run: Predict, reader: Reader, rows: Rows, task: Task) -> Parity:
    """Compare a form with fp32, in batches and alone.

    Args:
        exact: probabilities of fp32, `(n, k)`, `n` at least 1.
        run: gives logits of the form.
        reader: how texts are read.
        rows: what is read of the texts.
        task: what kind of answer is given.
    """
    p = reader.probabilities(run(rows.ids), rows, task)
    shift = np.abs(p - exact)
    alone = 0.0
    for text in range(min(_ALONE, rows.n)):
        own = [rows.ids[row] for row in np.flatnonzero(rows.owners == text)]
        logits = np.vstack([run([ids]) for ids in own])
        one = Rows(own, np.zeros(len(own), np.int64), 1)
        alone = max(alone, float(np.abs(reader.probabilities(logits, one, task)[0] - p[text]).max()))
    return Parity(
        texts=rows.n,
        agreement=float((decided(p, task) == decided(exact, task)).mean()),
        shift_mean=float(shift.mean()),
        shift_99=float(np.quantile(shift.max(axis=1), _QUANTILE)),
        shift_max=float(shift.max()),
        alone=alone,
    )
