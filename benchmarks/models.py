"""A model of complaints, put together as a run does it, without lake and store."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.datasets import linear_candidates, project_of, read
from tamiz.classifiers import check_params, classifier_class
from tamiz.cleaning import Cleaner
from tamiz.decision import fit_calibrator, fit_rule
from tamiz.model import Model, new_manifest

__all__ = ["Fitted", "complaints_model"]


class Fitted(NamedTuple):
    """A fitted model with what it learnt from.

    Attributes:
        model: the model.
        texts: the raw texts that its classifier learnt from.
        targets: their labels' numbers.
        others: raw texts that it has not seen.
    """

    model: Model
    texts: list[str]
    targets: np.ndarray[Any, Any]
    others: list[str]


def complaints_model(*, defaults: bool = False) -> Fitted:
    """Fit the last `linear` candidate of the complaints example on nine tenths, calibrate it on the other tenth.

    Args:
        defaults: take the family's defaults, words and pairs of words, in place of the example's parameters.
    """
    project = project_of("complaints")
    candidate = list(linear_candidates(project))[-1]
    if defaults:
        candidate = candidate.model_copy(update={"params": {}, "prepare": []})
    data = read(project)
    rows = np.arange(len(data.texts))
    train, held = (
        part.tolist() for part in train_test_split(rows, test_size=0.1, stratify=data.targets, random_state=0)
    )
    texts, others = [data.texts[row] for row in train], [data.texts[row] for row in held]
    clean, prepare = Cleaner(project.clean), Cleaner(candidate.prepare)
    both = clean.then(prepare)
    family: Any = classifier_class(candidate.family)
    classifier = family(data.labels, project.task, seed=0, **candidate.params)
    classifier.fit(both.many(texts), data.targets[train])
    raw = classifier.predict_proba(both.many(others))
    calibrator = fit_calibrator(candidate.calibrate, raw, data.targets[held], project.task)
    rule = fit_rule(candidate.thresholds, calibrator.apply(raw), data.targets[held], project.task)
    manifest = new_manifest(
        name=project.name,
        task=project.task,
        labels=data.labels,
        positive=None,
        text_column=project.data.text,
        clean=list(clean.steps),
        prepare=list(prepare.steps),
        family=candidate.family,
        candidate=candidate.title,
        params=check_params(candidate.family, candidate.params),
        data={},
    )
    model = Model(project.name, classifier, clean, prepare, calibrator, rule, manifest)
    return Fitted(model, texts, data.targets[train], others)
