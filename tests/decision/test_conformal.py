"""Prediction sets hold the true label as often as they state."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.decision import Conformal, DecisionRule, fit_conformal
from tamiz.errors import ConfigError, DataError, PackageError
from tamiz.types import Task

SINGLE = [Task.BINARY, Task.MULTI_CLASS]


def examples(rng, n, k, *, wrong=1.0):
    """Rows of probabilities and true labels; with `wrong` not 1 the probabilities are off."""
    truth = rng.dirichlet(np.full(k, 0.7), n)
    targets = (truth.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    given_ = truth**wrong + 1e-6
    return given_ / given_.sum(axis=1, keepdims=True), targets


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
@pytest.mark.parametrize("wrong", [1.0, 3.0])
def test_coverage_is_at_least_what_is_stated(score, coverage, wrong):
    rng = np.random.default_rng(7)
    held = []
    for _ in range(150):  # the guarantee is the mean over calibration sets and examples
        p, targets = examples(rng, 300, 4, wrong=wrong)
        fitted = fit_conformal(p[:100], targets[:100], Task.MULTI_CLASS, coverage=coverage, score=score)
        held.append(fitted.sets(p[100:])[np.arange(200), targets[100:]].mean())
    assert np.mean(held) >= coverage - 0.01
    if score == "lac":  # and not much more: at most 1 / (n + 1) for scores without ties
        assert np.mean(held) <= coverage + 1 / 101 + 0.01


def test_each_true_label_of_several_is_held():
    rng = np.random.default_rng(3)
    held = [[], []]
    for _ in range(150):
        p = rng.random((400, 2))
        targets = rng.random((400, 2)) < p**2
        fitted = fit_conformal(p[:200], targets[:200], Task.MULTI_LABEL, coverage=0.9)
        sets = fitted.sets(p[200:])
        for j in range(2):
            held[j].append(sets[targets[200:, j], j].mean())
    assert all(0.89 <= np.mean(shares) <= 0.925 for shares in held)


@given(n=st.integers(1, 60), coverage=st.sampled_from([0.5, 0.75, 0.8, 0.9, 0.95]), seed=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_the_quantile_has_the_finite_sample_rank(n, coverage, seed):
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    rows, targets = np.column_stack([1 - p, p]), np.ones(n, dtype=np.int64)
    rank = math.ceil(round((n + 1) * coverage, 9))
    if rank > n:
        with pytest.raises(ConfigError, match="needs at least"):
            fit_conformal(rows, targets, Task.BINARY, coverage=coverage)
    else:
        fitted = fit_conformal(rows, targets, Task.BINARY, coverage=coverage)
        assert fitted.quantiles == (np.sort(1 - p)[rank - 1],)
        assert fitted.sets(rows)[:, 1].sum() >= rank


def test_the_rank_is_not_raised_by_the_last_digit_of_a_product():
    assert 100 * 0.55 > 55
    p = np.arange(1, 100) / 100
    rows, targets = np.column_stack([1 - p, p]), np.ones(99, dtype=np.int64)
    assert fit_conformal(rows, targets, Task.BINARY, coverage=0.55).quantiles == (np.sort(1 - p)[54],)


def test_the_needed_number_of_examples_is_said_exactly():
    p = np.full((9, 2), 0.5)
    targets = np.zeros(9, dtype=np.int64)
    assert fit_conformal(p, targets, Task.BINARY, coverage=0.9).examples == (9,)
    with pytest.raises(ConfigError, match="needs at least 9 validation examples, there are 8"):
        fit_conformal(p[:8], targets[:8], Task.BINARY, coverage=0.9)


def test_a_label_with_few_examples_is_always_in_the_set():
    p = np.column_stack([np.linspace(0, 1, 40), np.full(40, 1e-9)])
    targets = np.column_stack([np.arange(40) > 10, np.arange(40) < 3])
    fitted = fit_conformal(p, targets, Task.MULTI_LABEL, coverage=0.9)
    assert fitted.examples == (29, 3)
    assert fitted.sets(p)[:, 1].all()
    assert not fitted.sets(p)[:, 0].all()


def test_aps_adds_labels_from_the_top_and_is_never_empty():
    fitted = Conformal(0.9, (0.8,), score="aps")
    sets = fitted.sets(np.array([[0.5, 0.3, 0.2], [0.1, 0.85, 0.05], [0.25, 0.25, 0.5]]))
    assert sets.tolist() == [[True, True, False], [False, True, False], [True, False, True]]


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_a_set_does_not_depend_on_other_rows(score):
    rng = np.random.default_rng(0)
    p, targets = examples(rng, 200, 5)
    fitted = fit_conformal(p, targets, Task.MULTI_CLASS, coverage=0.8, score=score)
    together = fitted.sets(p)
    assert all((fitted.sets(p[i : i + 1])[0] == together[i]).all() for i in range(200))
    assert fitted.sets(p[:0]).shape == (0, 5)


def test_the_rule_answers_where_the_set_holds_the_decided_label_alone():
    p = np.array([[0.9, 0.1], [0.55, 0.45], [0.3, 0.7]])
    rule = DecisionRule(Task.BINARY, conformal=Conformal(0.9, (0.57,)))
    assert rule.prediction_set(p).tolist() == [[True, False], [True, True], [False, True]]
    assert rule.decide(p).tolist() == [0, -1, 1]
    # At a threshold of .05 the first is positive, which its set does not hold.
    rule = DecisionRule(Task.BINARY, (0.05,), conformal=Conformal(0.9, (0.57,)))
    assert rule.decide(p).tolist() == [-1, -1, 1]
    rule = DecisionRule(Task.BINARY, conformal=Conformal(0.9, (0.57,), abstain=False))
    assert rule.decide(p).tolist() == [0, 0, 1]


def test_an_empty_set_gives_no_answer():
    rule = DecisionRule(Task.MULTI_CLASS, conformal=Conformal(0.5, (0.2,)))
    assert rule.decide(np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])).tolist() == [-1, 0]


def test_sets_of_a_rule_without_any_are_refused():
    with pytest.raises(ConfigError, match="makes no sets"):
        DecisionRule(Task.BINARY).prediction_set(np.ones((1, 2)))


def test_quantiles_of_other_labels_are_refused():
    rule = DecisionRule(Task.MULTI_LABEL, conformal=Conformal(0.9, (0.1, 0.2, 0.3)))
    with pytest.raises(DataError, match="other labels"):
        rule.prediction_set(np.ones((1, 2)))


def test_a_round_trip_is_exact():
    for conformal in (Conformal(0.9, (0.1 + 0.2,), (50,), "aps"), Conformal(0.8, (1 / 3,), abstain=False)):
        rule = DecisionRule(Task.MULTI_CLASS, conformal=conformal)
        assert DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize("damage", [{"coverage": 1.5}, {"quantiles": []}, {"score": "x"}, {"more": 1}])
def test_a_damaged_package_is_refused(damage):
    data = {"task": "binary", "conformal": {"coverage": 0.9, "quantiles": [0.5], **damage}}
    with pytest.raises(PackageError, match="decision rule"):
        DecisionRule.from_dict(data)
