"""The arithmetic of calibration: logits, and the fit of one curve. Fitting imports scipy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tamiz.types import BoolArray, FloatArray, IntArray

__all__ = [
    "FEWEST_OUTCOMES",
    "Knots",
    "fit_knots",
    "fit_line",
    "fit_temperature_of_labels",
    "fit_temperature_of_rows",
    "log",
    "logit",
    "sigmoid",
    "tempered_rows",
]

Knots = tuple[tuple[float, ...], tuple[float, ...]]
"""Scores in ascending order, and the probability at each."""

FEWEST_OUTCOMES = 2
"""Examples of either outcome that a label needs for a curve of its own."""

_SMALLEST = 1e-15  # probabilities below it count as it: their logarithm stays finite
_LARGEST_LOGIT = 36.0  # sigmoid(36) is about the last distinct from 1
_TEMPERATURES = (0.05, 100.0)


def log(probabilities: FloatArray) -> FloatArray:
    """Return natural logarithms, finite even for 0."""
    logs: FloatArray = np.log(np.maximum(probabilities, _SMALLEST))
    return logs


def logit(probabilities: FloatArray) -> FloatArray:
    """Return log-odds, finite even for 0 and 1."""
    inside = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    logits: FloatArray = np.log(inside) - np.log1p(-inside)
    return logits


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return probabilities strictly between 0 and 1."""
    values: FloatArray = 1 / (1 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    return values


def tempered_rows(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Return `softmax(log p / T)` of each row."""
    scaled = log(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    rows: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return rows


def fit_temperature_of_rows(probabilities: FloatArray, targets: IntArray) -> float:
    """Return T for `softmax(log p / T)`; `targets` are label indices `(n,)`."""
    scores, rows = log(probabilities), np.arange(len(targets))

    def loss(temperature: float) -> float:
        scaled = scores / temperature
        top = scaled.max(axis=1)
        normalizers = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
        return float((normalizers - scaled[rows, targets]).sum())

    return _best_temperature(loss)


def fit_temperature_of_labels(probabilities: FloatArray, targets: BoolArray) -> float:
    """Return T for `sigmoid(logit(p) / T)`, one for all labels; `targets` are `(n, k)`."""
    scores = logit(probabilities)

    def loss(temperature: float) -> float:
        scaled = scores / temperature
        return float(np.logaddexp(0, scaled).sum() - scaled[targets].sum())

    return _best_temperature(loss)


def _best_temperature(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar

    def penalized(log_temperature: float) -> float:
        return loss(float(np.exp(log_temperature))) + log_temperature**2 / 2

    low, high = (float(np.log(bound)) for bound in _TEMPERATURES)
    found = minimize_scalar(penalized, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def fit_line(scores: FloatArray, outcomes: BoolArray) -> tuple[float, float]:
    """Return slope and intercept of one curve; (1, 0) where there is too little to learn from."""
    from scipy.optimize import minimize

    if _too_few(outcomes):
        return 1.0, 0.0
    low, high = _smoothed(outcomes)
    wanted = np.where(outcomes, high, low)
    center, spread = scores.mean(), scores.std() or 1.0
    standard = (scores - center) / spread  # both parameters then have the same scale, and few steps suffice

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z = parameters[0] * standard + parameters[1]
        off = sigmoid(z) - wanted
        return float((np.logaddexp(0, z) - wanted * z).mean()), np.array([(off * standard).mean(), off.mean()])

    start = np.array([spread, center])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=((0, None), (None, None)), tol=1e-10)
    slope, intercept = found.x
    return float(slope / spread), float(intercept - slope * center / spread)


def fit_knots(scores: FloatArray, outcomes: BoolArray) -> Knots:
    """Return the knots of one curve; the identity where there is too little to learn from."""
    from sklearn.isotonic import IsotonicRegression

    if _too_few(outcomes):
        return (0.0, 1.0), (0.0, 1.0)
    low, high = _smoothed(outcomes)
    fitted = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(scores, outcomes.astype(np.float64))
    return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())


def _too_few(outcomes: BoolArray) -> bool:
    positives = int(np.count_nonzero(outcomes))
    return min(positives, len(outcomes) - positives) < FEWEST_OUTCOMES


def _smoothed(outcomes: BoolArray) -> tuple[float, float]:
    """Return Platt's targets for a negative and a positive example."""
    positives = int(np.count_nonzero(outcomes))
    return 1 / (len(outcomes) - positives + 2), (positives + 1) / (positives + 2)
