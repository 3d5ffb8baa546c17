"""Gradient-boosted trees over TF-IDF features, fitted and served with LightGBM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamiz.classifiers import base
from tamiz.classifiers.features import FeatureParams, Lengths, NgramFeatures, fit_features, sparse, word_contributions
from tamiz.classifiers.ngrams import chunks
from tamiz.classifiers.regression import NEVER
from tamiz.errors import PackageError
from tamiz.extras import require
from tamiz.types import BoolArray, Explanation, FloatArray, Progress, Task, Validation

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["BoostingClassifier"]

_MOST_IN_LEAF = 20  # LightGBM's own default
_FEATURES_PER_TREE = 1000
_TEXTS_PER_LEAF = 50  # with few texts, a leaf may hold one in so many


class BoostingParams(FeatureParams):
    """Parameters of the `boosting` family."""

    words: Lengths | None = (1, 1)
    """Shortest and longest word n-gram; `null` for none."""
    max_features: Annotated[int, Field(ge=1)] | None = 10_000
    """Keep only so many n-grams of each kind, the most widespread; `null` for all. Trees take time for each."""
    rounds: Annotated[int, Field(ge=1)] = 200
    """Most trees: of each label, in binary tasks of both together. Without validation all are grown; a refit grows
    as many as validation chose."""
    early_stopping: Annotated[int, Field(ge=1)] | None = 20
    """Stop when the log loss on validation has not fallen for so many rounds, and keep the best; `null` never stops."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What each tree counts."""
    leaves: Annotated[int, Field(ge=2)] = 15
    """Most leaves of a tree."""
    min_data_in_leaf: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Fewest training texts in a leaf; `auto`: a fiftieth of all, at least 1 and at most 20."""
    feature_share: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Each tree may use this share of the features, drawn at random; `auto`: half, but no more than 1,000."""
    l2: Annotated[float, Field(ge=0)] = 1.0
    """L2 penalty on the values of leaves."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weights labels by the inverse of their frequency."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Threads, when fitting and when serving; 0: as many as the machine has. Answers do not depend on it."""


