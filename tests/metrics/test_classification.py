import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tamiz.errors import DataError
from tamiz.metrics import METRICS, calibration_error, confusion, error_by_chance, per_label, score, score_sets
from tamiz.types import Task

AVERAGES = ("macro", "micro", "weighted")


def _labels(k):
    return tuple(f"label {j}" for j in range(k))


def _single(seed, n, k, *, present=None):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(k), n)
    targets = rng.choice(present if present is not None else k, n).astype(np.int64)
    return targets, probabilities, probabilities.argmax(axis=1).astype(np.int64)


def _multi(seed, n, k, rate=0.3):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n, k))
    return rng.random((n, k)) < rate, probabilities, probabilities > 0.6


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), k=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_multi_class_equals_sklearn(seed, n, k):
    targets, probabilities, decided = _single(seed, n, k)
    got = score(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=_labels(k))
    assert got["accuracy"] == sk.accuracy_score(targets, decided)
    for average in AVERAGES:
        values = sk.precision_recall_fscore_support(targets, decided, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            assert got[f"{name}_{average}"] == pytest.approx(value, abs=1e-12)
    assert got["log_loss"] == pytest.approx(sk.log_loss(targets, probabilities, labels=range(k)))
    assert got["brier"] == pytest.approx(((probabilities - np.eye(k)[targets]) ** 2).sum(axis=1).mean())
    assert "coverage" not in got
    assert "hamming_loss" not in got


def test_multi_class_ranking_equals_sklearn():
    targets, probabilities, decided = _single(3, 300, 5)
    got = score(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=_labels(5))
    assert got["roc_auc_macro"] == pytest.approx(sk.roc_auc_score(targets, probabilities, multi_class="ovr"))
    assert got["average_precision_macro"] == pytest.approx(
        sk.average_precision_score(np.eye(5)[targets], probabilities)
    )


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), k=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_multi_label_equals_sklearn(seed, n, k):
    targets, probabilities, decided = _multi(seed, n, k)
    got = score(targets, probabilities, decided, task=Task.MULTI_LABEL, labels=_labels(k))
    found = np.flatnonzero(targets.any(axis=0) | decided.any(axis=0))
    for average in AVERAGES:
        if not found.size:
            assert f"f1_{average}" not in got
            continue
        values = sk.precision_recall_fscore_support(targets, decided, labels=found, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            assert got[f"{name}_{average}"] == pytest.approx(value, abs=1e-12)
    assert got["subset_accuracy"] == sk.accuracy_score(targets, decided)
    assert got["hamming_loss"] == pytest.approx(sk.hamming_loss(targets, decided))
    assert got["log_loss"] == pytest.approx(
        np.mean([sk.log_loss(targets[:, j], probabilities[:, j], labels=[False, True]) for j in range(k)])
    )
    assert got["brier"] == pytest.approx(((probabilities - targets) ** 2).mean())
    assert "accuracy" not in got
    both = [j for j in range(k) if 0 < targets[:, j].sum() < n]
    if both:
        assert got["roc_auc_macro"] == pytest.approx(sk.roc_auc_score(targets[:, both], probabilities[:, both]))
    else:
        assert "roc_auc_macro" not in got


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_looks_at_the_positive_label(positive):
    targets, probabilities, decided = _single(5, 200, 2)
    got = score(targets, probabilities, decided, task=Task.BINARY, labels=_labels(2), positive=positive)
    outcome, p = targets == positive, probabilities[:, positive]
    assert got["roc_auc_macro"] == pytest.approx(sk.roc_auc_score(outcome, p))
    assert got["average_precision_macro"] == pytest.approx(sk.average_precision_score(outcome, p))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(outcome, p))
    assert got["f1_positive"] == pytest.approx(sk.f1_score(targets, decided, pos_label=positive))
    assert got["f1_macro"] == pytest.approx(sk.f1_score(targets, decided, average="macro"))


def test_absent_labels_are_left_out_of_averages():
    targets, probabilities, _ = _single(1, 200, 6, present=[0, 2, 3])
    decided = targets.copy()
    decided[:5] = 4  # decided without being true: counts as 0
    got = score(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=_labels(6))
    each = sk.f1_score(targets, decided, labels=[0, 2, 3, 4], average=None, zero_division=0)
    assert got["f1_macro"] == pytest.approx(each.mean())
    aucs = [sk.roc_auc_score(targets == j, probabilities[:, j]) for j in (0, 2, 3)]
    assert got["roc_auc_macro"] == pytest.approx(np.mean(aucs))


def test_a_single_label_in_the_targets_has_no_ranking_metrics():
    targets, probabilities, decided = _single(1, 20, 2, present=[1])
    got = score(targets, probabilities, decided, task=Task.BINARY, labels=_labels(2))
    assert "roc_auc_macro" not in got
    assert "average_precision_macro" not in got
    assert all(np.isfinite(list(got.values())))


