"""Logistic regression over TF-IDF of word and character n-grams, served with numpy alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamiz.classifiers import base
from tamiz.classifiers.ngrams import CharSequences, Counts, NgramIndex, WordSequences, chunks
from tamiz.errors import LabelError, PackageError
from tamiz.types import BoolArray, Contribution, Explanation, FloatArray, Progress, Task, Validation

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LinearClassifier"]

Lengths = tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]]


class LinearParams(base.Params):
    """Parameters of the `linear` family."""

    words: Lengths | None = (1, 2)
    """Shortest and longest word n-gram; `null` for none."""
    characters: Lengths | None = None
    """Shortest (at least 2) and longest character n-gram inside words; `null` for none."""
    tokens: Literal["words", "long_words", "words_and_marks"] = "words"
    """What a word is: letters and digits; the same, at least two; or also each punctuation mark by itself."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """N-grams in fewer texts are left out."""
    max_features: Annotated[int, Field(ge=1)] | None = None
    """Keep only so many n-grams of each kind, the most widespread."""
    tf: Literal["log", "binary", "count"] = "log"
    """How counts enter: 1 + log(count), 0 or 1, or as they are."""
    idf: bool = True
    """Weight n-grams by smoothed inverse document frequency."""
    norm: bool = True
    """Scale each text's features to length one (words and characters each for themselves)."""
    nb_weighting: bool | Literal["auto"] = "auto"
    """Scale features by their log-count ratio between a label and the rest (Wang & Manning 2012); `auto`: in binary
    tasks."""
    nb_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Smoothing of the ratio."""
    C: Annotated[float, Field(gt=0)] = 4.0
    """Inverse strength of the L2 penalty."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weights labels by the inverse of their frequency."""
    max_iter: Annotated[int, Field(ge=1)] = 200
    """Most iterations of the solver."""
    tol: Annotated[float, Field(gt=0)] = 1e-4
    """When the solver stops."""

    @model_validator(mode="after")
    def _some_features(self) -> Self:
        if self.words is None and self.characters is None:
            raise ValueError("words and characters are both null; one of them must be given")
        for lengths in (self.words, self.characters):
            if lengths is not None and lengths[0] > lengths[1]:
                raise ValueError("n-gram lengths go from shortest to longest")
        if self.characters is not None and self.characters[0] < 2:
            raise ValueError("character n-grams have at least 2 characters")
        return self


class _Block:
    """The features of one kind of n-gram, with their weights."""

    def __init__(self, index: NgramIndex, params: LinearParams, idf: FloatArray | None = None) -> None:
        self.index = index
        self.idf = np.empty(0) if idf is None else idf
        self._params = params

    def __len__(self) -> int:
        return len(self.index)

    def weigh(self, counts: Counts) -> FloatArray:
        """Turn counts into feature values: term frequency, inverse document frequency, length one."""
        if self._params.tf == "log":
            values = np.log(counts.values)
            values += 1.0
        else:
            values = np.ones(len(counts.values)) if self._params.tf == "binary" else counts.values
        if self._params.idf:
            values = values * self.idf[counts.indices]
        if self._params.norm:
            values = values / np.repeat(self._lengths(counts.indptr, values), np.diff(counts.indptr))
        return values

    @staticmethod
    def _lengths(indptr: NDArray[np.int64], values: FloatArray) -> FloatArray:
        """Return the Euclidean length of each row, summed row by row so that it does not depend on the batch."""
        bounds = indptr.tolist()
        squares = [np.dot(values[start:end], values[start:end]) for start, end in pairwise(bounds)]
        return np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))

    def fit_values(self, texts: Sequence[str], told: Callable[[int], None]) -> csr_matrix:
        """Choose features and return their values in `texts`, `(n, features)`."""
        from scipy.sparse import csr_matrix

        params = self._params
        parts = list(self.index.fit_count(texts, min_df=params.min_df, max_features=params.max_features, told=told))
        frequencies = np.zeros(len(self.index))
        for counts in parts:
            frequencies += np.bincount(counts.indices, minlength=len(self.index))
        self.idf = np.log((1.0 + len(texts)) / (1.0 + frequencies)) + 1.0
        values = np.concatenate([self.weigh(counts) for counts in parts])
        sizes = np.concatenate([np.diff(counts.indptr) for counts in parts])
        indices = np.concatenate([counts.indices for counts in parts]).astype(np.int32)
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        if indptr[-1] < np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)
        return csr_matrix((values, indices, indptr), shape=(len(texts), len(self.index)))


