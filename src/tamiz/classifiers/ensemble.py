"""The weighted mean of the probabilities of several classifiers.

Each member's probabilities are first sharpened or softened by a temperature of its own, so that an overconfident member
does not outweigh the others; the mean is then calibrated like any family's answer, by what the project file asks for.
Temperatures and weights are those with the lowest log loss on validation; a refit on all data keeps them. Without
validation temperatures are 1 and weights equal, or those that the parameters fix.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamiz.classifiers import base, check_params, classifier_class
from tamiz.cleaning import Cleaner, StepSpec
from tamiz.errors import ConfigError, PackageError
from tamiz.types import (
    EARLIER_SECONDS,
    BoolArray,
    Classifier,
    FloatArray,
    Point,
    Progress,
    Refits,
    Resumes,
    Task,
    Traces,
    Validation,
)

__all__ = ["EnsembleClassifier"]

_LEAST = 1e-12
_FEWEST = 20  # validation texts; fewer decide nothing
_COLDEST, _HOTTEST = 0.2, 5.0
_SMALLEST_WEIGHT = 0.01  # a member that counts less is left out, and costs nothing when serving
_ROUNDS = 1000


class Member(base.Params):
    """One classifier of an ensemble."""

    family: str
    """Its family."""
    params: dict[str, Any] = Field(default={})
    """Parameters of the family."""
    prepare: list[StepSpec] = Field(default=[])
    """Cleaning steps for this member alone, after the candidate's own `prepare`."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.family == "ensemble":
            raise ConfigError("an ensemble cannot be a member of an ensemble; list its members instead")
        check_params(self.family, self.params)
        Cleaner(self.prepare)
        return self


