"""Fit naive Bayes models and the logistic regression stacked on them; serving does not need this module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tamiz.classifiers.regression import NEVER, equal_rows, fit_softmax
from tamiz.types import BoolArray, FloatArray, IntArray, Progress

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Bayes", "Stacking", "complement", "multinomial"]

_NO_EXAMPLE = 0.5  # what a class without examples in a fold counts as, so that its logarithm is finite


@dataclass(frozen=True)
class Bayes:
    """Naive Bayes models; the scores of rows `x` are `x @ coef + intercept`.

    One-vs-rest scores are log-odds of each label; else they are logarithms of class probabilities up to a constant of
    the text, centred over the classes.

    Attributes:
        coef: float64 `(features, columns)`.
        intercept: float64 `(columns,)`.
    """

    coef: FloatArray
    intercept: FloatArray


def multinomial(x: csr_matrix, has: BoolArray, *, alpha: float, one_vs_rest: bool) -> Bayes:
    """Fit multinomial naive Bayes with the labels' frequencies as prior, equal to scikit-learn's `MultinomialNB`.

    Args:
        x: float64 `(n, features)`, not negative.
        has: bool `(n, columns)`, which labels each text has.
        alpha: added to the sum of each feature in each class.
        one_vs_rest: fit a model of two classes for each label rather than one of all classes.

    Source: McCallum & Nigam (1998), "A comparison of event models for naive Bayes text classification".
    """
    inside, outside = _shares(x, has, alpha)
    n = np.maximum(has.sum(axis=0), _NO_EXAMPLE)
    if one_vs_rest:
        return Bayes(inside - outside, np.log(n) - np.log(np.maximum((~has).sum(axis=0), _NO_EXAMPLE)))
    return _centred(inside, np.log(n))


def complement(x: csr_matrix, has: BoolArray, *, alpha: float, one_vs_rest: bool, weight_norm: bool = False) -> Bayes:
    """Fit complement naive Bayes, equal to scikit-learn's `ComplementNB` with `norm=weight_norm`.

    With two classes and no weight normalisation it is multinomial naive Bayes without the prior, since the complement
    of one class is the other class.

    Source: Rennie et al. (2003), "Tackling the poor assumptions of naive Bayes text classifiers", table 4.
    """
    inside, outside = _shares(x, has, alpha)
    if weight_norm:  # negative divided by negative: a word rare outside weighs much, as without it
        inside, outside = -inside / inside.sum(axis=0), -outside / outside.sum(axis=0)
    coef = inside - outside if one_vs_rest else -outside
    return Bayes(coef, np.zeros(has.shape[1])) if one_vs_rest else _centred(coef, np.zeros(has.shape[1]))


def _shares(x: csr_matrix, has: BoolArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Return smoothed log shares `(features, columns)` of each feature in a label's texts and in the others."""
    inside = np.asarray(x.T @ has.astype(np.float64))
    outside = np.asarray(x.T @ (~has).astype(np.float64))
    first, second = (np.log(sums + alpha) - np.log((sums + alpha).sum(axis=0)) for sums in (inside, outside))
    return first, second


def _centred(coef: FloatArray, intercept: FloatArray) -> Bayes:
    return Bayes(coef - coef.mean(axis=1, keepdims=True), intercept - intercept.mean())


@dataclass(frozen=True)
class Stacking:
    """How to stack.

    Attributes:
        alpha: smoothing of naive Bayes.
        weight_norm: normalise the weights of complement naive Bayes.
        one_vs_rest: fit each label by itself; else all share a softmax.
        own: let each label's regression see the scores of this label alone.
        C: inverse strength of the regression's L2 penalty.
        class_weight: `balanced` or none.
        folds: number of folds behind the held-out scores.
        seed: of the folds.
    """

    alpha: float
    weight_norm: bool
    one_vs_rest: bool
    own: bool
    C: float
    class_weight: str | None
    folds: int
    seed: int

    def bayes(self, x: csr_matrix, has: BoolArray) -> Bayes:
        """Fit both models; their columns stand side by side."""
        first = multinomial(x, has, alpha=self.alpha, one_vs_rest=self.one_vs_rest)
        second = complement(x, has, alpha=self.alpha, one_vs_rest=self.one_vs_rest, weight_norm=self.weight_norm)
        return Bayes(np.hstack([first.coef, second.coef]), np.concatenate([first.intercept, second.intercept]))

    def held_out(self, x: csr_matrix, has: BoolArray, progress: Progress | None) -> FloatArray:
        """Return scores `(n, 2 * columns)` of each text by models that did not learn from it.

        Equal rows count as one text; one text alone gets the score of a model that did.
        """
        scores = np.empty((x.shape[0], 2 * has.shape[1]))
        folds = list(self._folds(has, equal_rows(x)))
        for number, (fit_on, held) in enumerate(folds):
            model = self.bayes(x[fit_on], has[fit_on])
            scores[held] = x[held] @ model.coef + model.intercept
            if progress:
                progress("fitting folds", number + 1, len(folds))
        return scores

    def _folds(self, has: BoolArray, text: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
        first = np.unique(text, return_index=True)[1]
        n = len(first)
        if n == 1:
            yield np.arange(len(has)), np.arange(len(has))
            return
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(n)
        # Dealing out texts sorted by their labels gives each fold its share of every combination of labels.
        kinds = np.unique(has[first], axis=0, return_inverse=True)[1].reshape(-1)
        order = order[np.argsort(kinds[order], kind="stable")]
        folds = min(self.folds, n)
        fold = np.empty(n, np.int64)
        fold[order] = np.arange(n) % folds
        fold = fold[text]
        for number in range(folds):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)

    def regressions(self, z: FloatArray, has: BoolArray, *, standardise: bool) -> tuple[FloatArray, FloatArray]:
        """Fit the second stage on `z` `(n, 2 * columns)`.

        Returns:
            `mixing` `(2 * columns, columns)` and `shift` `(columns,)`: the final scores are `z @ mixing + shift`.
        """
        mean, scale = np.zeros(z.shape[1]), np.ones(z.shape[1])
        if standardise:
            mean, deviation = z.mean(axis=0), z.std(axis=0)
            scale = np.where(deviation > 0, deviation, 1.0)
        z = (z - mean) / scale
        mixing, shift = self._by_label(z, has) if self.one_vs_rest else fit_softmax(self._solver(), z, has, np.float64)
        mixing = mixing / scale[:, None]
        return mixing, shift - mean @ mixing

    def _solver(self) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=self.C, class_weight=self.class_weight, max_iter=1000)

    def _by_label(self, z: FloatArray, has: BoolArray) -> tuple[FloatArray, FloatArray]:
        k = has.shape[1]
        mixing, shift = np.zeros((2 * k, k)), np.zeros(k)
        for j in range(k):
            if not has[:, j].any() or has[:, j].all():
                shift[j] = NEVER if not has[:, j].any() else -NEVER
                continue
            seen = np.array([j, k + j]) if self.own else np.arange(2 * k)
            fitted = self._solver().fit(z[:, seen], has[:, j])
            mixing[seen, j], shift[j] = fitted.coef_[0], fitted.intercept_[0]
        return mixing, shift
