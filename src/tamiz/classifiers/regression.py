"""Logistic regressions over sparse features, one a label or one for all, with optional NB weighting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tamiz.types import BoolArray, FloatArray, IntArray, Progress

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["NEVER", "Regression", "Weights", "equal_rows", "fit_softmax"]

NEVER = -30.0  # log-odds of a label without any example
_TINY = np.finfo(np.float32).tiny
_BLOCK_VALUES = 8_000_000
_FOLDS = 3
_SECOND_C = 0.01  # held-out scores are few and telling; chosen on film genres by cross-validation


@dataclass(frozen=True)
class Weights:
    """What a fit gives.

    The score of a text with values `x` is `(x @ coef) / length + intercept`, where `length` is 1 without normalisation,
    `|x|` without NB weighting, and else `sqrt(x**2 @ squares)`, for each column its own.

    Attributes:
        coef: float32 `(features, columns)`, NB ratios multiplied in.
        intercept: float64 `(columns,)`.
        squares: float32 `(features, columns)`, squared NB ratios; `None` without NB weighting.
    """

    coef: np.ndarray[Any, np.dtype[np.float32]]
    intercept: FloatArray
    squares: np.ndarray[Any, np.dtype[np.float32]] | None


@dataclass(frozen=True)
class Regression:
    """How to fit.

    Attributes:
        C: inverse strength of the L2 penalty.
        class_weight: `balanced` or none, in both stages of label mixing.
        nb_alpha: smoothing of the log-count ratios; `None` for no NB weighting.
        norm: scale each text's values to length one, after NB weighting.
        solver: `liblinear`, `lbfgs` or `auto`, by size.
        tol: when the solver stops; `None` for its usual value.
        max_iter: most iterations.
        seed: of the order in which liblinear takes the examples.
    """

    C: float
    class_weight: str | None
    nb_alpha: float | None
    norm: bool
    solver: Literal["auto", "liblinear", "lbfgs"]
    tol: float | None
    max_iter: int
    seed: int

    def one_vs_rest(self, x: csr_matrix, has: BoolArray, progress: Progress | None = None) -> Weights:
        """Fit one regression a column of `has`, bool `(n, columns)`, on `x`, `(n, features)`."""
        coef = np.zeros((x.shape[1], has.shape[1]), np.float32)
        alpha = self.nb_alpha
        squares = None if alpha is None else np.ones_like(coef)
        intercept = np.zeros(has.shape[1])
        plain = self._scaled(x, None) if squares is None else None
        for column in range(has.shape[1]):
            positive = has[:, column]
            share = positive.mean()
            if share in (0.0, 1.0):
                intercept[column] = NEVER if share == 0 else -NEVER
                continue
            ratio = None if alpha is None else _log_count_ratio(x, positive, alpha)
            fitted = self._solver(x).fit(self._scaled(x, ratio) if plain is None else plain, positive)
            coef[:, column] = fitted.coef_[0] if ratio is None else fitted.coef_[0] * ratio
            intercept[column] = fitted.intercept_[0]
            if squares is not None and ratio is not None:
                squares[:, column] = ratio**2
            if progress:
                progress("fitting labels", column + 1, has.shape[1])
        return Weights(coef, intercept, squares)

    def mixed_labels(self, x: csr_matrix, has: BoolArray, progress: Progress | None = None) -> Weights:
        """Fit one regression a column without NB weighting, then let the labels inform each other.

        A second regression a label learns from the held-out scores of all labels (three folds, equal rows in one); the
        answer is the mean of both scores. As both are linear in the features, so is the result, at no cost when
        serving.

        Source: stacked generalisation (Wolpert 1992) over labels, as in Godbole & Sarawagi (2004).
        """
        from sklearn.model_selection import KFold

        plain = replace(self, nb_alpha=None)
        first = plain.one_vs_rest(x, has, progress)
        text = equal_rows(x)
        texts = int(text.max(initial=-1)) + 1
        if texts < _FOLDS:
            return first
        rows = plain._scaled(x, None)
        scores = np.zeros(has.shape)
        for _, held in KFold(_FOLDS, shuffle=True, random_state=self.seed).split(np.empty(texts)):
            apart = np.isin(text, held)
            fit_on, held_out = np.flatnonzero(~apart), np.flatnonzero(apart)
            part = plain.one_vs_rest(x[fit_on], has[fit_on], progress)
            scores[held_out] = rows[held_out] @ part.coef + part.intercept
        mixing, shift = _second_stage(scores, has, self.class_weight)
        coef = 0.5 * (first.coef + first.coef @ mixing)
        intercept = 0.5 * (first.intercept + first.intercept @ mixing + shift)
        # Labels that all or none of the texts have tell nothing and learn nothing.
        constant = has.all(axis=0) | ~has.any(axis=0)
        coef[:, constant], intercept[constant] = 0.0, first.intercept[constant]
        return Weights(coef.astype(np.float32), intercept, None)

    def softmax(self, x: csr_matrix, has: BoolArray) -> Weights:
        """Fit one multinomial regression; `has` is bool `(n, columns)` with one label a row."""
        return Weights(*fit_softmax(self._solver(x, softmax=True), self._scaled(x, None), has, np.float32), None)

    def _solver(self, x: csr_matrix, *, softmax: bool = False) -> Any:
        from sklearn.linear_model import LogisticRegression

        solver = self.solver
        if solver == "auto":
            # Values come in 4 bytes where there are very many; liblinear would copy them to 8.
            solver = "lbfgs" if x.dtype == np.float32 else "liblinear"
        about: dict[str, Any] = {"C": self.C, "class_weight": self.class_weight, "max_iter": self.max_iter}
        if softmax or solver == "lbfgs":
            return LogisticRegression(solver="lbfgs", tol=self.tol or 1e-4, **about)
        return LogisticRegression(solver="liblinear", dual=True, tol=self.tol or 0.1, random_state=self.seed, **about)

    def _scaled(self, x: csr_matrix, ratio: FloatArray | None) -> csr_matrix:
        """Return `x` times `ratio`, rows scaled to length one; indices are shared with `x`."""
        from scipy.sparse import csr_matrix

        if ratio is None and not self.norm:
            return x
        values = np.empty_like(x.data)
        for start, end, sizes in _row_blocks(x):
            part = x.data[start:end] if ratio is None else x.data[start:end] * ratio[x.indices[start:end]]
            if self.norm:
                rows = np.repeat(np.arange(len(sizes)), sizes)
                lengths = np.sqrt(np.bincount(rows, weights=part * part, minlength=len(sizes)))
                part = part / np.maximum(lengths, _TINY)[rows]
            values[start:end] = part
        return csr_matrix((values, x.indices, x.indptr), shape=x.shape)


def fit_softmax(solver: Any, x: Any, has: BoolArray, dtype: type[np.floating]) -> tuple[Any, FloatArray]:
    """Fit one multinomial regression; return `(features, columns)` of `dtype` and intercepts `(columns,)`.

    Classes without examples get the score `NEVER`.
    """
    present = np.flatnonzero(has.any(axis=0))
    coef, intercept = np.zeros((x.shape[1], has.shape[1]), dtype), np.full(has.shape[1], NEVER)
    if len(present) == 1:
        intercept[present] = 0.0
        return coef, intercept
    fitted = solver.fit(x, has.argmax(axis=1))
    if len(present) == 2:  # one column, for the second class
        coef[:, present[1]], intercept[present] = fitted.coef_[0], [0.0, fitted.intercept_[0]]
    else:
        coef[:, present], intercept[present] = fitted.coef_.T, fitted.intercept_
    return coef, intercept


def equal_rows(x: csr_matrix) -> IntArray:
    """Return for each row of `x` which of the different rows it is, int64 `(n,)`, numbered as they first appear.

    A row on both sides of a fold would not be held out, so copies of a text must stay together.
    """
    seen: dict[bytes, int] = {}
    which = np.empty(x.shape[0], np.int64)
    for row in range(len(which)):
        part = slice(x.indptr[row], x.indptr[row + 1])
        digest = blake2b(x.indices[part].tobytes(), digest_size=16)
        digest.update(x.data[part].tobytes())
        which[row] = seen.setdefault(digest.digest(), len(seen))
    return which


def _row_blocks(x: csr_matrix) -> Iterator[tuple[int, int, IntArray]]:
    """Yield, for runs of rows of some million values, where they start and end in `x.data`, and the rows' sizes.

    Numpy's temporary copies of a whole large matrix would take more memory than the matrix.
    """
    row = 0
    while row < x.shape[0]:
        start = int(x.indptr[row])
        last = int(np.searchsorted(x.indptr, start + _BLOCK_VALUES, side="right")) - 1
        last = min(max(last, row + 1), x.shape[0])
        yield start, int(x.indptr[last]), np.diff(x.indptr[row : last + 1])
        row = last


def _second_stage(scores: FloatArray, has: BoolArray, class_weight: str | None) -> tuple[FloatArray, FloatArray]:
    """Return `mixing` `(k, k)` and `shift` `(k,)`: second scores are `scores @ mixing + shift`."""
    from sklearn.linear_model import LogisticRegression

    k = has.shape[1]
    mean, deviation = scores.mean(axis=0), scores.std(axis=0)
    telling = deviation > 0
    scale = np.where(telling, deviation, 1.0)
    standard = (scores - mean) / scale * telling
    mixing, shift = np.zeros((k, k)), np.zeros(k)
    for j in range(k):
        if has[:, j].any() and not has[:, j].all():
            solver = LogisticRegression(C=_SECOND_C, class_weight=class_weight, max_iter=1000)
            fitted = solver.fit(standard, has[:, j])
            mixing[:, j] = fitted.coef_[0] / scale * telling
            shift[j] = fitted.intercept_[0] - mean @ mixing[:, j]
    return mixing, shift


def _log_count_ratio(x: csr_matrix, positive: BoolArray, alpha: float) -> FloatArray:
    """Return `log((p / |p|) / (q / |q|))`, p and q the smoothed numbers of texts with each feature.

    Source: Wang & Manning (2012), equation 3, https://aclanthology.org/P12-2018
    """
    everywhere, inside = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    row = 0
    for start, end, sizes in _row_blocks(x):
        indices = x.indices[start:end]
        everywhere += np.bincount(indices, minlength=x.shape[1])
        inside += np.bincount(indices[np.repeat(positive[row : row + len(sizes)], sizes)], minlength=x.shape[1])
        row += len(sizes)
    p, q = inside + alpha, everywhere - inside + alpha
    return np.asarray(np.log(p / p.sum()) - np.log(q / q.sum()))
