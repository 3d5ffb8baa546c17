"""Logistic regression over TF-IDF of word and character n-grams, served with numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamiz.classifiers import base
from tamiz.classifiers.features import FeatureParams, NgramFeatures, Row, fit_features, word_contributions
from tamiz.classifiers.ngrams import chunks
from tamiz.classifiers.regression import Regression, Weights
from tamiz.errors import ConfigError, PackageError
from tamiz.types import Explanation, FloatArray, Progress, Task, Validation

__all__ = ["LinearClassifier"]


class LinearParams(FeatureParams):
    """Parameters of the `linear` family."""

    nb_weighting: bool | Literal["auto"] = "auto"
    """Scale features by their log-count ratio between a label and the rest (Wang & Manning 2012), each label with a
    regression of its own; `auto`: unless the task is multi-label."""
    label_mixing: bool | Literal["auto"] = "auto"
    """Let the scores of all labels inform each label (stacking); `auto`: in multi-label tasks without NB weighting,
    elsewhere yes is refused."""
    nb_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Smoothing of the ratio."""
    C: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Inverse strength of the L2 penalty; `auto`: with NB weighting 30 in binary and 10 in other tasks, else 4."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weights labels by the inverse of their frequency."""
    solver: Literal["auto", "liblinear", "lbfgs"] = "auto"
    """`liblinear` (dual coordinate descent) is quicker, `lbfgs` needs a third of the memory; `auto` takes the
    second above 100 million feature values."""
    max_iter: Annotated[int, Field(ge=1)] = 300
    """Most iterations of the solver."""
    tol: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """When the solver stops, in its own measure; `auto`: .1 for liblinear, .0001 for lbfgs."""

    @model_validator(mode="after")
    def _mixed_or_weighted(self) -> Self:
        if self.label_mixing is True and self.nb_weighting is True:
            raise ValueError("label_mixing works without NB weighting only; set nb_weighting or label_mixing to false")
        return self


