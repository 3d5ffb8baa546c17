"""Counts, TF-IDF and surface features of a text side by side, none negative, as naive Bayes needs them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamiz.classifiers import base
from tamiz.classifiers.features import Lengths, Row, sparse, spread_parts
from tamiz.classifiers.ngrams import Counts, NgramIndex, WordSequences, chunks
from tamiz.types import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SURFACE", "BayesFeatureParams", "BayesFeatures", "surface"]

SURFACE = ("length", "word_length", "upper", "digits", "marks", "line_breaks")
"""Names of the surface features, in order."""

_TINY = 1e-300


class BayesFeatureParams(base.Params):
    """What decides the features of naive Bayes."""

    words: Lengths = (1, 1)
    """Shortest and longest word n-gram."""
    tokens: Literal["words", "long_words", "words_and_marks"] = "words"
    """What a word is: letters and digits; the same, at least two; or letters and digits with apostrophes inside, and
    each other mark by itself."""
    min_df: Annotated[int, Field(ge=1)] = 1
    """N-grams in fewer texts are left out."""
    count_features: Annotated[int, Field(ge=0)] | None = 10_000
    """Counts of only so many n-grams, the most widespread; `null` for all, 0 for no counts."""
    tfidf_features: Annotated[int, Field(ge=0)] | None = 10_000
    """TF-IDF values of only so many n-grams, the most widespread; `null` for all, 0 for no such values."""
    surface: bool = True
    """Add the dictionary features: length, mean word length, and shares of capitals, digits, marks and line breaks."""
    tf: Literal["log", "count"] = "log"
    """How counts enter both blocks: 1 + log(count), or as they are."""
    scale: Literal["blocks", "joined"] = "blocks"
    """`joined` scales only TF-IDF values and then the whole row to length one, so the counts outweigh them; `blocks`
    scales the counts by themselves as well before that."""

    @model_validator(mode="after")
    def _some_features(self) -> Self:
        if self.count_features == 0 and self.tfidf_features == 0:
            raise ValueError("count_features and tfidf_features are both 0; one of them must be more")
        if self.words[0] > self.words[1]:
            raise ValueError("n-gram lengths go from shortest to longest")
        return self


def surface(text: str) -> FloatArray:
    """Return the surface features of a text, float64 `(len(SURFACE),)`, each about 0 to 1."""
    n = max(len(text), 1)
    words = text.split()
    upper, digits = sum(map(str.isupper, text)), sum(map(str.isdigit, text))
    # Most characters are letters or spaces: only the others are worth a look into the Unicode table.
    marks = sum(unicodedata.category(c)[0] in "PS" for c in text if not (c.isalnum() or c.isspace()))
    word_length = (len(text) - text.count(" ")) / max(len(words), 1)
    logs = np.log1p([len(text), word_length]) / 10.0
    return np.array([*logs, upper / n, digits / n, marks / n, text.count("\n") / n])


class BayesFeatures:
    """Counts, then TF-IDF values, then surface features; every row has length one.

    The IDF is `log((1 + n) / (1 + df)) + 1`.

    Args:
        options: what decides the features.
    """

    def __init__(self, options: BayesFeatureParams) -> None:
        self._options = options
        self._index = NgramIndex(WordSequences(options.tokens, options.words[1] - 1), options.words)
        self._idf: FloatArray = np.empty(0)
        self._columns = np.full((2, 0), -1, np.int64)  # of each n-gram's count and TF-IDF value, -1 where left out

    kinds = 1  # words alone

    @property
    def ngrams(self) -> int:
        """Number of columns of n-grams; surface features come after them."""
        return int((self._columns >= 0).sum())

    def __len__(self) -> int:
        return self.ngrams + (len(SURFACE) if self._options.surface else 0)

    def fit_values(self, texts: Sequence[str], told: Callable[[int], None]) -> csr_matrix:
        """Choose features and return their values in `texts`, `(n, features)`.

        `told` is called with numbers of texts, twice in all.
        """
        limits = (self._options.count_features, self._options.tfidf_features)
        limit = None if None in limits else max(x for x in limits if x is not None)
        counted = self._index.fit_count(texts, min_df=self._options.min_df, max_features=limit, told=told)
        rows: list[Row] = []
        for chunk, counts in zip(chunks(texts), counted, strict=False):
            if not rows:
                self._idf = np.log((1.0 + len(texts)) / (1.0 + self._index.frequencies)) + 1.0
                self._columns = _columns(self._index.frequencies, limits)
            rows.extend(self._rows(chunk, counts))
        for _ in counted:  # `zip` stops before the generator has ended
            pass
        sequences = self._index.sequences
        if isinstance(sequences, WordSequences):
            used, ngrams = sequences.used_by(self._index.ngrams)
            self._index = NgramIndex(used, self._options.words, ngrams)
        return sparse(rows, len(self))

    def rows(self, texts: Sequence[str]) -> Iterator[Row]:
        """Yield the features of each text."""
        for chunk in chunks(texts):
            yield from self._rows(chunk, self._index.count(chunk))

    def _rows(self, texts: Sequence[str], counts: Counts) -> Iterator[Row]:
        counted, weighted = self._columns
        for text, (start, end) in zip(texts, pairwise(counts.indptr.tolist()), strict=True):
            features, values = counts.indices[start:end], counts.values[start:end].astype(np.float64)
            if self._options.tf == "log":
                values = 1.0 + np.log(values)
            tfidf = np.where(weighted[features] >= 0, values * self._idf[features], 0.0)
            values = np.where(counted[features] >= 0, values, 0.0)
            if self._options.scale == "blocks":
                values = _scaled(values)
            columns = np.concatenate([counted[features], weighted[features]])
            joined = np.concatenate([values, _scaled(tfidf)])
            kept = columns >= 0
            columns, joined = columns[kept], joined[kept]
            if self._options.surface:
                columns = np.concatenate([columns, self.ngrams + np.arange(len(SURFACE))])
                joined = np.concatenate([joined, surface(text)])
            yield Row(columns, _scaled(joined))

    def spread(self, text: str, parts: FloatArray) -> FloatArray:
        """Share what each n-gram gives out among the characters of its occurrences in a text.

        Args:
            text: the text.
            parts: what each column of n-grams gives, `(ngrams,)`.

        Returns:
            One value a character of `text`.
        """
        padded = np.append(parts, 0.0)  # column -1
        given = padded[self._columns].sum(axis=0)
        per_character = np.zeros(len(text) + 1)
        spread_parts(per_character, text, self._index, {int(j): float(given[j]) for j in np.flatnonzero(given)})
        return per_character[:-1]

    def save(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Write the words into `folder` and return the arrays that `load` needs."""
        sequences = self._index.sequences
        if isinstance(sequences, WordSequences):
            sequences.save(folder)
        return {"ngrams": self._index.ngrams.astype(np.int32), "idf": self._idf, "columns": self._columns}

    @classmethod
    def load(cls, options: BayesFeatureParams, folder: Path, arrays: dict[str, NDArray[Any]]) -> BayesFeatures:
        """Read what `save` gave.

        Raises:
            KeyError: an array is missing.
            OSError: the file of words is missing.
        """
        made = cls(options)
        sequences = WordSequences.load(options.tokens, options.words[1] - 1, folder)
        made._index = NgramIndex(sequences, options.words, arrays["ngrams"].astype(np.int64))
        made._idf, made._columns = arrays["idf"], arrays["columns"]
        return made


def _scaled(values: FloatArray) -> FloatArray:
    return np.asarray(values / np.sqrt(max(float(np.dot(values, values)), _TINY)))


def _columns(frequencies: IntArray, limits: Sequence[int | None]) -> IntArray:
    """Number the columns of both blocks: in each, the most widespread n-grams up to its limit."""
    order = np.argsort(-frequencies, kind="stable")
    columns = np.full((2, len(frequencies)), -1, np.int64)
    first = 0
    for row, limit in zip(columns, limits, strict=True):
        kept = np.sort(order[:limit])
        row[kept] = first + np.arange(len(kept))
        first += len(kept)
    return columns
