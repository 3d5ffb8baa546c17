"""Megabytes a second from texts to weighted n-grams, beside scikit-learn's vectoriser with the same n-grams."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from benchmarks.datasets import project_of, read
from benchmarks.record import Figure, Goal, Outcome, say
from benchmarks.running import interleaved
from tamiz.classifiers.features import NgramFeatures, Row
from tamiz.classifiers.linear import LinearClassifier
from tamiz.classifiers.ngrams import chunks
from tamiz.cleaning import Cleaner

__all__ = ["measure"]

_PEER = "TfidfVectorizer, same n-grams, min_df=2, sublinear_tf=True"
_AT_LEAST_TWICE = Goal(">=", 2, ratio=True)
_SINGLE_TEXTS = 400


class _Kind(NamedTuple):
    name: str
    rows: int
    repeats: int
    ours: dict[str, Any]
    theirs: dict[str, Any]


_KINDS = (
    _Kind(
        "words 1-2",
        18_000,
        3,
        {"words": (1, 2), "characters": None},
        {"ngram_range": (1, 2), "token_pattern": r"\w+"},
    ),
    _Kind(
        "characters 3-5",
        5_000,
        3,
        {"words": None, "characters": (3, 5)},
        {"ngram_range": (3, 5), "analyzer": "char_wb"},
    ),
)


def measure(options: dict[str, Any]) -> Outcome:
    """Time fit + transform, transform alone and single texts, and compare the features."""
    project = project_of("complaints")
    texts = [text.lower() for text in Cleaner(project.clean).many(read(project).texts)]
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for kind in _KINDS:
        chosen = texts[: kind.rows]
        say(f"{kind.name}: {len(chosen):,} complaints, {_megabytes(chosen):.1f} MB")
        details[kind.name] = {"texts": len(chosen), "megabytes": _megabytes(chosen), **_same_features(kind, chosen)}
        figures += _timed(kind, chosen)
    return Outcome(figures, details)


def _megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def new_features(ours: dict[str, Any], **params: Any) -> NgramFeatures:
    """Return the unfitted vectoriser of a linear classifier."""
    params = {"tokens": "words", "min_df": 2, "characters_min_df": 2, **ours, **params}
    return NgramFeatures(LinearClassifier.Params(**params))


def fit(features: NgramFeatures, texts: list[str]) -> csr_matrix:
    """Fit the vectoriser and return the values of the texts, as a fit of the classifier does."""
    return features.fit_values(texts, lambda texts: None)


def transform(features: NgramFeatures, texts: list[str]) -> list[Row]:
    """Return the values of texts, as `predict_proba` makes them."""
    return [row for chunk in chunks(texts) for row in features.rows(chunk)]


def _vectorizer(kind: _Kind) -> TfidfVectorizer:
    return TfidfVectorizer(lowercase=False, min_df=2, sublinear_tf=True, **kind.theirs)


def _timed(kind: _Kind, texts: list[str]) -> list[Figure]:
    size = _megabytes(texts)
    features = new_features(kind.ours)
    fit(features, texts)
    vectorizer = _vectorizer(kind).fit(texts)
    singles = texts[:_SINGLE_TEXTS]
    turns = {
        "fit and transform": (
            lambda: fit(new_features(kind.ours), texts),
            lambda: _vectorizer(kind).fit_transform(texts),
            size,
        ),
        "transform": (lambda: transform(features, texts), lambda: vectorizer.transform(texts), size),
        "one text at a time": (
            lambda: [next(features.rows([text])) for text in singles],
            lambda: [vectorizer.transform([text]) for text in singles],
            _megabytes(singles),
        ),
    }
    figures = []
    for what, (ours, theirs, megabytes) in turns.items():
        seconds = interleaved({"ours": ours, "theirs": theirs}, kind.repeats)
        rates = megabytes / seconds["ours"], megabytes / seconds["theirs"]
        figures.append(Figure(f"{kind.name}: {what}", "MB/s", *rates, _PEER, _AT_LEAST_TWICE))
        say(f"{kind.name}, {what}: {rates[0]:.2f} beside {rates[1]:.2f} MB/s")
    return figures


def _same_features(kind: _Kind, texts: list[str]) -> dict[str, Any]:
    """Count features, entries and occurrences with both; they should be equal, but for keys that collide."""
    ours = fit(new_features(kind.ours, tf="count", idf=False, norm=False), texts)
    theirs = CountVectorizer(lowercase=False, min_df=2, **kind.theirs).fit_transform(texts)
    found = {
        "features": (ours.shape[1], theirs.shape[1]),
        "entries": (int(ours.nnz), int(theirs.nnz)),
        "occurrences": (int(ours.sum()), int(theirs.sum())),
    }
    by_text = (np.asarray(ours.sum(axis=1)).ravel(), np.asarray(theirs.sum(axis=1)).ravel())
    differing = int(np.count_nonzero(by_text[0] != by_text[1]))
    equal = all(a == b for a, b in found.values()) and not differing
    say(f"{kind.name}: {found}; the same: {equal}")
    return {**found, "texts_that_differ": differing, "equal": equal}
