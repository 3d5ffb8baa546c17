"""Costs, abstention and calibration fitted together, as a candidate asks for them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.config import CandidateConfig
from tamiz.decision import DecisionRule, fit_calibrator, fit_decision
from tamiz.errors import ConfigError
from tamiz.types import Task

LABELS = ("a", "b", "c")


def fit(raw, targets, task, *, positive=1, seed=0, **keys):
    config = CandidateConfig(family="linear", **{"calibrate": "none", **keys})
    labels = LABELS[: raw.shape[1]]
    return fit_decision(config, raw, targets, task, labels, positive=positive, seed=seed)


def rule_of(raw, targets, task, **keys):
    return fit(raw, targets, task, **keys)[1]


def examples(n, k, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), n)
    return p, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)


def cheapest(p, costs, abstain=None):
    """Return the answer with the least expected cost of each row, one by one."""
    answers = []
    for row in p:
        expected = [sum(row[i] * costs[i][j] for i in range(len(row))) for j in range(len(row))]
        best = int(np.argmin(expected))
        answers.append(-1 if abstain is not None and expected[best] > abstain else best)
    return answers


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("abstain", [None, 0.4])
def test_costs_of_a_binary_task_give_the_cheapest_answer(positive, abstain):
    p, targets = examples(200, 2)
    keys = {"false_positive": 1, "false_negative": 4, **({} if abstain is None else {"abstain": abstain})}
    rule = rule_of(p, targets, Task.BINARY, positive=positive, costs=keys)
    costs = np.zeros((2, 2))
    costs[1 - positive, positive], costs[positive, 1 - positive] = 1, 4
    assert rule.thresholds == (0.2,)
    assert rule.decide(p).tolist() == cheapest(p, costs, abstain)
    assert (-1 in rule.decide(p)) == (abstain is not None)


@given(seed=st.integers(0, 10**6), abstain=st.sampled_from([None, 0.3, 1.0]))
@settings(max_examples=20, deadline=None)
def test_costs_of_more_labels_give_the_cheapest_answer(seed, abstain):
    rng = np.random.default_rng(seed)
    p, targets = examples(30, 3, seed)
    costs = rng.integers(0, 9, (3, 3)).astype(float)
    matrix = {true: dict(zip(LABELS, row, strict=True)) for true, row in zip(LABELS, costs.tolist(), strict=True)}
    keys = {"matrix": matrix, **({} if abstain is None else {"abstain": abstain})}
    rule = rule_of(p, targets, Task.MULTI_CLASS, costs=keys)
    together = rule.decide(p)
    assert together.tolist() == cheapest(p, costs, abstain)
    assert [rule.decide(row[None])[0] for row in p] == together.tolist()


def test_costs_that_are_not_given_are_none_and_one():
    p, targets = examples(100, 3)
    rule = rule_of(p, targets, Task.MULTI_CLASS, costs={"matrix": {"a": {"b": 9}}})
    assert rule.costs == ((0, 9, 1), (1, 0, 1), (1, 1, 0))
    assert rule.decide(np.array([[0.2, 0.5, 0.3]])).tolist() == [2]


def test_a_cost_of_no_answer_alone_is_chows_rule():
    p, targets = examples(200, 3)
    rule = rule_of(p, targets, Task.MULTI_CLASS, costs={"abstain": 0.4})
    assert rule.costs is None
    expected = np.where(1 - p.max(axis=1) > 0.4, -1, p.argmax(axis=1))
    assert rule.decide(p).tolist() == expected.tolist()


def test_costs_of_several_labels_give_a_threshold_each():
    p = np.random.default_rng(0).random((50, 3))
    costs = {"false_negative": 3, "labels": {"b": {"false_positive": 9}}}
    rule = rule_of(p, p > 0.5, Task.MULTI_LABEL, costs=costs)
    assert rule.thresholds == (0.25, 0.9, 0.25)


def test_thresholds_by_hand_stand_above_tuned_ones():
    p = np.random.default_rng(0).random((80, 3))
    tuned = rule_of(p, p > 0.6, Task.MULTI_LABEL, thresholds="f1")
    mixed = rule_of(p, p > 0.6, Task.MULTI_LABEL, thresholds={"metric": "f1", "values": {"b": 0.1}})
    assert mixed.thresholds == (tuned.thresholds[0], 0.1, tuned.thresholds[2])
    one, targets = examples(50, 2)
    assert rule_of(one, targets, Task.BINARY, thresholds={"values": {"b": 0.3}}).thresholds == (0.3,)


@given(seed=st.integers(0, 10**6), coverage=st.sampled_from([0.1, 0.5, 0.9, 1.0]), digits=st.sampled_from([1, 6]))
@settings(max_examples=30, deadline=None)
def test_the_stated_share_is_answered_and_no_step_more(seed, coverage, digits):
    p, targets = examples(40, 3, seed)
    p = p.round(digits)
    rule = rule_of(p, targets, Task.MULTI_CLASS, abstain={"coverage": coverage})
    confidence = p.max(axis=1)
    assert (rule.decide(p) >= 0).mean() >= coverage
    assert (confidence > rule.abstain_below).mean() < coverage


@given(seed=st.integers(0, 10**6), error=st.sampled_from([0.1, 0.3, 0.6]))
@settings(max_examples=30, deadline=None)
def test_the_most_are_answered_that_keep_the_error(seed, error):
    p, targets = examples(40, 3, seed)
    p = p.round(2)
    confidence, wrong = p.max(axis=1), p.argmax(axis=1) != targets
    rates = {level: wrong[confidence >= level].mean() for level in confidence}
    kept = [level for level, rate in rates.items() if rate <= error]
    if not kept:
        with pytest.raises(ConfigError, match="not reached on validation data"):
            rule_of(p, targets, Task.MULTI_CLASS, abstain={"error": error})
    else:
        assert rule_of(p, targets, Task.MULTI_CLASS, abstain={"error": error}).abstain_below == min(kept)


def test_the_error_counts_the_answers_that_costs_leave():
    p = np.array([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 4)
    targets = np.array([0] * 6 + [1] * 4)
    rule = rule_of(p, targets, Task.BINARY, abstain={"error": 0.2})
    assert rule.abstain_below == 0.9
    # The four wrong ones are not answered anyway: they would cost .4.
    rule = rule_of(p, targets, Task.BINARY, abstain={"error": 0.2}, costs={"abstain": 0.3})
    assert rule.abstain_below == 0.6


def test_the_share_to_answer_counts_what_costs_leave():
    """Of ten texts costs leave six without an answer, surer ones among them: to answer four, all others are."""
    confidence = np.linspace(0.55, 0.95, 10)
    p = np.column_stack([1 - confidence, confidence])
    p[::3] = p[::3, ::-1]  # a false negative costs 4: up to .8 the first label is too dear, and .2 answers the second
    costs = {"false_negative": 4, "abstain": 0.3}
    free = rule_of(p, np.ones(10, int), Task.BINARY, costs=costs)
    answered = np.count_nonzero(free.decide(p) >= 0)
    assert 4 < answered < 10
    for share in (0.2, 0.4, answered / 10):
        rule = rule_of(p, np.ones(10, int), Task.BINARY, costs=costs, abstain={"coverage": share})
        assert (np.count_nonzero(rule.decide(p) >= 0), rule.reason) == (round(share * 10), "")


def test_a_share_to_answer_that_costs_do_not_allow_is_said():
    p = np.array([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 4)
    targets = np.zeros(10, int)
    rule = rule_of(p, targets, Task.BINARY, abstain={"coverage": 0.8}, costs={"abstain": 0.3})
    assert (rule.decide(p) >= 0).sum() == 6
    assert rule.reason == "costs and sets leave answers for 0.600 of validation, abstain.coverage asks for more"


def test_the_share_to_answer_counts_what_sets_leave():
    p, targets = examples(400, 3)
    sets = {"conformal": {"coverage": 0.9}}
    left = np.count_nonzero(rule_of(p, targets, Task.MULTI_CLASS, **sets).decide(p) >= 0)
    assert 40 < left < 360
    rule = rule_of(p, targets, Task.MULTI_CLASS, **sets, abstain={"coverage": (left - 20) / 400})
    assert np.count_nonzero(rule.decide(p) >= 0) == left - 20


def test_sets_and_calibration_use_different_halves():
    p, targets = examples(400, 3)
    raw = p**3 / (p**3).sum(axis=1, keepdims=True)
    calibrator, rule = fit(raw, targets, Task.MULTI_CLASS, calibrate="temperature", conformal={"coverage": 0.9})
    assert rule.conformal.examples == (200,)
    everything = fit_calibrator("temperature", raw, targets, Task.MULTI_CLASS)
    assert calibrator.temperature != everything.temperature
    again = fit(raw, targets, Task.MULTI_CLASS, calibrate="temperature", conformal={"coverage": 0.9})
    assert (calibrator, rule) == again
    # A classifier's fit may have seen the first half, whether or not anything is calibrated.
    assert rule_of(raw, targets, Task.MULTI_CLASS, conformal={"coverage": 0.9}).conformal.examples == (200,)


def test_sets_keep_their_promise_after_a_calibration_on_few_examples():
    held = []
    for seed in range(60):
        p, targets = examples(260, 3, seed)
        calibrator, rule = fit(
            p[:60], targets[:60], Task.MULTI_CLASS, seed=seed, calibrate="isotonic", conformal={"coverage": 0.8}
        )
        sets = rule.prediction_set(calibrator.apply(p[60:]))
        held.append(sets[np.arange(200), targets[60:]].mean())
    assert np.mean(held) >= 0.79


def test_a_rule_remembers_what_it_was_fitted_by():
    p, targets = examples(100, 2)
    keys = {"thresholds": "f2", "abstain": {"coverage": 0.9}, "conformal": {"coverage": 0.8}}
    rule = rule_of(p, targets, Task.BINARY, **keys)
    assert rule.settings == {"calibrate": "none", **keys, "thresholds": {"metric": "f2"}}
    restored = DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert restored == rule
    assert restored.decide(p).tolist() == rule.decide(p).tolist()


@pytest.mark.parametrize(
    "data",
    [
        {"task": "binary", "thresholds": [0.3], "positive": 0, "abstain_below": 0.6},
        {"task": "multi-class", "thresholds": None, "positive": 1, "abstain_below": None},
    ],
)
def test_a_rule_of_an_earlier_package_is_read(data):
    rule = DecisionRule.from_dict(data)
    assert (rule.costs, rule.abstain_cost, rule.conformal, rule.settings) == (None, None, None, {})
    assert rule.abstain_below == data["abstain_below"]


@pytest.mark.parametrize(
    ("task", "keys", "said"),
    [
        (Task.MULTI_CLASS, {"costs": {"matrix": {"x": {"a": 1}}}}, "costs.matrix: 'x' is no label"),
        (Task.MULTI_CLASS, {"costs": {"false_negative": 2}}, "costs.false_negative: does not fit"),
        (Task.MULTI_CLASS, {"thresholds": {"values": {"a": 0.2}}}, "thresholds.values"),
        (Task.MULTI_CLASS, {"thresholds": "f1"}, "thresholds.metric: a multi-class task takes the label"),
        (Task.MULTI_LABEL, {"costs": {"labels": {"x": {}}}}, "costs.labels: 'x' is no label"),
        (Task.MULTI_LABEL, {"abstain": {"error": 0.1}}, "a multi-label task cannot abstain"),
        (Task.BINARY, {"thresholds": {"values": {"a": 0.2}}}, "'a' is no label that has one; allowed: b"),
    ],
)
def test_what_fits_no_task_or_label_is_refused(task, keys, said):
    p = np.full((40, 2 if task is Task.BINARY else 3), 0.5)
    targets = p > 0 if task is Task.MULTI_LABEL else np.arange(40) % 2
    with pytest.raises(ConfigError, match=said):
        fit(p, targets, task, **keys)
