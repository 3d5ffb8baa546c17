"""The names of metrics: what each means and whether higher is better."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tamiz.errors import ConfigError, one_of

__all__ = ["METRICS", "base_name", "figure_of", "higher_is_better"]

METRICS: dict[str, str] = {
    "accuracy": "Share of examples with the right label; an abstention is wrong (binary, multi-class).",
    "f1_macro": "Mean over labels of F1, the harmonic mean of precision and recall.",
    "f1_micro": "F1 of all decisions counted together.",
    "f1_weighted": "Mean over labels of F1, weighted by how often each label is true.",
    "f1_positive": "F1 of the positive label (binary).",
    "precision_macro": "Mean over labels of the share of a label's decisions that are right.",
    "precision_micro": "Share of all decided labels that are right.",
    "precision_weighted": "Mean over labels of precision, weighted by how often each label is true.",
    "precision_positive": "Precision of the positive label (binary).",
    "recall_macro": "Mean over labels of the share of a label's examples that are found.",
    "recall_micro": "Share of all true labels that are found.",
    "recall_weighted": "Mean over labels of recall, weighted by how often each label is true.",
    "recall_positive": "Recall of the positive label (binary).",
    "roc_auc_macro": "Mean over labels (binary: the positive label) of the chance that an example with the label "
    "scores above one without.",
    "average_precision_macro": "Mean over labels (binary: the positive label) of precision averaged over recall.",
    "log_loss": "Mean negative log-likelihood of the truth, in nats (multi-label: per example and label).",
    "brier": "Mean squared error of probabilities: of the positive label (binary), summed over labels (multi-class) or "
    "averaged over labels (multi-label).",
    "ece": "Expected calibration error: mean distance between confidence and accuracy over 15 bins of equal width.",
    "subset_accuracy": "Share of examples whose set of labels is exactly right (multi-label).",
    "hamming_loss": "Share of wrong decisions among all examples and labels (multi-label).",
    "coverage": "Share of examples that get an answer (only where the rule abstained).",
    "selective_accuracy": "Accuracy over the examples that get an answer (only where the rule abstained).",
    "set_coverage": "Share of true labels that are in the prediction set (only with `conformal`).",
    "set_size": "Mean number of labels in the prediction set (only with `conformal`).",
}
"""What `score` may give, by key without the prefix `val_` or `test_`, in its order."""

_LOWER = frozenset({"log_loss", "brier", "ece", "hamming_loss", "set_size"})
_OPERATIONS: dict[str, bool] = {
    "latency_mean_ms": False,
    "latency_p50_ms": False,
    "latency_p90_ms": False,
    "latency_p95_ms": False,
    "latency_p99_ms": False,
    "size_mb": False,
    "size_bytes": False,
    "fit_seconds": False,
    "texts_per_s": True,
}
_HIGHER = {**{name: name not in _LOWER for name in METRICS}, **_OPERATIONS, "best_val_f1": True}
_PREFIX = re.compile(r"^(?:best_)?(?:val|test)_")


def base_name(metric: str) -> str:
    """Return the key without `val_`, `test_` or `best_val_` before it.

    Example:
        >>> base_name("val_f1_macro")
        'f1_macro'
    """
    return _PREFIX.sub("", metric)


def figure_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """Return a figure, `None` where it was not measured; who never abstains has a coverage of 1.

    Args:
        metrics: figures by name.
        metric: the name, with its prefix.

    Example:
        >>> figure_of({"val_accuracy": 0.9}, "val_coverage"), figure_of({"val_accuracy": 0.9}, "val_selective_accuracy")
        (1.0, 0.9)
    """
    base = base_name(metric)
    answered = metrics.get(metric.removesuffix(base) + "accuracy")
    if metric in metrics or answered is None:
        return metrics.get(metric)
    return {"coverage": 1.0, "selective_accuracy": answered}.get(base)


def higher_is_better(metric: str) -> bool:
    """Say whether a higher value of the metric is better; prefixes `val_`, `test_` do not matter.

    Raises:
        ConfigError: the metric is unknown; the message has the nearest spelling.

    Example:
        >>> higher_is_better("val_f1_macro"), higher_is_better("latency_p99_ms")
        (True, False)
    """
    for name in (metric, base_name(metric)):
        if name in _HIGHER:
            return _HIGHER[name]
    prefix = metric[: len(metric) - len(base_name(metric))]
    known = [f"{prefix if name in METRICS else ''}{name}" for name in _HIGHER]
    raise ConfigError(f"metric {metric!r} is unknown; {one_of(metric, known, limit=40)}")
