"""Fit calibration and decision rule of a candidate together, each on held-out examples that it may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz._rule_config import AbstainConfig, ConformalConfig, CostsConfig, LabelCosts, check_rule_settings
from tamiz.config import CandidateConfig
from tamiz.decision.calibration import Calibrator, fit_calibrator
from tamiz.decision.conformal import Conformal, fit_conformal
from tamiz.decision.rules import DecisionRule, fit_rule
from tamiz.errors import ConfigError, one_of
from tamiz.types import FloatArray, IntArray, Task

__all__ = ["check_decision", "fit_decision", "halves", "set_thresholds"]


def check_decision(config: CandidateConfig, task: Task, labels: Sequence[str], positive: int) -> None:
    """Refuse settings that do not fit the task or name no label, before anything is fitted.

    Raises:
        ConfigError: they do not.
    """
    check_rule_settings(task, config)
    named = {"thresholds.values": list(config.thresholds.values)}
    if config.costs is not None:
        named["costs.labels"] = list(config.costs.labels)
        named["costs.matrix"] = [name for row in config.costs.matrix.items() for name in (row[0], *row[1])]
    for key, names in named.items():
        allowed = [labels[positive]] if task is Task.BINARY else list(labels)
        for name in names:
            if name not in allowed:
                raise ConfigError(f"{key}: {name[:80]!r} is no label that has one; {one_of(name[:80], allowed)}")


def fit_decision(
    config: CandidateConfig,
    raw: FloatArray,
    targets: NDArray[Any],
    task: Task,
    labels: Sequence[str],
    *,
    positive: int = 1,
    seed: int = 0,
    calibrator: Calibrator | None = None,
) -> tuple[Calibrator, DecisionRule]:
    """Fit a candidate's calibration and rule on held-out examples.

    With `conformal`, one of the `halves` of the examples fits the calibration and the other the quantile: the sets keep
    what they state only if neither calibration nor classifier has seen the examples of the quantile. Thresholds and
    abstention do not change the sets and use all examples.

    Args:
        config: the candidate.
        raw: the classifier's own probabilities, `(n, k)`.
        targets: int64 `(n,)` label indices; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        labels: the `k` labels.
        positive: index of the positive label of a binary task.
        seed: of the calibration's folds and of the halves.
        calibrator: a fitted one to keep, with every row of the examples behind it; not used with `conformal`.

    Raises:
        ConfigError: settings do not fit the task, name no label or cannot be met on these examples.
        DataError: the shapes do not fit together.
    """
    check_decision(config, task, labels, positive)
    if config.conformal is None:
        calibrator = calibrator or fit_calibrator(config.calibrate, raw, targets, task, seed=seed)
        probabilities, conformal = calibrator.apply(raw), None
    else:
        calibrator, probabilities, conformal = _in_halves(config, config.conformal, raw, targets, task, seed)
    rule = fit_rule(config.thresholds, probabilities, targets, task, positive, config.abstain_below)
    if config.costs is not None:
        rule = _with_costs(rule, config.costs, labels)
    if config.thresholds.values:
        rule = set_thresholds(rule, config.thresholds.values, labels)
    rule = replace(rule, conformal=conformal, settings=config.rule_settings())
    if config.abstain is not None:
        rule = _with_confidence(rule, config.abstain, probabilities, targets)
    return calibrator, rule


def halves(n: int, seed: int) -> tuple[IntArray, IntArray]:
    """Return the places of the examples that calibration and a classifier's fit may see, and those of the quantile.

    Args:
        n: how many examples there are.
        seed: of the draw.
    """
    order = np.random.default_rng([seed, n]).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _in_halves(
    config: CandidateConfig, about: ConformalConfig, raw: FloatArray, targets: NDArray[Any], task: Task, seed: int
) -> tuple[Calibrator, FloatArray, Conformal]:
    first, second = halves(len(raw), seed)
    calibrator = fit_calibrator(config.calibrate, raw[first], targets[first], task, seed=seed)
    probabilities = calibrator.apply(raw)
    conformal = fit_conformal(
        probabilities[second],
        targets[second],
        task,
        coverage=about.coverage,
        score=about.score,
        abstain=about.abstain and task is not Task.MULTI_LABEL,
    )
    return calibrator, probabilities, conformal


def _with_costs(rule: DecisionRule, costs: CostsConfig, labels: Sequence[str]) -> DecisionRule:
    """Return the rule with thresholds `c_fp / (c_fp + c_fn)`, or with the matrix where there are more labels."""
    if rule.task is Task.MULTI_LABEL:
        return replace(rule, thresholds=tuple(_elkan(costs.labels.get(label, costs)) for label in labels))
    if rule.task is Task.BINARY:
        matrix = [[0.0, 0.0], [0.0, 0.0]]
        matrix[1 - rule.positive][rule.positive] = costs.false_positive
        matrix[rule.positive][1 - rule.positive] = costs.false_negative
        kept = None if costs.abstain is None else tuple(map(tuple, matrix))
        return replace(rule, thresholds=(_elkan(costs),), costs=kept, abstain_cost=costs.abstain)
    full = tuple(
        tuple(costs.matrix.get(true, {}).get(decided, float(true != decided)) for decided in labels) for true in labels
    )
    return replace(rule, costs=full if costs.matrix else None, abstain_cost=costs.abstain)


def _elkan(costs: LabelCosts) -> float:
    return costs.false_positive / (costs.false_positive + costs.false_negative)


def set_thresholds(rule: DecisionRule, values: Mapping[str, float], labels: Sequence[str]) -> DecisionRule:
    """Return the rule with thresholds set by hand, by label; `check_decision` has seen the names."""
    if rule.task is Task.BINARY:
        return replace(rule, thresholds=tuple(values.values()))
    before = rule.thresholds or (0.5,) * len(labels)
    return replace(rule, thresholds=tuple(values.get(label, t) for label, t in zip(labels, before, strict=True)))


def _with_confidence(
    rule: DecisionRule, wanted: AbstainConfig, probabilities: FloatArray, targets: NDArray[Any]
) -> DecisionRule:
    """Return the rule with a confidence to answer from: the lowest that keeps `error`, or the highest with `coverage`.

    What costs or sets leave without an answer has none at any confidence.
    """
    n = len(targets)
    if not n:
        raise ConfigError("abstain: there is no validation example to find the confidence on")
    confidence, decided = probabilities.max(axis=1), rule.decide(probabilities)
    levels = np.unique(confidence)[::-1]
    given = _at_or_above(levels, confidence, decided >= 0)
    if wanted.coverage is not None:
        enough = np.flatnonzero(given >= wanted.coverage * n - 1e-9)
        if enough.size:
            return replace(rule, abstain_below=float(levels[enough[0]]))
        left = f"costs and sets leave answers for {given[-1] / n:.3f} of validation, abstain.coverage asks for more"
        return replace(rule, abstain_below=float(levels[-1]), reason="; ".join(filter(None, (rule.reason, left))))
    rates = _at_or_above(levels, confidence, (decided >= 0) & (decided != targets)) / np.maximum(given, 1)
    kept = np.flatnonzero(rates <= (wanted.error or 0))
    if not kept.size:
        raise ConfigError(
            f"abstain.error {wanted.error}: not reached on validation data with any share of answers, the lowest "
            f"error is {rates.min():.3f}; give a higher one or abstain.coverage"
        )
    return replace(rule, abstain_below=float(levels[kept[-1]]))


def _at_or_above(levels: FloatArray, confidence: FloatArray, counted: NDArray[Any]) -> FloatArray:
    """Return how many of the counted have at least each confidence; `levels` descend."""
    at = np.searchsorted(-levels, -confidence)
    counts: FloatArray = np.bincount(at, weights=counted, minlength=len(levels)).cumsum()
    return counts
