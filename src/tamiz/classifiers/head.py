"""A logistic head over dense vectors of a text, and how strongly to penalise it where examples are few."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import base
from tamiz.classifiers.regression import Regression
from tamiz.types import BoolArray, FloatArray, IntArray, Progress, Task

__all__ = ["Fit", "Head"]

USUAL = 30.0  # the middle of a plateau on bank questions with 4, 16 and 64 examples a label
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_FOLDS = 5
_FEWEST = 8  # examples with something to hold out
_MOST = 2000  # examples that choose; more change the choice little and cost much
_LEAST = 1e-3  # a fold may lack what another holds: no single answer decides
_ITERATIONS = 500


class Head(NamedTuple):
    """Linear scores of vectors.

    Attributes:
        coef: float32 `(d, columns)`; binary tasks have one column, for the second label.
        intercept: float64 `(columns,)`.
    """

    coef: NDArray[np.float32]
    intercept: FloatArray

    def scores(self, x: FloatArray) -> FloatArray:
        """Return the scores `(n, columns)` of vectors `(n, d)`."""
        return np.asarray(x @ self.coef.astype(np.float64) + self.intercept)


class Fit(NamedTuple):
    """How a head is fitted.

    Attributes:
        task: what kind of answer it gives.
        class_weight: `balanced` or none.
        seed: of the folds.
    """

    task: Task
    class_weight: str | None
    seed: int

    def head(self, x: FloatArray, has: BoolArray, strength: float) -> Head:
        """Fit a head on vectors `(n, d)` and which labels they have, bool `(n, k)`; `strength` is `C`.

        Vectors are moved to mean zero and scaled to mean squared length one: those of some encoders all lie within a
        narrow cone, and one penalty then means the same for every encoder. Serving has no part in it.
        """
        about: dict[str, Any] = {"C": strength, "class_weight": self.class_weight, "seed": self.seed}
        how = Regression(**about, nb_alpha=None, norm=False, solver="lbfgs", tol=None, max_iter=_ITERATIONS)
        mean = x.mean(axis=0)
        size = float(np.sqrt(x.var(axis=0).sum())) or 1.0
        vectors: Any = (x - mean) / size
        if self.task is Task.MULTI_CLASS:
            found = how.softmax(vectors, has)
        else:
            found = how.one_vs_rest(vectors, has[:, 1:] if self.task is Task.BINARY else has)
        coef = found.coef / np.float32(size)
        return Head(coef, found.intercept - mean @ coef.astype(np.float64))

    def strength(self, x: FloatArray, has: BoolArray, progress: Progress | None = None) -> float:
        """Choose `C` by the log loss of held-out examples; `USUAL` where too few can be held out.

        Folds are stratified, and equal vectors count once: copies on both sides would speak for too little restraint.
        An example whose label has no other is never held out: nothing could be said of it.
        """
        once = {row.tobytes(): place for place, row in reversed(list(enumerate(x)))}
        if len(once) < len(x):
            first = np.sort(np.fromiter(once.values(), np.int64))
            x, has = x[first], has[first]
        folds = list(self._folds(has))
        if not folds:
            return USUAL
        losses = np.zeros(len(_STRENGTHS))
        for place, strength in enumerate(_STRENGTHS):
            for train, held_out in folds:
                scores = self.head(x[train], has[train], strength).scores(x[held_out])
                losses[place] += self._loss(base.probabilities(scores, self.task), has[held_out])
            if progress:
                progress("choosing C", place + 1, len(_STRENGTHS))
        return _STRENGTHS[int(losses.argmin())]

    def _folds(self, has: BoolArray) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield places to learn from and to hold out."""
        from sklearn.model_selection import KFold, StratifiedKFold

        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(has))[:_MOST])
        if self.task is Task.MULTI_LABEL:
            counts, movable, kinds = has[rows].sum(axis=0), rows, None
        else:
            kinds = has[rows].argmax(axis=1)
            counts = np.bincount(kinds)
            movable, kinds = rows[counts[kinds] > 1], kinds[counts[kinds] > 1]
        usual = counts[counts > 1]
        folds = min(_FOLDS, int(np.median(usual))) if len(usual) else 0
        if folds < 2 or len(movable) < _FEWEST:
            return
        split = KFold if kinds is None else StratifiedKFold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a label with fewer examples than folds is in some of them
            parts = list(split(folds, shuffle=True, random_state=self.seed).split(movable, kinds))
        for _, held_out in parts:
            yield np.setdiff1d(rows, movable[held_out]), movable[held_out]

    def _loss(self, p: FloatArray, has: BoolArray) -> float:
        """Return the summed log loss."""
        if self.task is Task.MULTI_LABEL:
            given = np.where(has, p, 1.0 - p)
            return -float(np.log(np.maximum(given, _LEAST)).sum())
        return -float(np.log(np.maximum(p[has], _LEAST)).sum())
