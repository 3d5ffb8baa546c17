"""Calibrators: maps from a classifier's probabilities to ones that match observed frequencies.

Methods, simplest first:

`none`
    leaves probabilities as they are.
`temperature`
    binary and multi-class: `softmax(log p / T)`; multi-label: `sigmoid(logit(p) / T)`. One T for the whole model, in
    multi-label tasks too: the order of labels in a row and every answer at .5 stay as they were, and a rare label
    borrows the evidence of the others. T minimises the negative log-likelihood plus `log(T)^2 / 2`, which weighs about
    as much as one example and keeps T finite where the validation data are separated without a mistake.
`sigmoid`
    `sigmoid(a * logit(p) + b)` with `a >= 0`, fitted to Platt's smoothed targets.
`isotonic`
    a non-decreasing step-wise linear curve, kept within Platt's smoothed targets and so away from 0 and 1.

`sigmoid` and `isotonic` have one curve per label (one-vs-rest, rows divided by their sum in multi-class tasks; in
binary tasks one curve for the second label, its mirror image for the first). A label with fewer than two examples of
either outcome keeps its probabilities.

Source:
    Temperature: Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks, section 4.2.
    Sigmoid: Platt (1999), Probabilistic Outputs for Support Vector Machines (targets (N+ + 1) / (N+ + 2) and
    1 / (N- + 2)).
    Isotonic and one-vs-rest: Zadrozny, Elkan (2002), Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tamiz.decision._curves import (
    FEWEST_OUTCOMES,
    Knots,
    fit_knots,
    fit_line,
    fit_temperature_of_labels,
    fit_temperature_of_rows,
    log,
    logit,
    sigmoid,
    tempered_rows,
)
from tamiz.errors import ConfigError, DataError, PackageError, one_of, reason_of
from tamiz.types import BoolArray, FloatArray, Task

__all__ = ["METHODS", "Calibrator", "fit_calibrator"]

Method = Literal["none", "temperature", "sigmoid", "isotonic"]

METHODS: tuple[Method, ...] = ("none", "temperature", "sigmoid", "isotonic")
"""Calibration methods, simplest first; `fit_calibrator` also takes `auto`."""

_FEWEST_EXAMPLES = 20
_FOLDS = 5
_TIE = 1e-9
_SMALLEST = 1e-15


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from probabilities `(n, k)` to calibrated probabilities `(n, k)`.

    Attributes:
        method: one of `METHODS`; never `auto`.
        task: the task it was fitted for.
        temperature: T of `temperature`.
        lines: slope and intercept per curve of `sigmoid`.
        knots: scores (ascending) and probabilities per curve of `isotonic`.
        reason: why the method was taken, where it was not simply asked for.
        log_losses: cross-validated log loss by method, where methods were compared.

    Example:
        >>> Calibrator("temperature", Task.BINARY, temperature=2.0).apply(np.array([[0.1, 0.9]])).round(3)
        array([[0.25, 0.75]])
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: Method
    task: Task
    temperature: float = 1.0
    lines: tuple[tuple[float, float], ...] = ()
    knots: tuple[Knots, ...] = ()
    reason: str = ""
    log_losses: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parameters that would give probabilities that are none."""
        if self.method not in METHODS:
            raise ConfigError(f"calibration method {self.method!r}: {one_of(str(self.method), METHODS)}")
        if self.temperature <= 0:
            raise ConfigError(f"calibration temperature {self.temperature}: it must be above 0")
        if not all(_is_curve(curve) for curve in self.knots):
            raise ConfigError("isotonic calibration: a curve needs ascending scores, each with a probability in [0, 1]")

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return calibrated probabilities `(n, k)`; each row depends on that row alone.

        Rows sum to one unless the task is multi-label. The argument is not mutated; `n` may be 0.

        Raises:
            DataError: the shape does not fit the task or the labels that the calibrator was fitted on.
        """
        probabilities = np.asarray(probabilities, dtype=np.float64)
        self._check_shape(probabilities)
        if self.method == "none":
            return probabilities.copy()
        if self.method == "temperature":
            if self.task is Task.MULTI_LABEL:
                return sigmoid(logit(probabilities) / self.temperature)
            return tempered_rows(probabilities, self.temperature)
        columns = _columns(probabilities, self.task)
        if self.method == "sigmoid":
            slopes, intercepts = self._line_arrays
            columns = sigmoid(logit(columns) * slopes + intercepts)
        else:
            curves = zip(columns.T, self._knot_arrays, strict=True)
            columns = np.column_stack([np.interp(column, scores, values) for column, (scores, values) in curves])
        return _assembled(columns, self.task)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary from which `from_dict` restores the calibrator exactly."""
        data: dict[str, Any] = _adapter().dump_python(self, mode="json", exclude_defaults=True)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Restore what `to_dict` wrote.

        Raises:
            PackageError: a key is missing or unknown, or a value is out of range.
        """
        try:
            restored = _adapter().validate_python(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "calibration"
            raise PackageError(f"calibration of the model package: {place}: {reason_of(first)}") from error
        return cls(**vars(restored))

    @cached_property
    def _line_arrays(self) -> tuple[FloatArray, FloatArray]:
        lines = np.array(self.lines, dtype=np.float64).reshape(-1, 2)
        return lines[:, 0], lines[:, 1]

    @cached_property
    def _knot_arrays(self) -> list[tuple[FloatArray, FloatArray]]:
        return [
            (np.array(scores, dtype=np.float64), np.array(values, dtype=np.float64)) for scores, values in self.knots
        ]

    def _check_shape(self, probabilities: FloatArray) -> None:
        if probabilities.ndim != 2 or (self.task is Task.BINARY and probabilities.shape[1] != 2):
            wanted = "(n, 2)" if self.task is Task.BINARY else "(n, labels)"
            raise DataError(f"probabilities of a {self.task} task: shape {probabilities.shape}, expected {wanted}")
        curves = {"sigmoid": len(self.lines), "isotonic": len(self.knots)}.get(self.method)
        given = 1 if self.task is Task.BINARY else probabilities.shape[1]
        if curves is not None and curves != given:
            raise DataError(f"{self.method} calibration: fitted on {curves} labels, given {given}")


def _adapter() -> TypeAdapter[Calibrator]:
    return TypeAdapter(Calibrator)


def fit_calibrator(
    method: str, probabilities: FloatArray, targets: NDArray[Any], task: Task, *, seed: int = 0
) -> Calibrator:
    """Fit a calibrator on held-out examples.

    `auto` takes the method with the lowest log loss in 5-fold cross-validation on these examples (shuffled with `seed`,
    stratified unless multi-label, fewer folds where a label has fewer than five examples); within 1e-9 the simpler
    method wins. With fewer than 20 examples, or only one outcome, it takes `none`; where a label of a single-label
    task has fewer than two examples, it compares only `none` and `temperature`. `reason` then says so.

    Args:
        method: one of `METHODS` or `auto`.
        probabilities: `(n, k)`, of examples that the classifier was not fitted on.
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        task: what kind of answer the classifier gives.
        seed: of the folds.

    Raises:
        ConfigError: the method is unknown.
        DataError: shapes or label indices do not fit together, or a probability is not a finite number.
    """
    if method not in ("auto", *METHODS):
        raise ConfigError(f"calibration method {method!r}: {one_of(method, ['auto', *METHODS])}")
    task = Task(task)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    targets = np.asarray(targets)
    _check_examples(probabilities, targets, task)
    if method == "auto":
        return _chosen(probabilities, targets, task, seed)
    if len(probabilities) == 0:
        return Calibrator("none", task, reason="no validation examples")
    return _FITS[method](probabilities, targets, task)


def _chosen(probabilities: FloatArray, targets: NDArray[Any], task: Task, seed: int) -> Calibrator:
    methods, reason = _comparable(probabilities, targets, task)
    if len(methods) == 1:
        return replace(_FITS[methods[0]](probabilities, targets, task), reason=reason)
    folds = list(_folds(targets, task, seed))
    losses: dict[str, float] = {
        method: _held_out_loss(method, probabilities, targets, task, folds) for method in methods
    }
    best = methods[0]
    for method in methods[1:]:
        if losses[method] < losses[best] - _TIE:
            best = method
    because = f"lowest log loss in {len(folds)}-fold cross-validation"
    fitted = _FITS[best](probabilities, targets, task)
    return replace(fitted, reason=f"{because}; {reason}" if reason else because, log_losses=losses)


def _comparable(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> tuple[tuple[Method, ...], str]:
    """Return the methods that these examples can compare, and why not all."""
    n, k = probabilities.shape
    if n < _FEWEST_EXAMPLES:
        return ("none",), f"{n} validation examples; comparing methods needs {_FEWEST_EXAMPLES}"
    if task is Task.MULTI_LABEL:
        return (METHODS, "") if 0 < targets.sum() < targets.size else (("none",), "only one outcome in validation data")
    counts = np.bincount(targets, minlength=k)
    if np.count_nonzero(counts) == 1:
        return ("none",), "only one label in validation data"
    if counts.min() < FEWEST_OUTCOMES:
        few = int(np.count_nonzero(counts < FEWEST_OUTCOMES))
        return ("none", "temperature"), f"{few} of {k} labels with fewer than {FEWEST_OUTCOMES} validation examples"
    return METHODS, ""


def _folds(targets: NDArray[Any], task: Task, seed: int) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = np.zeros(len(targets))
    fewest = 0 if task is Task.MULTI_LABEL else int(np.bincount(targets).min())
    splitter = (
        KFold(_FOLDS, shuffle=True, random_state=seed)
        if fewest < FEWEST_OUTCOMES
        else StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    )
    folds: Iterable[tuple[NDArray[Any], NDArray[Any]]] = splitter.split(rows, None if fewest == 0 else targets)
    return folds


def _held_out_loss(
    method: Method,
    probabilities: FloatArray,
    targets: NDArray[Any],
    task: Task,
    folds: Iterable[tuple[NDArray[Any], NDArray[Any]]],
) -> float:
    held_out = np.empty_like(probabilities)
    for train, test in folds:
        held_out[test] = _FITS[method](probabilities[train], targets[train], task).apply(probabilities[test])
    if task is Task.MULTI_LABEL:
        return float(-log(np.where(targets, held_out, 1 - held_out)).mean())
    return float(-log(held_out[np.arange(len(targets)), targets]).mean())


def _fit_none(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> Calibrator:
    return Calibrator("none", task)


def _fit_temperature(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> Calibrator:
    fit = fit_temperature_of_labels if task is Task.MULTI_LABEL else fit_temperature_of_rows
    return Calibrator("temperature", task, temperature=fit(probabilities, targets))


def _fit_sigmoid(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> Calibrator:
    scores = logit(_columns(probabilities, task))
    outcomes = _outcomes(targets, task, probabilities.shape[1])
    pairs = zip(scores.T, outcomes.T, strict=True)
    return Calibrator("sigmoid", task, lines=tuple(fit_line(score, outcome) for score, outcome in pairs))


def _fit_isotonic(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> Calibrator:
    columns = _columns(probabilities, task)
    outcomes = _outcomes(targets, task, probabilities.shape[1])
    pairs = zip(columns.T, outcomes.T, strict=True)
    return Calibrator("isotonic", task, knots=tuple(fit_knots(column, outcome) for column, outcome in pairs))


_FITS: dict[str, Callable[[FloatArray, NDArray[Any], Task], Calibrator]] = {
    "none": _fit_none,
    "temperature": _fit_temperature,
    "sigmoid": _fit_sigmoid,
    "isotonic": _fit_isotonic,
}


def _check_examples(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> None:
    Calibrator("none", task)._check_shape(probabilities)
    n, k = probabilities.shape
    shape, kind = ((n, k), "b") if task is Task.MULTI_LABEL else ((n,), "iu")
    if targets.shape != shape or targets.dtype.kind not in kind:
        wanted = "bool" if kind == "b" else "integer"
        raise DataError(f"targets of a {task} task: {targets.dtype} {targets.shape}, expected {wanted} {shape}")
    if kind == "iu" and n and not 0 <= targets.min() <= targets.max() < k:
        raise DataError(f"targets: indices {targets.min()} to {targets.max()}, allowed: 0 to {k - 1}")
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities: some are not finite numbers; the classifier is at fault")


def _is_curve(curve: Knots) -> bool:
    scores, values = curve
    in_range = all(0 <= value <= 1 for value in values)
    return 0 < len(scores) == len(values) and in_range and all(a <= b for a, b in pairwise(scores))


def _outcomes(targets: NDArray[Any], task: Task, k: int) -> BoolArray:
    """Return per curve whether each example has its label: bool `(n, curves)`."""
    if task is Task.MULTI_LABEL:
        return targets
    outcomes: BoolArray = targets[:, None] == ([1] if task is Task.BINARY else np.arange(k))
    return outcomes


def _columns(probabilities: FloatArray, task: Task) -> FloatArray:
    return probabilities[:, 1:] if task is Task.BINARY else probabilities


def _assembled(columns: FloatArray, task: Task) -> FloatArray:
    """Make full rows of what the curves gave."""
    if task is Task.BINARY:
        return np.hstack([1 - columns, columns])
    if task is Task.MULTI_LABEL:
        return columns
    columns = np.maximum(columns, _SMALLEST)  # a row may otherwise sum to 0
    rows: FloatArray = columns / columns.sum(axis=1, keepdims=True)
    return rows