def test_nothing_true_and_nothing_decided():
    nothing = np.zeros((4, 3), dtype=bool)
    got = score(nothing, np.full((4, 3), 0.1), nothing, task=Task.MULTI_LABEL, labels=_labels(3))
    assert got["subset_accuracy"] == 1
    assert got["hamming_loss"] == 0
    assert not [name for name in got if name.startswith(("f1", "recall", "precision", "roc"))]


def test_an_abstention_is_wrong_and_decides_no_label():
    targets = np.array([0, 1, 2, 2])
    decided = np.array([0, 1, 0, -1])
    got = score(targets, np.eye(3)[[0, 1, 0, 2]], decided, task=Task.MULTI_CLASS, labels=_labels(3))
    assert got["accuracy"] == 0.5
    assert got["coverage"] == 0.75
    assert got["selective_accuracy"] == pytest.approx(2 / 3)
    assert got["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert got["recall_micro"] == 0.5
    assert got["precision_micro"] == pytest.approx(2 / 3)


def test_abstaining_from_everything():
    targets, probabilities, _ = _single(2, 10, 3)
    got = score(targets, probabilities, np.full(10, -1), task=Task.MULTI_CLASS, labels=_labels(3))
    assert got["coverage"] == got["accuracy"] == got["f1_macro"] == 0
    assert "selective_accuracy" not in got


def test_ece_by_hand():
    # Two bins: confidence .9 with 3 of 4 right (off by .15), confidence .6 with 1 of 2 right (off by .1).
    top = np.array([0.9] * 4 + [0.6] * 2)
    probabilities = np.column_stack([top, 1 - top])
    targets = np.array([0, 0, 0, 1, 0, 1])
    got = score(targets, probabilities, np.zeros(6, dtype=int), task=Task.BINARY, labels=_labels(2))
    assert got["ece"] == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_ece_of_multi_label_is_the_mean_over_labels():
    probabilities = np.array([[0.2, 1.0], [0.2, 0.0]])
    targets = np.array([[True, True], [False, False]])
    got = score(targets, probabilities, targets, task=Task.MULTI_LABEL, labels=_labels(2))
    assert got["ece"] == pytest.approx((0.3 + 0.0) / 2)


@pytest.mark.parametrize(("task", "k"), [(Task.BINARY, 2), (Task.MULTI_CLASS, 4), (Task.MULTI_LABEL, 3)])
def test_right_probabilities_rarely_exceed_the_error_by_chance_and_wrong_ones_do(task, k):
    rng = np.random.default_rng(5)
    chances = rng.random((80, k)) if task is Task.MULTI_LABEL else rng.dirichlet(np.ones(k), 80)
    limit = error_by_chance(chances, task)
    assert limit > 2 * error_by_chance(np.tile(chances, (16, 1)), task)  # of the square root of the examples
    exceeded = []
    for _ in range(400):
        if task is Task.MULTI_LABEL:
            targets = rng.random((80, k)) < chances
            decided = chances >= 0.5
        else:
            targets = np.minimum((chances.cumsum(axis=1) < rng.random((80, 1))).sum(axis=1), k - 1)
            decided = chances.argmax(axis=1)
        exceeded.append(calibration_error(targets, chances, decided, task=task, labels=_labels(k)) > limit)
    assert 0.02 <= np.mean(exceeded) <= 0.09
    wrong = ~targets if task is Task.MULTI_LABEL else (targets + 1) % k
    assert calibration_error(wrong, chances, decided, task=task, labels=_labels(k)) > limit


def test_a_confidence_between_two_bins_of_the_ece_counts_in_the_lower_one():
    # 1/3 ends the fifth bin and .3 lies in it: together .6333 of confidence and one hit.
    probabilities = np.array([[1 / 3], [0.3]])
    got = score(np.array([[True], [False]]), probabilities, probabilities > 0.5, task=Task.MULTI_LABEL, labels=("a",))
    assert got["ece"] == pytest.approx((1 - 1 / 3 - 0.3) / 2)


def test_ece_of_calibrated_probabilities_is_small():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 40_000)
    targets = (probabilities.cumsum(axis=1) > rng.random((40_000, 1))).argmax(axis=1)
    decided = probabilities.argmax(axis=1)
    got = score(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=_labels(4))
    assert got["ece"] < 0.015


@pytest.mark.parametrize("task", list(Task))
def test_every_key_is_described_and_a_float(task):
    k = 2 if task is Task.BINARY else 4
    targets, probabilities, decided = _multi(0, 60, k) if task is Task.MULTI_LABEL else _single(0, 60, k)
    got = score(targets, probabilities, decided, task=task, labels=_labels(k))
    assert set(got) <= set(METRICS)
    assert list(got) == [name for name in METRICS if name in got]
    assert all(type(value) is float for value in got.values())


