"""The peers: what a practitioner would write with scikit-learn in five lines."""

from __future__ import annotations

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

__all__ = ["bigrams", "one_vs_rest", "plain"]


def bigrams() -> Pipeline:
    """Words and pairs of words with logarithmic counts."""
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(max_iter=1000)
    )


def plain() -> Pipeline:
    """Words, all defaults."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))


def one_vs_rest() -> Pipeline:
    """Words, one regression a label."""
    return make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression(max_iter=1000)))