class LinearClassifier:
    """A linear model over n-grams.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: unused by the solver, which is deterministic; kept so that all families are made alike.
        params: see `LinearParams`.

    Source: Wang & Manning (2012), "Baselines and Bigrams", https://aclanthology.org/P12-2018 (NB weighting); the IDF is
    `log((1 + n) / (1 + df)) + 1`.
    """

    Params = LinearParams

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        self.labels = tuple(labels)
        self.task = task
        base.check_labels(self.labels, task)
        self.params = LinearParams(**params)
        self._blocks: list[_Block] = []
        self.coef_: FloatArray = np.empty((0, self._columns))
        self.intercept_: FloatArray = np.zeros(self._columns)

    @property
    def _columns(self) -> int:
        return 1 if self.task is Task.BINARY else len(self.labels)

    @property
    def _one_vs_rest(self) -> bool:
        """Whether each label has a regression of its own rather than all sharing one softmax."""
        return self.task is not Task.MULTI_CLASS or self._nb

    @property
    def _nb(self) -> bool:
        chosen = self.params.nb_weighting
        return self.task is Task.BINARY if chosen == "auto" else chosen

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from texts; `validation` is not used.

        Raises:
            LabelError: targets do not fit, or no n-gram stands in `min_df` texts.
        """
        from scipy.sparse import hstack

        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        self._blocks = self._new_blocks()
        report = _Counter(progress, "counting n-grams", 2 * len(texts) * len(self._blocks))
        x = hstack([block.fit_values(texts, report) for block in self._blocks], format="csr")
        if x.shape[1] == 0:
            raise LabelError(
                f"no n-gram stands in {self.params.min_df} of the {len(texts)} texts; lower min_df or give more texts"
            )
        self._blocks = [_Block(_compact(block.index, self.params), self.params, block.idf) for block in self._blocks]
        coef, self.intercept_ = self._solve(x, has, progress)
        # Weights are kept on disk with 24 bits; to have the same before saving and after, round them now.
        self.coef_ = coef.astype(np.float32).astype(np.float64)
        return self

    def _new_blocks(self) -> list[_Block]:
        blocks = []
        if self.params.words is not None:
            words = WordSequences(self.params.tokens, self.params.words[1] - 1)
            blocks.append(_Block(NgramIndex(words, self.params.words), self.params))
        if self.params.characters is not None:
            blocks.append(_Block(NgramIndex(CharSequences(), self.params.characters), self.params))
        return blocks

    def _solve(self, x: csr_matrix, has: BoolArray, progress: Progress | None) -> tuple[FloatArray, FloatArray]:
        """Return coefficients `(features, columns)` and intercepts `(columns,)`."""
        if not self._one_vs_rest:
            return self._solve_softmax(x, has)
        columns = has[:, 1:] if self.task is Task.BINARY else has
        coef, intercept = np.zeros((x.shape[1], self._columns)), np.zeros(self._columns)
        for column in range(self._columns):
            coef[:, column], intercept[column] = self._solve_one(x, columns[:, column])
            if progress:
                progress("fitting labels", column + 1, self._columns)
        return coef, intercept

    def _solve_softmax(self, x: csr_matrix, has: BoolArray) -> tuple[FloatArray, FloatArray]:
        present = np.flatnonzero(has.any(axis=0))
        coef, intercept = np.zeros((x.shape[1], self._columns)), np.full(self._columns, _NEVER)
        if len(present) < 2:
            intercept[present] = 0.0
            return coef, intercept
        fitted = self._regression().fit(x, has.argmax(axis=1))
        if len(present) == 2:
            coef[:, present[1]], intercept[present] = fitted.coef_[0], [0.0, fitted.intercept_[0]]
        else:
            coef[:, present], intercept[present] = fitted.coef_.T, fitted.intercept_
        return coef, intercept

    def _solve_one(self, x: csr_matrix, positive: BoolArray) -> tuple[FloatArray, float]:
        share = positive.mean()
        if share in (0.0, 1.0):
            return np.zeros(x.shape[1]), _NEVER if share == 0 else -_NEVER
        if not self._nb:
            fitted = self._regression().fit(x, positive)
            return fitted.coef_[0], float(fitted.intercept_[0])
        ratio = self._log_count_ratio(x, positive)
        fitted = self._regression().fit(_scale_columns(x, ratio), positive)
        return fitted.coef_[0] * ratio, float(fitted.intercept_[0])

    def _log_count_ratio(self, x: csr_matrix, positive: BoolArray) -> FloatArray:
        """Return `log((p / |p|) / (q / |q|))`, p and q the smoothed numbers of texts with each feature (eq. 3)."""
        with_feature = np.bincount(x.indices, weights=np.repeat(positive, np.diff(x.indptr)), minlength=x.shape[1])
        everywhere = np.bincount(x.indices, minlength=x.shape[1])
        p, q = with_feature + self.params.nb_alpha, everywhere - with_feature + self.params.nb_alpha
        return np.asarray(np.log(p / p.sum()) - np.log(q / q.sum()))

    def _regression(self) -> Any:
        from sklearn.linear_model import LogisticRegression

        p = self.params
        return LogisticRegression(C=p.C, class_weight=p.class_weight, max_iter=p.max_iter, tol=p.tol, solver="lbfgs")

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """Return the linear scores `(n, columns)`; binary tasks have one column, for the second label."""
        scores = np.empty((len(texts), self._columns))
        done = 0
        for chunk in chunks(texts):
            scores[done : done + len(chunk)] = self._chunk_scores(chunk)
            done += len(chunk)
        return scores

    def _chunk_scores(self, texts: Sequence[str]) -> FloatArray:
        scores = np.tile(self.intercept_, (len(texts), 1))
        first = 0
        for block in self._blocks:
            counts = block.index.count(texts)
            values, coef = block.weigh(counts), self.coef_[first : first + len(block)]
            for row, (start, end) in enumerate(pairwise(counts.indptr.tolist())):
                # Row by row: a text's score must not depend on the texts beside it.
                scores[row] += values[start:end] @ coef[counts.indices[start:end]]
            first += len(block)
        return scores

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`."""
        scores = self.scores(texts)
        if not self._one_vs_rest:
            return base.softmax(scores)
        p = base.sigmoid(scores)
        if self.task is Task.BINARY:
            return np.hstack([1.0 - p, p])
        return (
            p if self.task is Task.MULTI_LABEL else p / np.maximum(p.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        )

    def explain(self, text: str, label: int) -> Explanation:
        """Share the score of a label out among the words of a text, exactly.

        An n-gram's part is divided equally among the characters of its words.
        """
        column, sign = (0, 2 * label - 1) if self.task is Task.BINARY else (label, 1)
        per_character = np.zeros(len(text) + 1)
        first = 0
        for block in self._blocks:
            coef = self.coef_[first : first + len(block), column]
            _spread(per_character, text, block, coef)
            first += len(block)
        base_score = float(self.intercept_[column])
        contributions = tuple(
            Contribution(start, end, sign * value)
            for start, end in (match.span() for match in _WORD_OR_MARKS.finditer(text))
            if (value := float(per_character[start:end].sum())) != 0.0
        )
        score = sign * base_score + sum(c.value for c in contributions)
        return Explanation(self.labels[label], base=sign * base_score, score=score, contributions=contributions)

    def save(self, folder: Path) -> None:
        """Write parameters, words and weights."""
        base.write_settings(folder, self.labels, self.task, self.params.model_dump())
        arrays: dict[str, Any] = {"coef": self.coef_.astype(np.float32), "intercept": self.intercept_}
        for block in self._blocks:
            kind = "words" if isinstance(block.index.sequences, WordSequences) else "characters"
            arrays[f"{kind}_ngrams"] = block.index.ngrams.astype(np.int32)
            arrays[f"{kind}_idf"] = block.idf
            if isinstance(block.index.sequences, WordSequences):
                # No word holds a line break; lone surrogates may come in with odd input.
                text = "\n".join(block.index.sequences.words)
                (folder / "words.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
        np.savez_compressed(folder / "linear.npz", **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
        """
        labels, task, params = base.read_settings(folder)
        model = cls(labels, task, **params)
        arrays = base.read_arrays(folder / "linear.npz")
        try:
            model._blocks = list(model._read_blocks(folder, arrays))
            model.coef_, model.intercept_ = arrays["coef"].astype(np.float64), arrays["intercept"]
        except (KeyError, OSError, UnicodeDecodeError) as error:
            raise PackageError(f"the linear model's files are incomplete: {error}") from error
        return model

    def _read_blocks(self, folder: Path, arrays: dict[str, NDArray[Any]]) -> Iterator[_Block]:
        for kind, lengths in (("words", self.params.words), ("characters", self.params.characters)):
            if lengths is None:
                continue
            sequences: WordSequences | CharSequences = CharSequences()
            if kind == "words":
                text = (folder / "words.txt").read_bytes().decode("utf-8", "surrogatepass")
                sequences = WordSequences(self.params.tokens, lengths[1] - 1, text.split("\n") if text else ())
            ngrams = arrays[f"{kind}_ngrams"].astype(np.int64)
            yield _Block(NgramIndex(sequences, lengths, ngrams), self.params, arrays[f"{kind}_idf"])


_NEVER = -30.0  # log-odds of a label without any example
_WORD_OR_MARKS = re.compile(r"\w+|[^\w\s]+")


class _Counter:
    """Add up the texts that have been counted and pass the sum on."""

    def __init__(self, progress: Progress | None, message: str, total: int) -> None:
        self._progress, self._message, self._total, self._done = progress, message, total, 0

    def __call__(self, texts: int) -> None:
        self._done += texts
        if self._progress:
            self._progress(self._message, self._done, self._total)


def _compact(index: NgramIndex, params: LinearParams) -> NgramIndex:
    """Leave out the words that no feature needs."""
    if not isinstance(index.sequences, WordSequences) or params.words is None:
        return index
    sequences, ngrams = index.sequences.used_by(index.ngrams)
    return NgramIndex(sequences, params.words, ngrams)


def _scale_columns(x: csr_matrix, weights: FloatArray) -> csr_matrix:
    scaled = x.copy()
    scaled.data *= weights[x.indices]
    return scaled


def _spread(per_character: FloatArray, text: str, block: _Block, coef: FloatArray) -> None:
    """Add what each known n-gram gives to the score to the characters of its words."""
    found = block.index.occurrences(text)
    if not len(found.features):
        return
    features, place, count = np.unique(found.features, return_inverse=True, return_counts=True)
    values = block.weigh(Counts(np.array([0, len(features)]), features, count.astype(np.float64)))
    share = (values * coef[features] / count)[place]
    spans = np.array(block.index.spans(text)).reshape(-1, 2)
    sizes = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
    owner = np.repeat(np.arange(len(spans)), np.diff(sizes))
    # Difference array over the elements: each occurrence adds its share per character from its first to its last one.
    per_element = np.zeros(len(spans) + 1)
    density = share / np.maximum(sizes[found.last + 1] - sizes[found.first], 1)
    np.add.at(per_element, found.first, density)
    np.subtract.at(per_element, found.last + 1, density)
    per_element = np.cumsum(per_element)[:-1]
    starts = spans[owner, 0] + np.arange(len(owner)) - sizes[owner]
    np.add.at(per_character, starts, per_element[owner])