class BoostingClassifier(base.Family[BoostingParams]):
    """Gradient-boosted trees: one booster a label in multi-label tasks, else one for all labels.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of the drawing of features.
        params: see `BoostingParams`.

    Source: Ke et al. (2017), "LightGBM: a highly efficient gradient boosting decision tree".
    """

    Params = BoostingParams

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self.features_ = NgramFeatures(self.params)
        self.boosters_: dict[int, Any] = {}
        """By the first column of scores that each gives."""
        self._settled: dict[int, int] = {}
        self.fixed_: FloatArray = np.empty(0)
        """Scores `(columns,)`; those that no booster gives count."""

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from texts; `validation` decides when to stop.

        Raises:
            LabelError: targets do not fit, or no n-gram stands in `min_df` texts.
            MissingExtraError: LightGBM is not installed.
        """
        require("lightgbm", extra="train")
        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        x = fit_features(self.features_, texts, self.params.min_df, progress)
        held_out = None
        if validation is not None and self.params.early_stopping is not None and len(validation.texts):
            held = base.indicators(validation.targets, len(self.labels), self.task, len(validation.texts))
            held_out = (self._matrix_in_parts(validation.texts), held)
        if self.task is Task.MULTI_CLASS:
            self._fit_classes(x, has, held_out, progress)
        else:
            first = int(self.task is Task.BINARY)
            self._fit_labels(x, has[:, first:], held_out and (held_out[0], held_out[1][:, first:]), progress)
        return self

    def refit(
        self, texts: Sequence[str], targets: NDArray[Any], *, seed: int, progress: Progress | None = None
    ) -> Self:
        """Return a new classifier with as many rounds for each booster as this one kept."""
        new = self.anew(seed)
        new._settled = self.rounds_
        return new.fit(texts, targets, progress=progress)

    def _fit_labels(
        self, x: csr_matrix, has: BoolArray, held_out: tuple[csr_matrix, BoolArray] | None, progress: Progress | None
    ) -> None:
        columns = has.shape[1]
        self.boosters_, self.fixed_ = {}, np.where(has.any(axis=0), -NEVER, NEVER)
        grower = _Grower(self.params, self._seed, "binary", 1, x, held_out and held_out[0])
        for column in range(columns):
            y = has[:, column]
            if y.all() or not y.any():
                continue
            told = _told(progress, column, columns, self.params.rounds)
            held_y = held_out and held_out[1][:, column].astype(int)
            self.boosters_[column] = grower.grow(y.astype(int), held_y, told, self._settled.get(column))

    def _fit_classes(
        self, x: csr_matrix, has: BoolArray, held_out: tuple[csr_matrix, BoolArray] | None, progress: Progress | None
    ) -> None:
        """Fit one softmax over the classes with examples, which are the first columns of the scores."""
        present = np.flatnonzero(has.any(axis=0))
        self.boosters_, self.fixed_ = {}, np.full(has.shape[1], NEVER)
        if len(present) == 1:
            self.fixed_[present] = 0.0
            return
        held_x = held_y = None
        if held_out is not None:
            known = np.flatnonzero(held_out[1][:, present].any(axis=1))
            if len(known):
                held_x, held_y = held_out[0][known], held_out[1][known][:, present].argmax(axis=1)
        grower = _Grower(self.params, self._seed, "multiclass", len(present), x, held_x)
        told = _told(progress, 0, 1, self.params.rounds)
        self.boosters_[0] = grower.grow(has[:, present].argmax(axis=1), held_y, told, self._settled.get(0))
        self.fixed_[present] = np.nan

    @property
    def rounds_(self) -> dict[int, int]:
        """How many rounds each booster kept."""
        return {column: int(booster.current_iteration()) for column, booster in self.boosters_.items()}

    def _matrix(self, texts: Sequence[str]) -> csr_matrix:
        return sparse(list(self.features_.rows(texts)), len(self.features_))

    def _matrix_in_parts(self, texts: Sequence[str]) -> csr_matrix:
        from scipy.sparse import vstack

        return vstack([self._matrix(chunk) for chunk in chunks(texts)], format="csr")

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """Return the scores `(n, columns)`; binary tasks have one column, for the second label."""
        if not self.fixed_.size:
            raise RuntimeError("the classifier is not fitted; call fit first")
        parts = [self._chunk_scores(chunk) for chunk in chunks(texts)]
        return np.vstack([np.empty((0, len(self.fixed_))), *parts])

    def _chunk_scores(self, texts: Sequence[str]) -> FloatArray:
        scores = np.tile(self.fixed_, (len(texts), 1))
        x = self._matrix(texts)
        for column, booster in self.boosters_.items():
            found = booster.predict(x, raw_score=True, num_threads=self.params.num_threads)
            scores[:, self._columns(column)] = found.reshape(len(texts), -1)
        return scores

    def _columns(self, column: int) -> NDArray[np.int64]:
        """Return the columns of scores that a booster gives."""
        return np.flatnonzero(np.isnan(self.fixed_)) if self.task is Task.MULTI_CLASS else np.array([column])

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`."""
        return base.probabilities(self.scores(texts), self.task)

    def explain(self, text: str, label: int) -> Explanation:
        """Share the score of a label out among the words of a text by their Shapley values.

        What the absence of other words gives belongs to the base.

        Source: Lundberg, Erion & Lee (2018), "Consistent individualized feature attribution for tree ensembles".
        """
        column, sign = base.column_of(label, self.task)
        score = sign * float(self.scores([text])[0, column])
        row = next(iter(self.features_.rows([text])))
        parts = sign * self._shapley(text, column)[row.indices]
        per_character = self.features_.spread(text, dict(zip(row.indices.tolist(), parts.tolist(), strict=True)))
        contributions = word_contributions(text, per_character)
        rest = score - sum(c.value for c in contributions)
        return Explanation(self.labels[label], base=rest, score=score, contributions=contributions)

    def _shapley(self, text: str, column: int) -> FloatArray:
        """Return what each feature gives, `(features,)`."""
        booster = self.boosters_.get(0 if self.task is Task.MULTI_CLASS else column)
        place = np.flatnonzero(self._columns(column) == column)
        if booster is None or not len(place):
            return np.zeros(len(self.features_))
        found = booster.predict(self._matrix([text]), pred_contrib=True, num_threads=self.params.num_threads)
        found = found[place[0]] if isinstance(found, list) else found
        return np.asarray(found.toarray()[0, :-1])

    def save(self, folder: Path) -> None:
        """Write parameters, words and the boosters in LightGBM's text format."""
        self.write_settings(folder)
        arrays = {**self.features_.save(folder), "fixed": self.fixed_, "boosters": np.array([*self.boosters_], int)}
        np.savez_compressed(folder / "boosting.npz", **arrays)  # type: ignore[arg-type]
        for column, booster in self.boosters_.items():
            (folder / f"booster_{column}.txt").write_text(booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = require("lightgbm", extra="train")
        model = cls.from_settings(folder)
        arrays = base.read_arrays(folder / "boosting.npz")
        try:
            model.features_ = NgramFeatures.load(model.params, folder, arrays)
            model.fixed_ = arrays["fixed"]
            for column in arrays["boosters"].tolist():
                text = (folder / f"booster_{column}.txt").read_text(encoding="utf-8")
                model.boosters_[column] = lightgbm.Booster(model_str=text)
        except (KeyError, OSError, UnicodeDecodeError, lightgbm.basic.LightGBMError) as error:
            raise PackageError(f"the boosting model's files are incomplete: {error}") from error
        return model


def _told(progress: Progress | None, place: int, of: int, rounds: int) -> Callable[[Any], None]:
    def told(environment: Any) -> None:
        if progress:
            progress("growing trees", place * rounds + environment.iteration + 1, of * rounds)

    return told


class _Grower:
    """Grow boosters on the same features; they are sorted into bins once for all labels."""

    def __init__(
        self, params: BoostingParams, seed: int, objective: str, classes: int, x: csr_matrix, held_x: csr_matrix | None
    ) -> None:
        self._lightgbm = require("lightgbm", extra="train")
        self._params = params
        least = params.min_data_in_leaf
        if least == "auto":
            least = max(1, min(_MOST_IN_LEAF, x.shape[0] // _TEXTS_PER_LEAF))
        share = params.feature_share
        if share == "auto":
            # Trees that may all use the same few words would use no others.
            share = min(0.5, _FEATURES_PER_TREE / x.shape[1])
        self._about = {
            "objective": objective,
            "num_class": classes,
            "metric": "multi_logloss" if objective == "multiclass" else "binary_logloss",
            "learning_rate": params.learning_rate,
            "num_leaves": params.leaves,
            "min_data_in_leaf": least,
            "min_data_in_bin": min(3, least),
            "feature_fraction": share,
            "lambda_l2": params.l2,
            "max_bin": 15,  # a TF-IDF value takes few distinct ones, most of them zero
            "feature_pre_filter": False,
            "seed": seed,
            "deterministic": True,
            # A layout chosen by a timing would differ between runs; by column is quicker where trees see few features.
            "force_col_wise": True,
            "num_threads": params.num_threads,
            "verbosity": -1,
        }
        self._train = self._lightgbm.Dataset(x, params=self._about, free_raw_data=False)
        self._held = held_x is not None and self._lightgbm.Dataset(held_x, reference=self._train, free_raw_data=False)

    def grow(
        self, y: NDArray[Any], held_y: NDArray[Any] | None, told: Callable[[Any], None], rounds: int | None
    ) -> Any:
        """Return a booster of so many rounds (of all there may be).

        With `held_y`, the answers of the held-out texts, it is cut after its best round.
        """
        weights = np.ones(y.max() + 1)
        if self._params.class_weight == "balanced":
            weights = len(y) / (len(weights) * np.maximum(np.bincount(y), 1))
        self._train.set_label(y)
        self._train.set_weight(weights[y])
        callbacks, valid_sets = [told], []
        if self._held and held_y is not None and self._params.early_stopping is not None:
            self._held.set_label(held_y)
            self._held.set_weight(weights[held_y])
            valid_sets = [self._held]
            callbacks.append(self._lightgbm.early_stopping(self._params.early_stopping, verbose=False))
        booster = self._lightgbm.train(
            self._about, self._train, rounds or self._params.rounds, valid_sets=valid_sets, callbacks=callbacks
        )
        # Through its text and back: the answers are those of a loaded model, and training's memory is given back.
        best = booster.best_iteration if valid_sets else None
        return self._lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))
