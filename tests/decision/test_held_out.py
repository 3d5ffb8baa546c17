"""Answers by calibrations and rules that have not seen the example."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tamiz.config import CandidateConfig
from tamiz.decision import answered, cross_fitted, fit_decision
from tamiz.metrics import score, score_sets
from tamiz.types import Task

LABELS = ("a", "b", "c")
SEVERAL = {"calibrate": "isotonic", "thresholds": "f1"}


def examples(task, n=60, seed=0):
    """Probabilities that are exactly right, with the truth drawn from them."""
    rng = np.random.default_rng(seed)
    if task is Task.MULTI_LABEL:
        p = rng.random((n, 3))
        return p, rng.random((n, 3)) < p
    p = rng.dirichlet(np.ones(2 if task is Task.BINARY else 3), n)
    return p, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=p.shape[1] - 1)


def both(p, targets, task, **keys):
    """Return the answers as served, and the cross-fitted ones."""
    labels = LABELS[: p.shape[1]]
    fitted = fit_decision(CandidateConfig(family="linear", **keys), p, targets, task, labels)
    return answered(*fitted, p), cross_fitted(*fitted, p, targets, labels)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a is not None or b is not None)


def test_no_example_has_a_say_in_its_own_answer():
    p, targets = examples(Task.MULTI_LABEL)
    served, held = both(p, targets, Task.MULTI_LABEL, **SEVERAL)
    for row in range(0, 60, 7):
        turned = targets.copy()
        turned[row] = ~turned[row]
        other_served, other_held = both(p, turned, Task.MULTI_LABEL, **SEVERAL)
        np.testing.assert_array_equal(held.probabilities[row], other_held.probabilities[row])
        np.testing.assert_array_equal(held.decided[row], other_held.decided[row])
        assert not np.array_equal(served.probabilities[row], other_served.probabilities[row])


@pytest.mark.parametrize("task", list(Task))
def test_answers_are_of_the_kind_that_is_served(task):
    p, targets = examples(task)
    if task is not Task.MULTI_LABEL:
        targets[:] = np.where(np.arange(60) == 7, 1, 0)  # a label with one example
    for keys in ({"calibrate": "sigmoid"}, {"calibrate": "isotonic", "conformal": {"coverage": 0.8}}):
        for one, other in zip(*both(p, targets, task, **keys), strict=True):
            assert (one is None) == (other is None)
            assert one is None or (one.dtype, one.shape) == (other.dtype, other.shape)


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        *((task, {}) for task in Task),
        *((task, {"abstain_below": 0.6}) for task in (Task.BINARY, Task.MULTI_CLASS)),
        *((task, {"thresholds": {"values": {"b": 0.3}}}) for task in (Task.BINARY, Task.MULTI_LABEL)),
    ],
    ids=str,
)
def test_where_nothing_is_fitted_answers_are_those_served(task, keys):
    assert same(*both(*examples(task), task, calibrate="none", **keys))


@pytest.mark.parametrize(("n", "alike"), [(19, True), (20, False)])
def test_few_examples_are_not_divided(n, alike):
    assert same(*both(*examples(Task.MULTI_LABEL, n), Task.MULTI_LABEL, **SEVERAL)) is alike


def test_a_rule_that_does_not_say_what_it_was_fitted_for_is_kept():
    p, targets = examples(Task.MULTI_LABEL)
    calibrator, rule = fit_decision(CandidateConfig(family="linear", **SEVERAL), p, targets, Task.MULTI_LABEL, LABELS)
    old = replace(rule, settings={})
    assert same(answered(calibrator, old, p), cross_fitted(calibrator, old, p, targets, LABELS))


def test_an_error_that_a_fold_does_not_reach_leaves_the_answers_served():
    confidence = np.linspace(0.5, 1, 40)
    p = np.column_stack([1 - confidence, confidence])
    targets = (np.arange(40) == 39).astype(int)  # only the surest is right
    assert same(*both(p, targets, Task.BINARY, calibrate="none", abstain={"error": 0.1}))


@pytest.mark.slow
def test_isotonic_calibration_does_not_win_by_fitting_most_closely():
    served, held = [], []
    for seed in range(20):
        p, targets = examples(Task.BINARY, 100, seed)
        losses = []
        for method in ("none", "temperature", "sigmoid", "isotonic"):
            found = both(p, targets, Task.BINARY, calibrate=method)
            about = {"task": Task.BINARY, "labels": LABELS[:2]}
            losses.append([score(targets, one.probabilities, one.decided, **about)["log_loss"] for one in found])
        first, second = np.argmin(losses, axis=0)
        served.append(first)
        held.append(second)
    assert served.count(3) >= 18
    assert held.count(3) <= 4
    assert held.count(0) >= 10  # these probabilities need no calibration


def test_sets_are_of_quantiles_that_have_not_seen_the_example():
    found = []
    for seed in range(40):
        p, targets = examples(Task.MULTI_CLASS, 100, seed)
        pair = both(p, targets, Task.MULTI_CLASS, calibrate="none", conformal={"coverage": 0.9})
        assert not same(*pair)
        found.append([score_sets(targets, one.sets)["set_coverage"] for one in pair])
    assert np.mean(found, axis=0) == pytest.approx([0.91, 0.91], abs=0.012)
