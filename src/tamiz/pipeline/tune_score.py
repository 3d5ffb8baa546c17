"""How good one set of parameters is: fitted on parts of the training side, scored on examples no fit has seen.

Without folds a trial is fitted on growing parts of the training side and scored on validation each time; with folds it
is fitted on all folds but one and scored on that one, in turn. After each part it may be given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.data.near_duplicates import clusters
from tamiz.decision import check_decision, cross_fitted, fit_decision
from tamiz.errors import DataError, one_of
from tamiz.metrics import score
from tamiz.pipeline.evaluate import figures_of
from tamiz.pipeline.evidence import Answers
from tamiz.pipeline.train import fit_classifier, positive_index
from tamiz.types import IntArray, Progress

__all__ = ["Bench", "PrunedError", "Scored", "bench_of"]

_FEWEST = 200  # texts of a part of the training side; fewer say little


class PrunedError(Exception):
    """A trial is given up."""


class Scored(NamedTuple):
    """What a trial came to.

    Attributes:
        value: the metric; with folds, its mean over them.
        metrics: all validation figures, with folds their means.
        answers: probabilities and decisions of the examples that were scored, folds one after the other.
        targets: of these examples.
        seconds: that all fits took.
    """

    value: float
    metrics: dict[str, float]
    answers: Answers
    targets: NDArray[Any]
    seconds: float


class _Part(NamedTuple):
    """One fit of a trial: its step, and the places of its examples (`None`: all) to learn from and to score."""

    step: int
    learn: IntArray | None
    held: IntArray | None


@dataclass(frozen=True)
class Bench:
    """What all trials of a study share.

    Attributes:
        project: the project.
        labels: labels in order.
        metric: a `val_` metric.
        train: the training side.
        validation: what is scored without folds.
        folds: fold of each training example, if there are folds.
        steps: what an Optuna pruner calls the parts: per cent of the training side, or the number of the fold.
    """

    project: Project
    labels: tuple[str, ...]
    metric: str
    train: Examples
    validation: Examples
    folds: IntArray | None

    @property
    def kind(self) -> dict[str, Any]:
        """What kind of answer is given: `task`, `labels` and place of the `positive` one."""
        positive = positive_index(self.project, self.labels)
        return {"task": self.project.task, "labels": self.labels, "positive": positive}

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of a trial, in order."""
        return tuple(part.step for part in self._parts())

    def score(
        self,
        config: CandidateConfig,
        *,
        report: Callable[[int, float], None] | None = None,
        progress: Progress | None = None,
    ) -> Scored:
        """Fit and score one candidate.

        Args:
            config: the candidate.
            report: told the metric after each part; it raises `PrunedError` to end the trial. Without it, and without
                folds, the whole training side is the only part.
            progress: told how far a fit has come.

        Raises:
            PrunedError: `report` said so.
            TamizError: the candidate cannot be fitted, or the metric is undefined.
        """
        began = time.perf_counter()
        parts = self._parts()
        found: list[tuple[dict[str, float], Answers, NDArray[Any]]] = []
        for part in parts if report or self.folds is not None else parts[-1:]:
            one = self._scored(config, part, progress)
            found = [*found, one] if self.folds is not None else [one]
            if report:
                report(part.step, float(np.mean([metrics[self.metric] for metrics, _, _ in found])))
        metrics = {name: float(np.mean([m[name] for m, _, _ in found if name in m])) for name in found[0][0]}
        answers = Answers(*(np.concatenate([a[i] for _, a, _ in found]) for i in range(2)))
        targets = np.concatenate([targets for _, _, targets in found])
        if self.folds is not None:  # of all answers together, as trials are compared; a mean is another figure
            together = score(targets, *answers, **self.kind)
            metrics |= {f"val_{name}": value for name, value in together.items()}
        return Scored(metrics[self.metric], metrics, answers, targets, time.perf_counter() - began)

    def _parts(self) -> list[_Part]:
        if self.folds is not None:
            return [
                _Part(fold + 1, np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold))
                for fold in range(int(self.folds.max()) + 1)
            ]
        n = len(self.train.texts)
        order = np.random.default_rng(self.project.split.seed).permutation(n)
        sizes = {max(1, round(100 * share)): round(share * n) for share in self.project.tune.rungs}
        small = [_Part(step, np.sort(order[:size]), None) for step, size in sizes.items() if size >= _FEWEST]
        return [*small, _Part(100, None, None)]

    def _scored(
        self, config: CandidateConfig, part: _Part, progress: Progress | None
    ) -> tuple[dict[str, float], Answers, NDArray[Any]]:
        learn = self.train if part.learn is None else self.train.take(part.learn)
        held = self.validation if part.held is None else self.train.take(part.held)
        seed, about = self.project.split.seed, self.kind
        check_decision(config, **about)
        classifier, _ = fit_classifier(
            config, self.labels, self.project.task, learn, held, seed=seed, progress=progress
        )
        raw = classifier.predict_proba(Cleaner(config.prepare).many(held.texts))
        calibrator, rule = fit_decision(config, raw, held.targets, **about, seed=seed)
        answered = cross_fitted(calibrator, rule, raw, held.targets, self.labels)
        metrics = figures_of(answered, held.targets, rule, self.labels, prefix="val_")
        if not np.isfinite(metrics.get(self.metric, np.nan)):
            raise DataError(f"tune.metric: {self.metric} is undefined here; {one_of(self.metric, metrics)}")
        return metrics, Answers(answered.probabilities, answered.decided), held.targets


def bench_of(project: Project, labels: Sequence[str], metric: str, *, train: Examples, validation: Examples) -> Bench:
    """Return the bench for a project's trials.

    Args:
        project: the project; `tune.folds` decides whether there are folds.
        labels: labels in order.
        metric: a `val_` metric.
        train: the training side, with the column `group` where there are folds.
        validation: the validation side.

    Raises:
        DataError: there are fewer groups of texts than folds.
    """
    folds = None if project.tune.folds is None else _folds(project, train, project.tune.folds)
    return Bench(project, tuple(labels), metric, train, validation, folds)


def _folds(project: Project, train: Examples, count: int) -> IntArray:
    """Return the fold of each example `(n,)`; a group, or near-duplicates, stay in one."""
    n = len(train.texts)
    near = clusters(train.texts) if project.split.near_duplicates else np.arange(n)
    keys = [
        f"near {cluster}" if group is None else f"group {group}"
        for cluster, group in zip(near.tolist(), train.columns["group"], strict=True)
    ]
    units, unit = np.unique(np.array(keys), return_inverse=True)
    if len(units) < count:
        raise DataError(f"tune.folds: {len(units)} groups of texts cannot be divided into {count} folds; take fewer")
    fold_of = np.empty(len(units), np.int64)
    fold_of[np.random.default_rng(project.split.seed).permutation(len(units))] = np.arange(len(units)) % count
    return fold_of[unit]
