"""One way of doing the film-genre recipe, in a process of its own, for `recipe`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from benchmarks.datasets import linear_candidates, project_of, read
from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.types import Task

__all__ = ["main"]

Probabilities = NDArray[Any]
FitAndPredict = Callable[[list[str], NDArray[Any], list[str]], Probabilities]
FAITHFUL: dict[str, Any] = {
    "tf": "count",
    "scale": "joined",
    "alpha": 1.0,
    "stack": "probabilities",
    "stack_labels": "own",
    "C": 1.0,
    "tokens": "long_words",
    "surface": False,
}
WORDS: dict[str, Any] = {"words": (1, 1), "label_mixing": False}


def main(who: str) -> dict[str, Any]:
    """Fit and predict in one of five ways: `dense`, `recipe`, `nb_stack`, `words` or `linear`."""
    project = project_of("movies")
    data = read(project)
    prepare = Cleaner(["case", {"stem": "porter"}])
    texts = Cleaner(project.clean).then(prepare).many(data.texts)
    if who == "linear":
        candidate = list(linear_candidates(project))[-1]
        texts = Cleaner(project.clean).then(Cleaner(candidate.prepare)).many(data.texts)
        fit_and_predict = _family("linear", data.labels, candidate.params)
    elif who == "words":
        fit_and_predict = _family("linear", data.labels, WORDS)
    elif who == "dense":
        fit_and_predict = _dense
    else:
        fit_and_predict = _family("nb_stack", data.labels, FAITHFUL if who == "recipe" else {})
    rows = train_test_split(np.arange(len(texts)), test_size=0.2, random_state=0)
    train, test = ([texts[row] for row in part] for part in rows)
    before_mb = _peak_mb()
    start = time.perf_counter()
    probabilities = fit_and_predict(train, data.targets[rows[0]], test)
    seconds = time.perf_counter() - start
    truth = data.targets[rows[1]]
    both = [j for j in range(truth.shape[1]) if 0 < truth[:, j].sum() < len(truth)]
    auc = float(np.mean([roc_auc_score(truth[:, j], probabilities[:, j]) for j in both]))
    return {"fit_s": seconds, "auc": auc, "grown_mb": _peak_mb() - before_mb, "labels": len(both)}


def _family(name: str, labels: tuple[str, ...], params: dict[str, Any]) -> FitAndPredict:
    def fit_and_predict(train: list[str], targets: NDArray[Any], test: list[str]) -> Probabilities:
        family: Any = classifier_class(name)
        found: Probabilities = (
            family(labels, Task.MULTI_LABEL, seed=0, **params).fit(train, targets).predict_proba(test)
        )
        return found

    return fit_and_predict


def _dense(train: list[str], targets: NDArray[Any], test: list[str]) -> Probabilities:
    from sklearn.ensemble import StackingClassifier
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import ComplementNB, MultinomialNB
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer, Normalizer

    vectors = make_union(CountVectorizer(max_features=10_000), TfidfVectorizer(max_features=10_000))
    stack = StackingClassifier([("multinomial", MultinomialNB()), ("complement", ComplementNB())], LogisticRegression())
    made_dense = FunctionTransformer(lambda x: x.toarray(), accept_sparse=True)
    pipeline = make_pipeline(vectors, made_dense, Normalizer(), OneVsRestClassifier(stack))
    found: Probabilities = pipeline.fit(train, targets).predict_proba(test)
    return found


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