class LinearClassifier(base.Family[LinearParams]):
    """A linear model over n-grams.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of the solver.
        params: see `LinearParams`.
    """

    Params = LinearParams

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self.features_ = NgramFeatures(self.params)
        self.weights_: Weights | None = None
        self._joined: NDArray[np.float32] = np.empty((0, 0), np.float32)

    @property
    def _nb(self) -> bool:
        chosen = self.params.nb_weighting
        return self.task is not Task.MULTI_LABEL if chosen == "auto" else chosen

    @property
    def _one_vs_rest(self) -> bool:
        """Whether each label has a regression of its own rather than all sharing one softmax."""
        return self.task is not Task.MULTI_CLASS or self._nb

    @property
    def _mixing(self) -> bool:
        possible = self.task is Task.MULTI_LABEL and not self._nb
        return possible and self.params.label_mixing is not False

    @property
    def _fitted(self) -> Weights:
        if self.weights_ is None:
            raise RuntimeError("the classifier is not fitted; call fit first")
        return self.weights_

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
            ConfigError: labels are to be mixed in a task that is not multi-label.
            LabelError: targets do not fit, or no n-gram stands in `min_df` texts.
        """
        if self.params.label_mixing is True and not self._mixing:
            raise ConfigError(f"linear: label_mixing: a {self.task} task has no labels to mix; set it to auto or false")
        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        x = fit_features(self.features_, texts, self.params.min_df, progress)
        del texts  # solvers need the memory
        if self._mixing:
            self._take(self._regression().mixed_labels(x, has, progress))
        elif self._one_vs_rest:
            columns = has[:, 1:] if self.task is Task.BINARY else has
            self._take(self._regression().one_vs_rest(x, columns, progress))
        else:
            self._take(self._regression().softmax(x, has))
        return self

    def _take(self, weights: Weights) -> None:
        """Keep coefficients and squares side by side: a feature of a text then costs one look into memory, not two."""
        if weights.squares is None:
            self._joined, self.weights_ = weights.coef, weights
            return
        k = weights.coef.shape[1]
        self._joined = np.hstack([weights.coef, weights.squares])
        self.weights_ = Weights(self._joined[:, :k], weights.intercept, self._joined[:, k:])

    def _regression(self) -> Regression:
        p = self.params
        usual = 4.0 if not self._nb else 30.0 if self.task is Task.BINARY else 10.0
        return Regression(
            C=usual if p.C == "auto" else p.C,
            class_weight=p.class_weight,
            nb_alpha=p.nb_alpha if self._nb else None,
            norm=p.norm,
            solver=p.solver,
            tol=None if p.tol == "auto" else p.tol,
            max_iter=p.max_iter,
            seed=self._seed,
        )

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """Return the linear scores `(n, columns)`; binary tasks have one column, for the second label."""
        scores = np.empty((len(texts), len(self._fitted.intercept)))
        place = 0
        for chunk in chunks(texts):
            for row in self.features_.rows(chunk):
                # Row by row: a text's score must not depend on the texts beside it.
                scores[place] = self._score(row)
                place += 1
        return scores

    def _score(self, row: Row) -> FloatArray:
        weights = self._fitted
        k = len(weights.intercept)
        joined = self._joined.take(row.indices, axis=0)
        return np.asarray((row.values @ joined[:, :k]) / self._lengths(row, joined[:, k:]) + weights.intercept)

    def _lengths(self, row: Row, squares: NDArray[np.float32]) -> FloatArray | float:
        """Return what the text's values are divided by, for each column or for all; `squares` are of its features."""
        if not self.params.norm:
            return 1.0
        values = row.values * row.values
        total = values @ squares if squares.shape[1] else values.sum()
        return np.asarray(np.sqrt(np.maximum(total, _TINY)))

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`."""
        scores = self.scores(texts)
        if self.task is not Task.MULTI_CLASS or not self._one_vs_rest:
            return base.probabilities(scores, self.task)
        p = base.sigmoid(scores)
        p /= p.sum(axis=1, keepdims=True)  # no sigmoid is 0
        return p

    def explain(self, text: str, label: int) -> Explanation:
        """Share the score of a label out among the words of a text, exactly.

        An n-gram's part is divided equally among the characters of its words.
        """
        weights = self._fitted
        column, sign = base.column_of(label, self.task)
        row = next(iter(self.features_.rows([text])))
        parts = sign * row.values * weights.coef[row.indices, column]
        lengths = self._lengths(row, self._joined[row.indices, len(weights.intercept) :])
        parts = parts / np.broadcast_to(lengths, weights.intercept.shape)[column]
        per_character = self.features_.spread(text, dict(zip(row.indices.tolist(), parts.tolist(), strict=True)))
        intercept = sign * float(weights.intercept[column])
        contributions = word_contributions(text, per_character)
        score = intercept + sum(c.value for c in contributions)
        return Explanation(self.labels[label], base=intercept, score=score, contributions=contributions)

    def top_features(self, label: int, n: int) -> list[tuple[str, float]]:
        """Return at most `n` n-grams that raise the score of a label, strongest first; words where there are words."""
        column, sign = base.column_of(label, self.task)
        scale = self.features_.scale()
        strength = sign * self._fitted.coef[: len(scale), column] * scale
        best = np.argpartition(-strength, min(n, len(strength)) - 1)[:n]
        best = best[np.lexsort((best, -strength[best]))]
        best = best[strength[best] > 0]
        return list(zip(self.features_.spell(best), strength[best].tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """Write parameters, words and weights."""
        weights = self._fitted
        self.write_settings(folder)
        arrays = {**self.features_.save(folder), "coef": weights.coef, "intercept": weights.intercept}
        if weights.squares is not None:
            arrays["squares"] = weights.squares
        np.savez_compressed(folder / "linear.npz", **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
        """
        model = cls.from_settings(folder)
        arrays = base.read_arrays(folder / "linear.npz")
        try:
            model.features_ = NgramFeatures.load(model.params, folder, arrays)
            model._take(Weights(arrays["coef"], arrays["intercept"], arrays.get("squares")))
        except (KeyError, OSError, UnicodeDecodeError) as error:
            raise PackageError(f"the linear model's files are incomplete: {error}") from error
        return model


_TINY = 2.2e-308  # asking numpy for it at each text takes longer than the division it guards
