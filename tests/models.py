"""Small real models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tamiz.classifiers import classifier_class
from tamiz.classifiers.checks import examples
from tamiz.cleaning import DEFAULT_STEPS, Cleaner
from tamiz.decision import Calibrator, fit_calibrator, fit_rule
from tamiz.model import Model, new_manifest
from tamiz.rankings import sequence_answer
from tamiz.types import Task

__all__ = ["answers_for_labels", "linear_model", "model_of"]


def answers_for_labels(model: Model, texts: Sequence[str], labels: Sequence[str], **about: Any) -> list[dict[str, Any]]:
    """Answer texts for labels of the moment, in the shape of zero-shot pipelines."""
    asked = model.with_labels(labels, **about)
    rows = zip(texts, asked.predict_proba(texts), strict=True)
    return [sequence_answer(text, asked.labels, row) for text, row in rows]


def model_of(
    family: str,
    task: Task = Task.BINARY,
    *,
    name: str = "topics",
    text_column: str = "text",
    prepare: tuple[Any, ...] = ("case",),
    calibrate: str = "none",
    abstain_below: float | None = None,
    **params: Any,
) -> Model:
    """Train a model of three topics on ninety short texts."""
    texts, targets, labels = examples(task)
    clean, steps = Cleaner(DEFAULT_STEPS), Cleaner(prepare)
    cls: Any = classifier_class(family)
    classifier = cls(labels, task, **params).fit(steps.many(clean.many(texts)), targets)
    raw = classifier.predict_proba(texts)
    calibrator: Calibrator = fit_calibrator(calibrate, raw, targets, task, seed=0)  # type: ignore[arg-type]
    positive = len(labels) - 1
    rule = fit_rule("default", raw, targets, task, positive=positive, abstain_below=abstain_below)
    manifest = new_manifest(
        name=name,
        task=task,
        labels=labels,
        positive=labels[positive] if task is Task.BINARY else None,
        text_column=text_column,
        clean=list(clean.steps),
        prepare=list(steps.steps),
        family=family,
        candidate=family,
    )
    return Model(name, classifier, clean, steps, calibrator, rule, manifest)


def linear_model(task: Task = Task.BINARY, **about: Any) -> Model:
    """Train a linear model of three topics."""
    return model_of("linear", task, **about)
