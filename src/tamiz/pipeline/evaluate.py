"""Measure a model as it is served: on raw texts, through cleaning, classifier, calibration and rule."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.decision import Answered, DecisionRule, answered, cross_fitted
from tamiz.metrics import bootstrap, confusion, score, score_sets
from tamiz.model import Model
from tamiz.types import FloatArray, IntArray, Task

__all__ = ["Evaluation", "confusion_table", "evaluate", "figures_of", "speed", "validation_answers"]

_TIMED_TEXTS = 200
_MANY_LABELS = 200  # of whose pairs nearly all are empty
_RESAMPLES = 1000


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on one side of the split.

    Attributes:
        metrics: figure of each metric, with the side's prefix (`val_`, `test_`).
        intervals: 95 % interval of those that have one.
        confusion: `(k, k)`, rows the true label; multi-label `(k, 2, 2)`.
        probabilities: calibrated, `(n, k)`.
        decided: what the rule made of them.
        raw: probabilities before calibration, `(n, k)`.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confusion: IntArray
    probabilities: FloatArray
    decided: NDArray[Any]
    raw: FloatArray


def evaluate(
    model: Model, texts: Sequence[str], targets: NDArray[Any], *, prefix: str, seed: int = 0, learnt: bool = False
) -> Evaluation:
    """Score a model on raw texts.

    Args:
        model: the model as it will be served.
        texts: raw texts, `n` of them.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
        prefix: `val_` or `test_`.
        seed: of the bootstrap.
        learnt: whether calibration and rule were fitted on these very examples; the answers are then cross-fitted.
    """
    raw = model.uncalibrated_proba(texts)
    found = validation_answers(model, raw, targets) if learnt else answered(model.calibrator, model.rule, raw)
    about = _about(model.rule, model.labels)
    intervals = bootstrap(targets, found.probabilities, found.decided, **about, resamples=_RESAMPLES, seed=seed)
    return Evaluation(
        figures_of(found, targets, model.rule, model.labels, prefix=prefix),
        {prefix + name: bounds for name, bounds in intervals.items()},
        confusion(targets, found.decided, len(model.labels)),
        found.probabilities,
        found.decided,
        raw,
    )


def validation_answers(model: Model, raw: FloatArray, targets: NDArray[Any]) -> Answered:
    """Return cross-fitted answers for the validation side, which the model's calibration and rule were fitted on.

    Args:
        model: the model.
        raw: probabilities before calibration, `(n, k)`.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
    """
    return cross_fitted(model.calibrator, model.rule, raw, targets, model.labels)


def figures_of(
    found: Answered, targets: NDArray[Any], rule: DecisionRule, labels: tuple[str, ...], *, prefix: str
) -> dict[str, float]:
    """Score the answers that a rule gave, without intervals."""
    figures = score(targets, found.probabilities, found.decided, **_about(rule, labels))
    if found.sets is not None:
        figures |= score_sets(targets, found.sets)
    return {prefix + name: value for name, value in figures.items()}


def _about(rule: DecisionRule, labels: tuple[str, ...]) -> dict[str, Any]:
    return {"task": rule.task, "labels": labels, "positive": rule.positive}


def speed(model: Model, texts: Sequence[str]) -> dict[str, float]:
    """Measure latency of single texts, throughput and size on disk.

    Returns:
        `latency_p50_ms` and `latency_p99_ms` of one text at a time, `texts_per_s` in one batch, `size_mb` (10^6 bytes).
    """
    texts = list(texts[:_TIMED_TEXTS]) or ["a"]
    model.predict(texts[:1])  # first calls import and fill caches
    seconds = []
    for text in texts:
        start = time.perf_counter()
        model.predict([text])
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    model.predict(texts)
    batch_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = model.save(Path(folder) / "package").size_bytes
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "texts_per_s": len(texts) / max(batch_s, 1e-9),
        "size_mb": size_bytes / 1e6,
    }


def confusion_table(evaluation: Evaluation, labels: Sequence[str], task: Task) -> list[dict[str, Any]]:
    """Return the confusion matrix as records of true label, decided label and count.

    For multi-label tasks, of label, truth, answer and count. With very many labels the cells without an example, nearly
    all, are left out.
    """
    if task is Task.MULTI_LABEL:
        return [
            {"label": label, "truth": bool(t), "answer": bool(a), "count": int(evaluation.confusion[j, t, a])}
            for j, label in enumerate(labels)
            for t in (0, 1)
            for a in (0, 1)
        ]
    cells = np.ones((len(labels), len(labels)), np.bool_) if len(labels) <= _MANY_LABELS else evaluation.confusion > 0
    cells[0, 0] = True  # never without a row
    return [
        {"label": labels[i], "decided": labels[j], "count": int(evaluation.confusion[i, j])}
        for i, j in np.argwhere(cells).tolist()
    ]