class EnsembleParams(base.Params):
    """Parameters of the `ensemble` family."""

    members: list[Member] = Field(
        default=[Member(family="linear"), Member(family="nb_stack")], min_length=2, max_length=20
    )
    """The classifiers, each `{family: ..., params: {...}, prepare: [...]}` or `{candidate: NAME}` for another candidate
    of the project, which is not fitted twice; by default `linear` and `nb_stack`. All learn from the same texts."""
    weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """Fixed weights of the members, in proportion; by default those with the lowest log loss on validation, or equal
    ones where there is none. A refit keeps them."""
    temperatures: bool = True
    """Sharpen or soften each member's probabilities by a temperature fitted on validation, where there is one."""

    @model_validator(mode="after")
    def _one_weight_a_member(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members; give one for each")
        if sum(self.weights) <= 0:
            raise ValueError("all weights are 0; give at least one member more")
        return self


class EnsembleClassifier(base.Family[EnsembleParams]):
    """Several classifiers that answer together.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of every member.
        params: see `EnsembleParams`.
    """

    Params = EnsembleParams

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self._prepare = [Cleaner(member.prepare) for member in self.params.members]
        count = len(self.params.members)
        self._borrowed: Mapping[int, Classifier] = {}
        self._checkpoints: Path | None = None
        self._traces: dict[int, Traces] = {}  # of members that `fit` fits itself, the present one included
        self.members_: dict[int, Classifier] = {}
        """Fitted members by place; those that do not count are left out."""
        self.temperatures_: FloatArray = np.ones(count)
        self.weights_: FloatArray = np.full(count, 1.0 / count)

    @property
    def tolerance(self) -> float:  # type: ignore[override]
        """How far a text's probabilities may move with the texts beside it: as far as the least exact member's."""
        return max([1e-9, *(getattr(member, "tolerance", 1e-9) for member in self.members_.values())])

    def keep_in(self, folder: Path | None) -> None:
        """Keep the state of the members' next fits in `folder`, each that keeps one in a folder of its own."""
        self._checkpoints = folder

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit every member, then temperatures and weights on `validation`.

        Raises:
            LabelError: targets do not fit, or a member found nothing to learn from.
            MissingExtraError: a member's library is not installed.
        """
        base.indicators(targets, len(self.labels), self.task, len(texts))
        count = len(self.params.members)
        fitted = []
        self._traces = {}
        for place, (member, prepare) in enumerate(zip(self.params.members, self._prepare, strict=True)):
            if place in self._borrowed:
                fitted.append(self._borrowed[place])
                continue
            cls: Any = classifier_class(member.family)
            made: Classifier = cls(self.labels, self.task, seed=self._seed, **member.params)
            held = None if validation is None else Validation(prepare.many(validation.texts), validation.targets)
            told = base.prefixed(progress, f"member {place + 1} of {count}, {member.family}")
            if isinstance(made, Traces):
                self._traces[place] = made
            self._keep(place, made)
            fitted.append(made.fit(prepare.many(texts), targets, validation=held, progress=told))
        return self.combine(fitted, validation=validation)

    def history(self) -> Sequence[Point]:
        """Return what the members record while `fit` fits them, such as `member_2/train_loss`; mostly nothing."""
        return [
            Point(step, f"member_{place + 1}/{name}", value)
            for place, member in self._traces.items()
            for step, name, value in member.history()
        ]

    def figures(self) -> Mapping[str, float]:
        """Return the seconds that an earlier, killed fit of members took; other figures of theirs are not its own."""
        earlier = sum(member.figures().get(EARLIER_SECONDS, 0.0) for member in self._traces.values())
        return {EARLIER_SECONDS: earlier} if earlier else {}

    def borrow(self, members: Mapping[int, Classifier]) -> None:
        """Take these members, by place, in the next `fit` instead of fitting them."""
        self._borrowed = dict(members)

    def combine(self, members: Sequence[Classifier], *, validation: Validation | None = None) -> Self:
        """Take members that are fitted already, in order; choose temperatures and weights on `validation`."""
        self.members_ = dict(enumerate(members))
        self._combine(validation)
        self.members_ = {place: made for place, made in self.members_.items() if self.weights_[place] > 0}
        return self

    def refit(
        self, texts: Sequence[str], targets: NDArray[Any], *, seed: int, progress: Progress | None = None
    ) -> Self:
        """Return a new classifier with this one's weights and temperatures; members that did not count are left out."""
        new = self.anew(seed)
        new.weights_, new.temperatures_ = self.weights_.copy(), self.temperatures_.copy()
        count = len(self.params.members)
        for place, member in self.members_.items():
            config, own = self.params.members[place], self._prepare[place].many(texts)
            told = base.prefixed(progress, f"member {place + 1} of {count}, {config.family}")
            self._keep(place, member)
            if isinstance(member, Refits):
                new.members_[place] = member.refit(own, targets, seed=seed, progress=told)
            else:
                cls: Any = classifier_class(config.family)
                made: Classifier = cls(self.labels, self.task, seed=seed, **config.params)
                new.members_[place] = made.fit(own, targets, progress=told)
        return new

    def remembering(self) -> Self:
        """Return a classifier whose members read each text once; it shares all with this one."""
        other = copy.copy(self)
        other.members_ = {place: base.remembering(member) for place, member in self.members_.items()}
        return other

    def _keep(self, place: int, member: Classifier) -> None:
        """Say where a member that goes on from where it was cut off keeps its state."""
        if isinstance(member, Resumes):
            member.keep_in(None if self._checkpoints is None else self._checkpoints / f"member_{place}")

    def _combine(self, validation: Validation | None) -> None:
        """Choose temperatures and weights."""
        count = len(self.members_)
        self.temperatures_, self.weights_ = np.ones(count), np.full(count, 1.0 / count)
        if self.params.weights is not None:
            self.weights_ = np.array(self.params.weights) / sum(self.params.weights)
        if validation is None or len(validation.texts) < _FEWEST:
            return
        has = base.indicators(validation.targets, len(self.labels), self.task, len(validation.texts))
        answers = [self._answers(place, validation.texts) for place in range(count)]
        if self.params.temperatures:
            self.temperatures_ = np.array([_best_temperature(p, has, self.task) for p in answers])
        if self.params.weights is None:
            tempered = [_tempered(p, t, self.task) for p, t in zip(answers, self.temperatures_, strict=True)]
            self.weights_ = _best_weights(np.stack([_likelihoods(p, has, self.task) for p in tempered], axis=1))

    def _answers(self, place: int, texts: Sequence[str]) -> FloatArray:
        return self.members_[place].predict_proba(self._prepare[place].many(texts))

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`."""
        if not self.members_:
            raise RuntimeError("the classifier is not fitted; call fit first")
        total = np.zeros((len(texts), len(self.labels)))
        for place in self.members_:
            tempered = _tempered(self._answers(place, texts), self.temperatures_[place], self.task)
            total += self.weights_[place] * tempered
        return np.minimum(total, 1.0)  # rounding may leave a little more

    def save(self, folder: Path) -> None:
        """Write weights and temperatures, and each member that counts into a folder of its own."""
        self.write_settings(folder)
        about = {"weights": self.weights_.tolist(), "temperatures": self.temperatures_.tolist()}
        (folder / "ensemble.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        for place, member in self.members_.items():
            (folder / f"member_{place}").mkdir()
            member.save(folder / f"member_{place}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
            MissingExtraError: a member's library is not installed.
        """
        model = cls.from_settings(folder)
        try:
            about = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
            found = np.array([about["weights"], about["temperatures"]], np.float64)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PackageError(f"ensemble.json in the package is missing or damaged: {error}") from error
        if found.shape != (2, len(model.params.members)):
            raise PackageError(f"ensemble.json has {found.shape[1:]} weights for {len(model.params.members)} members")
        model.weights_, model.temperatures_ = found
        for place in np.flatnonzero(model.weights_ > 0).tolist():
            family = classifier_class(model.params.members[place].family)
            model.members_[place] = family.load(folder / f"member_{place}")
        return model


def _tempered(p: FloatArray, temperature: float, task: Task) -> FloatArray:
    """Divide log-odds (multi-label) or log-probabilities by the temperature; 1 changes nothing."""
    if temperature == 1.0 or not len(p):
        return p
    logs = np.log(np.maximum(p, _LEAST))
    if task is Task.MULTI_LABEL:
        return base.sigmoid((logs - np.log(np.maximum(1.0 - p, _LEAST))) / temperature)
    return base.softmax(logs / temperature)


def _likelihoods(p: FloatArray, has: BoolArray, task: Task) -> FloatArray:
    """Return the probability that was given to each true answer: one a text, or one a text and label."""
    found = np.where(has, p, 1.0 - p).ravel() if task is Task.MULTI_LABEL else p[has]
    return np.maximum(found, _LEAST)


def _best_temperature(p: FloatArray, has: BoolArray, task: Task) -> float:
    """Return the temperature with the lowest log loss.

    Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.2.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        tempered = _tempered(p, float(np.exp(log_temperature)), task)
        return -float(np.log(_likelihoods(tempered, has, task)).mean())

    bounds = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _best_weights(likelihoods: FloatArray) -> FloatArray:
    """Return the weights of a mean with the lowest log loss; `likelihoods` are `(answers, members)`.

    The loss is convex in the weights, and expectation maximisation never leaves the simplex. Members of almost no
    weight get none.

    Source: Smyth & Wolpert (1999), "Linearly combining density estimators via stacking", section 3.
    """
    weights = np.full(likelihoods.shape[1], 1.0 / likelihoods.shape[1])
    for _ in range(_ROUNDS):
        shares = likelihoods * weights
        new = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        moved, weights = np.abs(new - weights).max(), new
        if moved < 1e-7:
            break
    weights = np.where(weights < _SMALLEST_WEIGHT, 0.0, weights)
    return np.asarray(weights / weights.sum())
