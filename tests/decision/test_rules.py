import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.decision import DecisionRule, fit_rule
from tamiz.errors import ConfigError, DataError, PackageError
from tamiz.types import Task


def _f1(decided, outcomes):
    right = np.count_nonzero(decided & outcomes)
    return 2 * right / max(1, np.count_nonzero(decided) + np.count_nonzero(outcomes))


def _best_f1(scores, outcomes):
    """The highest F1 over every threshold, by trying all that differ."""
    return max(_f1(scores >= threshold, outcomes) for threshold in [0, *np.unique(scores), 1.1])


def _two(p):
    return np.column_stack([1 - np.asarray(p), p])


class TestDecide:
    def test_binary_takes_the_positive_at_the_threshold(self):
        rule = DecisionRule(Task.BINARY, (0.25,), positive=1)
        decided = rule.decide(_two([0.2, 0.25, 0.9]))
        assert decided.tolist() == [0, 1, 1]
        assert decided.dtype == np.int64

    def test_binary_with_the_first_label_positive(self):
        rule = DecisionRule(Task.BINARY, (0.25,), positive=0)
        assert rule.decide(_two([0.8, 0.75, 0.1])).tolist() == [1, 0, 0]

    def test_binary_tie_goes_to_the_positive(self):
        for positive in (0, 1):
            assert DecisionRule(Task.BINARY, positive=positive).decide(_two([0.5])).tolist() == [positive]

    def test_multi_class_tie_goes_to_the_lower_index(self):
        decided = DecisionRule(Task.MULTI_CLASS).decide(np.array([[0.2, 0.4, 0.4], [0.1, 0.1, 0.8]]))
        assert decided.tolist() == [1, 2]
        assert decided.dtype == np.int64

    def test_multi_label_takes_each_and_may_be_empty(self):
        rule = DecisionRule(Task.MULTI_LABEL, (0.2, 0.6))
        decided = rule.decide(np.array([[0.2, 0.6], [0.1, 0.5]]))
        assert decided.tolist() == [[True, True], [False, False]]
        assert decided.dtype == np.bool_
        assert DecisionRule(Task.MULTI_LABEL).decide(np.array([[0.5, 0.4]])).tolist() == [[True, False]]

    def test_abstains_below_the_top_probability(self):
        rule = DecisionRule(Task.MULTI_CLASS, abstain_below=0.5)
        assert rule.decide(np.array([[0.4, 0.3, 0.3], [0.5, 0.3, 0.2]])).tolist() == [-1, 0]
        rule = DecisionRule(Task.BINARY, (0.3,), abstain_below=0.6)
        # .35 is positive by the threshold, and the row's highest probability, .65, is enough to answer.
        assert rule.decide(_two([0.35, 0.45, 0.7])).tolist() == [1, -1, 1]

    def test_answers_that_cost_as_much_as_none_are_given(self):
        rule = DecisionRule(Task.MULTI_CLASS, abstain_cost=0.5)
        assert rule.decide(np.array([[0.25, 0.5, 0.25], [0.4, 0.3, 0.3]])).tolist() == [1, -1]

    @pytest.mark.parametrize("task", list(Task))
    def test_no_rows(self, task):
        rule = DecisionRule(task, abstain_below=None if task is Task.MULTI_LABEL else 0.4)
        assert rule.decide(np.empty((0, 2))).shape == ((0, 2) if task is Task.MULTI_LABEL else (0,))

    def test_does_not_mutate(self):
        probabilities = _two([0.2, 0.6])
        before = probabilities.copy()
        DecisionRule(Task.BINARY, (0.4,), abstain_below=0.7).decide(probabilities)
        np.testing.assert_array_equal(probabilities, before)

    @pytest.mark.parametrize(
        ("rule", "shape"),
        [
            (DecisionRule(Task.BINARY), (1, 3)),
            (DecisionRule(Task.MULTI_LABEL, (0.5, 0.5)), (1, 3)),
            (DecisionRule(Task.MULTI_CLASS), (3,)),
            (DecisionRule(Task.MULTI_CLASS), (3, 0)),
        ],
    )
    def test_wrong_shapes_are_refused(self, rule, shape):
        with pytest.raises(DataError, match="expected"):
            rule.decide(np.ones(shape))


