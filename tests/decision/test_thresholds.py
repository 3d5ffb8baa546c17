"""Thresholds for any metric: each must be the best of all cuts, tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, fbeta_score, precision_score, recall_score

from tamiz.config import ThresholdsConfig
from tamiz.decision import fit_rule
from tamiz.types import Task

SKLEARN = {
    "f0.5": lambda y, d: fbeta_score(y, d, beta=0.5, zero_division=0),
    "f1": lambda y, d: fbeta_score(y, d, beta=1, zero_division=0),
    "f2": lambda y, d: fbeta_score(y, d, beta=2, zero_division=0),
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "youden": balanced_accuracy_score,
    "precision": lambda y, d: precision_score(y, d, zero_division=0),
    "recall": recall_score,
    "specificity": lambda y, d: recall_score(y, d, pos_label=0),
}


def two(p):
    return np.column_stack([1 - np.asarray(p), p])


def sample(seed, n, digits=2):
    """Scores with some ties, and outcomes of both kinds."""
    rng = np.random.default_rng(seed)
    p = rng.random(n).round(digits)
    outcomes = rng.random(n) < p
    outcomes[:5], outcomes[5:7] = True, False
    return p, outcomes


def every_cut(p):
    return [0, *np.unique(p), 1.1]


@pytest.mark.parametrize("metric", ["f0.5", "f1", "f2", "accuracy", "balanced_accuracy", "youden"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None)
def test_a_threshold_is_best_by_its_metric(metric, seed):
    p, outcomes = sample(seed, 18)
    rule = fit_rule(metric, two(p), outcomes.astype(int), Task.BINARY)
    figure = SKLEARN[metric]
    best = max(figure(outcomes, p >= cut) for cut in every_cut(p))
    assert figure(outcomes, rule.decide(two(p)) == 1) == pytest.approx(best)


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [
        ("recall", {"precision": 0.6}),
        ("precision", {"recall": 0.7}),
        ("recall", {"specificity": 0.5}),
        ("f1", {"precision": 0.5, "recall": 0.5}),
    ],
)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None)
def test_a_constraint_is_kept_where_it_can_be(metric, bounds, seed):
    p, outcomes = sample(seed, 18)
    goal = ThresholdsConfig(metric=metric, at_least=bounds)
    rule = fit_rule(goal, two(p), outcomes.astype(int), Task.BINARY)

    def keeps(decided):
        return all(SKLEARN[name](outcomes, decided) >= bound - 1e-9 for name, bound in bounds.items())

    allowed = [SKLEARN[metric](outcomes, p >= cut) for cut in every_cut(p) if keeps(p >= cut)]
    decided = rule.decide(two(p)) == 1
    assert bool(rule.reason) == (not allowed)
    if allowed:
        assert keeps(decided)
        assert SKLEARN[metric](outcomes, decided) == pytest.approx(max(allowed))


def test_what_cannot_be_kept_takes_the_nearest_and_says_so():
    p = np.array([0.9, 0.8] + [0.4] * 10)
    outcomes = np.array([False, True] + [True, False] * 5)
    goal = ThresholdsConfig(metric="recall", at_least={"precision": 0.9})
    rule = fit_rule(goal, two(p), outcomes.astype(int), Task.BINARY)
    assert rule.reason == "no threshold reaches precision 0.9 on validation; the nearest was taken"
    # Precision is at most 1/2: of {.9, .8} and of everything; everything has the higher recall.
    assert rule.decide(two(p)).all()


def test_nothing_may_be_the_most_accurate_answer():
    p = np.linspace(0.1, 0.6, 40)
    outcomes = np.zeros(40, bool)
    outcomes[:5] = True
    rule = fit_rule("accuracy", two(p), outcomes.astype(int), Task.BINARY)
    assert rule.thresholds[0] > p.max()
    assert not rule.decide(two(p)).any()


def test_nothing_is_no_answer_where_a_score_is_one():
    p = np.repeat([0.2, 1.0], [5, 10])
    rule = fit_rule("accuracy", two(p), (p < 1).astype(int), Task.BINARY)
    assert rule.thresholds == (0.1,)
    assert rule.decide(two(p)).all()


def test_each_label_of_several_has_its_own():
    rng = np.random.default_rng(0)
    p = rng.random((120, 3))
    targets = rng.random((120, 3)) < p ** [1, 2, 3]
    rule = fit_rule("f2", p, targets, Task.MULTI_LABEL)
    decided = rule.decide(p)
    for j in range(3):
        best = max(SKLEARN["f2"](targets[:, j], p[:, j] >= cut) for cut in every_cut(p[:, j]))
        assert SKLEARN["f2"](targets[:, j], decided[:, j]) == pytest.approx(best)
    assert len(set(rule.thresholds)) == 3