def test_log_loss_is_finite_where_the_truth_was_impossible():
    got = score(np.array([1, 0]), np.eye(2), np.array([0, 1]), task=Task.BINARY, labels=_labels(2))
    assert 30 < got["log_loss"] < 40


def test_arguments_are_not_mutated():
    targets, probabilities, decided = _multi(0, 20, 3)
    before = targets.copy(), probabilities.copy(), decided.copy()
    score(targets, probabilities, decided, task=Task.MULTI_LABEL, labels=_labels(3))
    for now, then in zip((targets, probabilities, decided), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_per_label_equals_sklearn_and_is_json_able():
    targets, probabilities, decided = _single(7, 80, 4, present=[0, 1, 2])
    decided[decided == 3] = 0
    decided[0] = -1
    rows = per_label(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=_labels(4))
    assert [row["label"] for row in rows] == list(_labels(4))
    f1 = sk.f1_score(targets, decided, labels=range(4), average=None, zero_division=0)
    assert [row["f1"] for row in rows[:3]] == pytest.approx(list(f1[:3]))
    assert rows[1]["roc_auc"] == pytest.approx(sk.roc_auc_score(targets == 1, probabilities[:, 1]))
    assert rows[3] == {
        "label": "label 3",
        "support": 0,
        "decided": 0,
        "precision": None,
        "recall": None,
        "f1": None,
        "roc_auc": None,
        "average_precision": None,
    }
    assert sum(row["support"] for row in rows) == 80
    assert sum(row["decided"] for row in rows) == 79
    assert json.loads(json.dumps(rows)) == rows


def test_per_label_of_multi_label():
    targets, probabilities, decided = _multi(7, 80, 4)
    rows = per_label(targets, probabilities, decided, task=Task.MULTI_LABEL, labels=_labels(4))
    assert [row["recall"] for row in rows] == pytest.approx(list(sk.recall_score(targets, decided, average=None)))
    assert [row["decided"] for row in rows] == list(decided.sum(axis=0))


def test_confusion_equals_sklearn():
    targets, _, decided = _single(9, 100, 5)
    got = confusion(targets, decided, 5)
    np.testing.assert_array_equal(got, sk.confusion_matrix(targets, decided, labels=range(5)))
    assert got.dtype == np.int64
    decided[:10] = -1
    assert confusion(targets, decided, 5).sum() == 90


def test_confusion_of_multi_label_equals_sklearn():
    targets, _, decided = _multi(9, 100, 5)
    got = confusion(targets, decided, 5)
    np.testing.assert_array_equal(got, sk.multilabel_confusion_matrix(targets, decided))
    assert got.dtype == np.int64


@pytest.mark.parametrize(
    ("targets", "probabilities", "decided", "words"),
    [
        ([0, 1], np.ones((2, 3)) / 3, [0, 1], "expected"),
        ([0, 2], np.ones((2, 2)) / 2, [0, 1], "targets: indices 0 to 2"),
        ([0, 1], np.ones((2, 2)) / 2, [0, -2], "decided: indices"),
        ([0], np.ones((2, 2)) / 2, [0, 1], "targets"),
        ([-1, 1], np.ones((2, 2)) / 2, [0, 1], "targets: indices -1"),
        ([0, 1], np.full((2, 2), np.nan), [0, 1], "finite"),
        ([], np.ones((0, 2)), [], "no example"),
    ],
)
def test_wrong_arrays_are_refused(targets, probabilities, decided, words):
    with pytest.raises(DataError, match=words):
        score(np.array(targets, dtype=int), probabilities, np.array(decided), task=Task.BINARY, labels=_labels(2))


def test_sets_are_counted_by_hand():
    sets = np.array([[True, True, False], [False, False, True], [False, False, False], [True, True, True]])
    found = score_sets(np.array([0, 1, 2, 2]), sets)
    assert found == {"set_coverage": 0.5, "set_size": 1.5}
    several = np.array([[True, True, True], [False, False, True], [False, False, False], [True, False, False]])
    assert score_sets(several, sets) == {"set_coverage": 0.8, "set_size": 1.5}
    assert score_sets(np.zeros((4, 3), bool), sets) == {"set_size": 1.5}


@pytest.mark.parametrize(("targets", "sets"), [((0,), (0, 3)), ((2,), (3, 3)), ((2, 3), (2, 4)), ((2,), (2,))])
def test_sets_that_do_not_fit_are_refused(targets, sets):
    with pytest.raises(DataError, match="sets: shape"):
        score_sets(np.zeros(targets, int), np.zeros(sets, bool))