@given(seed=st.integers(0, 10**6), n=st.integers(5, 40), digits=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_binary_threshold_has_the_best_f1(seed, n, digits):
    rng = np.random.default_rng(seed)
    p = rng.random(n).round(digits)
    outcomes = rng.random(n) < p
    outcomes[:5] = True
    rule = fit_rule("f1", _two(p), outcomes.astype(int), Task.BINARY, 1, None)
    assert _f1(rule.decide(_two(p)) == 1, outcomes) == _best_f1(p, outcomes)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_multi_label_thresholds_have_the_best_f1_of_each_label(seed, k):
    rng = np.random.default_rng(seed)
    p = rng.random((40, k)).round(2)
    targets = rng.random((40, k)) < p**2
    targets[:5] = True
    decided = fit_rule("f1", p, targets, Task.MULTI_LABEL).decide(p)
    for j in range(k):
        assert _f1(decided[:, j], targets[:, j]) == _best_f1(p[:, j], targets[:, j])


def test_threshold_of_the_first_label():
    p = np.array([0.1] * 10 + [0.3] * 6)
    targets = np.array([1] * 10 + [0] * 6)
    rule = fit_rule("f1", np.column_stack([p, 1 - p]), targets, Task.BINARY, positive=0)
    assert rule.thresholds == pytest.approx((0.2,))
    assert rule.decide(np.column_stack([p, 1 - p])).tolist() == targets.tolist()


def test_a_cut_lies_midway():
    p = np.array([0.1] + [0.4] * 2 + [0.8] * 4)
    outcomes = np.array([True] + [False] * 2 + [True] * 4)
    # Everything: 2*5/(7+5) = .833; above .6: 2*4/(4+5) = .889.
    assert fit_rule("f1", _two(p), outcomes.astype(int), Task.BINARY).thresholds == pytest.approx((0.6,))


def test_everything_may_be_the_best_cut():
    p = np.array([0.2] * 6 + [0.9])
    outcomes = np.array([True] * 6 + [False])
    assert fit_rule("f1", _two(p), outcomes.astype(int), Task.BINARY).thresholds == pytest.approx((0.1,))


def test_equal_f1_prefers_the_cut_nearest_a_half():
    # F1 of {.9}: 2*3/(3+6) = 2/3; of {.9, .5, .3}: 2*4/(6+6) = 2/3; of all: 2*6/(12+6) = 2/3.
    p = np.array([0.9] * 3 + [0.5] * 3 + [0.3] * 6)
    outcomes = np.array([True] * 3 + [True, False, False] + [True] * 2 + [False] * 4)
    assert [_f1(p >= t, outcomes) for t in (0.7, 0.4, 0.1)] == pytest.approx([2 / 3] * 3)
    assert fit_rule("f1", _two(p), outcomes.astype(int), Task.BINARY).thresholds == pytest.approx((0.4,))


@pytest.mark.parametrize("positives", [0, 1, 4])
def test_few_positives_keep_a_half(positives):
    p = np.linspace(0.05, 0.3, 30)
    targets = np.zeros(30, dtype=int)
    targets[30 - positives :] = 1
    assert fit_rule("f1", _two(p), targets, Task.BINARY).thresholds == (0.5,)
    assert fit_rule("f1", p[:, None], targets[:, None] == 1, Task.MULTI_LABEL).thresholds == (0.5,)
    assert fit_rule("f1", _two(p)[:0], targets[:0], Task.BINARY).thresholds == (0.5,)


def test_rare_labels_take_the_pooled_threshold():
    p = np.tile(np.array([0.05] * 20 + [0.25] * 10)[:, None], 3)
    targets = p > 0.2
    targets[:, 1] = False
    targets[25, 1] = True
    targets[:, 2] = False
    first, rare, absent = fit_rule("f1", p, targets, Task.MULTI_LABEL).thresholds
    assert first == pytest.approx(0.15)
    assert rare == absent == pytest.approx(0.15)


def test_adjacent_floats_are_told_apart():
    low = 0.3
    high = np.nextafter(low, 1)
    p = np.array([low] * 20 + [high] * 10)
    targets = (p == high).astype(int)
    assert fit_rule("f1", _two(p), targets, Task.BINARY).decide(_two(p)).tolist() == targets.tolist()


@pytest.mark.parametrize("task", list(Task))
def test_default_has_no_thresholds(task):
    assert fit_rule("default", np.ones((1, 2)), np.array([0]), task, 1, None) == DecisionRule(task, None, 1, None)


def test_multi_class_has_no_thresholds_to_fit():
    rule = fit_rule("f1", np.eye(3), np.arange(3), Task.MULTI_CLASS, 1, 0.4)
    assert rule == DecisionRule(Task.MULTI_CLASS, None, 1, 0.4)


def test_fit_keeps_positive_and_abstention():
    rule = fit_rule("f1", _two(np.linspace(0, 1, 20)), np.arange(20) // 10, Task.BINARY, 0, 0.7)
    assert (rule.positive, rule.abstain_below) == (0, 0.7)
    assert rule.thresholds is not None


def test_wrong_arguments_of_fit_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'f1'"):
        fit_rule("f11", np.eye(2), np.arange(2), Task.BINARY)
    with pytest.raises(DataError, match="targets"):
        fit_rule("f1", np.eye(2), np.arange(3), Task.BINARY)
    with pytest.raises(DataError, match="targets"):
        fit_rule("f1", np.eye(2), np.arange(2), Task.MULTI_LABEL)


@pytest.mark.parametrize(
    "settings_",
    [
        {"task": Task.MULTI_CLASS, "thresholds": (0.5,)},
        {"task": Task.BINARY, "thresholds": (0.5, 0.5)},
        {"task": Task.BINARY, "thresholds": (1.5,)},
        {"task": Task.BINARY, "thresholds": (float("nan"),)},
        {"task": Task.BINARY, "positive": 2},
        {"task": Task.MULTI_LABEL, "abstain_below": 0.5},
        {"task": Task.BINARY, "abstain_below": -0.1},
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(settings_):
    with pytest.raises(ConfigError):
        DecisionRule(**settings_)
    with pytest.raises(PackageError, match="decision rule of the model package"):
        DecisionRule.from_dict(settings_)


@pytest.mark.parametrize(
    "rule",
    [
        DecisionRule(Task.BINARY, (0.1 + 0.2,), 0, 0.6),
        DecisionRule(Task.MULTI_CLASS, None, 1, 1 / 3),
        DecisionRule(Task.MULTI_LABEL, (0.1, 1 / 3, 1.0)),
    ],
)
def test_round_trip_is_exact(rule):
    assert DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize("data", [{}, {"task": "binary", "more": 1}, {"task": "binary", "thresholds": "x"}])
def test_damaged_dictionaries_are_refused(data):
    with pytest.raises(PackageError):
        DecisionRule.from_dict(data)
