"""A model of complaints, put together as a run does it, without lake and store."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.datasets import linear_candidates, project_of, read
from tamiz.cleaning import Cleaner
from tamiz.data.gold import Examples
from tamiz.model import Model
from tamiz.pipeline.train import assemble, fit_classifier

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
    sides = [
        Examples(raw, Cleaner(project.clean).many(raw), data.targets[part], [], {})
        for raw, part in ((texts, train), (others, held))
    ]
    classifier, _ = fit_classifier(candidate, data.labels, project.task, sides[0], None, seed=project.split.seed)
    model = assemble(project, candidate, classifier, sides[1], {})
    return Fitted(model, texts, data.targets[train], others)
