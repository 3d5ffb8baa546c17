"""Paired comparisons: signs, agreement with direct calculation, and how often equals are called different."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tamiz.errors import ConfigError, DataError
from tamiz.metrics import METRICS, compare, compare_values, difference_interval, higher_is_better, holm, mcnemar, score
from tamiz.types import Task

LABELS = ("a", "b", "c")


def answers(rng, targets, k: int, share_right: float):
    """Return probabilities and decisions of a made-up model that is right that often."""
    right = rng.random(len(targets)) < share_right
    decided = np.where(right, targets, (targets + rng.integers(1, k, len(targets))) % k)
    scores = rng.random((len(targets), k)) * 0.5
    scores[np.arange(len(targets)), decided] += 1
    return scores / scores.sum(axis=1, keepdims=True), decided


def multi_label(rng, n: int, k: int):
    targets = rng.random((n, k)) < 0.4
    models = []
    for noise in (0.3, 0.9):
        probabilities = np.clip(targets * 0.6 + 0.2 + rng.normal(0, noise, (n, k)) * 0.3, 0.01, 0.99)
        models.append((probabilities, probabilities >= 0.5))
    return targets, *models


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("task", list(Task), ids=str)
def test_values_are_those_of_score_and_the_interval_holds_the_difference(metric, task):
    rng = np.random.default_rng(3)
    labels = LABELS[: 2 if task is Task.BINARY else 3]
    if task is Task.MULTI_LABEL:
        targets, first, second = multi_label(rng, 150, len(labels))
    else:
        targets = rng.integers(0, len(labels), 150)
        first, second = answers(rng, targets, len(labels), 0.85), answers(rng, targets, len(labels), 0.6)
        if metric in ("coverage", "selective_accuracy"):
            for _, decided in (first, second):
                decided[rng.random(150) < 0.2] = -1
    expected = [score(targets, p, d, task=task, labels=labels) for p, d in (first, second)]
    about = {"task": task, "labels": labels, "resamples": 300}
    if metric not in expected[0]:
        with pytest.raises(DataError, match="is undefined on these 150 examples"):
            compare(metric, targets, first, second, **about)
        return
    found = compare(f"test_{metric}", targets, first, second, **about)
    assert (found.first, found.second) == pytest.approx([values[metric] for values in expected], abs=1e-12)
    assert found.difference == found.first - found.second
    assert found.low <= found.difference <= found.high
    assert found.n == 150
    if metric not in ("coverage", "ece"):
        better = found.p_higher if higher_is_better(metric) else found.p_lower
        assert better > 0.9
    turned = compare(metric, targets, second, first, **about)
    assert (turned.difference, turned.p_higher, turned.p_lower) == pytest.approx(
        (-found.difference, found.p_lower, found.p_higher)
    )


def test_confidences_between_two_bins_of_the_ece_count_as_in_score():
    model = np.array([[1 / 3], [0.3]]), np.array([[False], [False]])
    about = {"task": Task.MULTI_LABEL, "labels": ("a",)}
    targets = np.array([[True], [False]])
    found = compare("ece", targets, model, model, **about, resamples=10)
    assert found.first == pytest.approx(score(targets, *model, **about)["ece"])


def test_the_same_answers_are_never_better():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 60)
    model = answers(rng, targets, 3, 0.7)
    for metric in ("accuracy", "f1_macro", "log_loss", "roc_auc_macro", "ece"):
        found = compare(metric, targets, model, model, task=Task.MULTI_CLASS, labels=LABELS, resamples=100)
        assert found[2:7] == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_equals_are_seldom_called_better(metric):
    """At one-sided 95 % about one pair of equals in twenty may look better; four in a hundred more are allowed."""
    rng = np.random.default_rng(11)
    called = 0
    for seed in range(300):
        targets = rng.integers(0, 3, 200)
        models = [answers(rng, targets, 3, 0.8) for _ in range(2)]
        found = compare(metric, targets, *models, task=Task.MULTI_CLASS, labels=LABELS, resamples=400, seed=seed)
        called += found.p_higher >= 0.95
    assert 3 <= called <= 27


def test_mcnemar_keeps_its_level_and_the_exact_one_is_stricter():
    rng = np.random.default_rng(5)
    tests = [mcnemar(rng.random(120) < 0.8, rng.random(120) < 0.8) for _ in range(1000)]
    assert np.mean([t.p_first_better <= 0.05 for t in tests]) == pytest.approx(0.05, abs=0.02)
    assert all(t.p <= t.p_exact + 1e-12 for t in tests)


def test_intervals_of_a_difference_of_shares_hold_it_on_small_tests_too():
    rng = np.random.default_rng(8)
    held = []
    for _ in range(1000):
        draw, both = rng.random(30), rng.random(30) < 0.85
        first, second = (draw < 0.02) | ((draw > 0.06) & both), ((draw > 0.02) & (draw < 0.06)) | ((draw > 0.06) & both)
        low, high = difference_interval(first, second)
        held.append(low <= -0.02 <= high)
    assert np.mean(held) >= 0.95
    low, high = difference_interval(np.ones(5, np.bool_), np.ones(5, np.bool_))
    assert (-1 <= low < 0 < high <= 1, low) == (True, -high)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_what_the_binomial_law_says(pairs):
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    found = mcnemar(first, second)
    n = found.first_only + found.second_only
    assert n == np.count_nonzero(first != second)
    assert 0 <= found.p <= 1
    turned = mcnemar(second, first)
    assert (turned.p, turned.p_exact, turned.p_second_better) == (found.p, found.p_exact, found.p_first_better)
    if n:
        tail = sum(binom.pmf(i, n, 0.5) for i in range(found.first_only + 1, n + 1))
        assert found.p_first_better == pytest.approx(tail + binom.pmf(found.first_only, n, 0.5) / 2)
        assert found.p_first_better + found.p_second_better == pytest.approx(1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_lies_between_the_value_and_bonferroni(p_values):
    found = holm(p_values)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p) + 1e-12
    assert [p for _, p in sorted(zip(p_values, found, strict=True))] == sorted(found)


def test_means_of_values_are_compared():
    found = compare_values(np.array([1.0, 1, 1, 0] * 20), np.array([1.0, 0, 0, 0] * 20), resamples=200)
    assert (found.first, found.second, found.difference) == (0.75, 0.25, 0.5)
    assert 0.3 < found.low < 0.5 < found.high < 0.7
    assert found.p_higher > 0.99


def test_what_cannot_be_compared_is_refused():
    targets = np.array([0, 1])
    model = (np.eye(2), targets)
    with pytest.raises(ConfigError, match="did you mean 'f1_macro'"):
        compare("test_f1_marco", targets, model, model, task=Task.BINARY, labels=LABELS[:2])
    with pytest.raises(ConfigError, match="resamples: got 0"):
        compare("accuracy", targets, model, model, task=Task.BINARY, labels=LABELS[:2], resamples=0)
    with pytest.raises(DataError, match="shapes"):
        compare_values(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="differ"):
        mcnemar(np.ones(3), np.ones(2))
