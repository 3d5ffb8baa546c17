"""The peers: what a practitioner would write with scikit-learn in five lines, at settings that do well here."""

from __future__ import annotations

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

__all__ = ["BIGRAMS", "ONE_VS_REST", "WORDS", "bigrams", "one_vs_rest", "words"]

BIGRAMS = "TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2) + LogisticRegression(C=4), raw texts"
WORDS = "TfidfVectorizer(sublinear_tf=True, min_df=2) + LogisticRegression(), raw texts"
ONE_VS_REST = (
    "TfidfVectorizer(sublinear_tf=True, min_df=2) + a LogisticRegression(class_weight='balanced') a label, raw texts"
)


def bigrams() -> Pipeline:
    """Words and pairs of words."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(vectorizer, LogisticRegression(C=4, max_iter=1000))


def words() -> Pipeline:
    """Words."""
    return make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(max_iter=1000))


def one_vs_rest() -> Pipeline:
    """Words, one regression a label."""
    regression = LogisticRegression(class_weight="balanced", solver="liblinear", max_iter=1000)
    return make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), OneVsRestClassifier(regression))
