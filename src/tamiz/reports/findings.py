"""Everything that the report of one version says, measured and counted, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.card import SliceFigures
from tamiz.metrics import METRICS
from tamiz.metrics.names import base_name
from tamiz.package import Manifest
from tamiz.reports.mistakes import Mistake
from tamiz.reports.sample import Sample
from tamiz.types import Classifier, TopFeatures

__all__ = ["Contender", "Findings", "Row", "figure_rows", "label_counts", "top_words"]

_MOST_LABELS = 30
_WORDS = 12


class Row(NamedTuple):
    """One figure: its name, value, interval (if any) and meaning."""

    name: str
    value: float
    interval: tuple[float, float] | None
    meaning: str


@dataclass(frozen=True)
class Contender:
    """One candidate or version on a leaderboard.

    Attributes:
        name: what it is called.
        metrics: its figures.
        intervals: 95 % intervals of some.
        version: its version in the store, if it has one.
        note: what else to say, such as why it may not be chosen.
    """

    name: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    version: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """What the report of one version says.

    Attributes:
        manifest: what is recorded of the model.
        version: its version in the store.
        sample: examples with answers; `None` where there is no side that the model has not seen.
        side: side of the split that `sample` is of.
        intervals: 95 % intervals by metric.
        sizes: examples by side.
        counts: examples by side and label.
        slices: figures of parts of `sample`.
        mistakes: the most confident ones of `sample`.
        leaderboard: all candidates, best first.
        metric: metric of choice.
        learning: training examples and figure of refits on parts of the training side.
        words: the strongest words by label.
        ece_by_chance: `ece` that right probabilities would rarely exceed on such a `sample`.
    """

    manifest: Manifest
    version: str
    sample: Sample | None
    side: str
    intervals: Mapping[str, tuple[float, float]]
    sizes: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    slices: Sequence[SliceFigures]
    mistakes: Sequence[Mistake]
    leaderboard: Sequence[Contender]
    metric: str
    learning: Sequence[tuple[int, float]] = ()
    words: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    ece_by_chance: float | None = None


def figure_rows(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], prefix: str) -> list[Row]:
    """Return the figures of one side in the usual order.

    Args:
        metrics: figures by name.
        intervals: their intervals, where there are any.
        prefix: `val_` or `test_`.
    """
    return [
        Row(base_name(name), metrics[name], intervals.get(name), METRICS[base])
        for base in METRICS
        if (name := prefix + base) in metrics
    ]


def label_counts(targets: NDArray[Any], labels: Sequence[str]) -> dict[str, int]:
    """Count the examples of each label; multi-label targets are bool `(n, k)`."""
    several = targets.ndim == 2
    counts = targets.sum(axis=0) if several else np.bincount(targets, minlength=len(labels))
    return dict(zip(labels, counts.astype(int).tolist(), strict=True))


def top_words(classifier: Classifier) -> dict[str, list[tuple[str, float]]]:
    """Return the strongest words of at most 30 labels, if the classifier's family can name them."""
    if not isinstance(classifier, TopFeatures):
        return {}
    shown = enumerate(classifier.labels[:_MOST_LABELS])
    return {label: words for j, label in shown if (words := classifier.top_features(j, _WORDS))}
