import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.decision import METHODS, Calibrator, fit_calibrator
from tamiz.errors import ConfigError, DataError, PackageError
from tamiz.types import Task

TASKS = list(Task)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _example(task, seed=0, n=300, k=4, *, sharpness=1.0):
    """Targets drawn from true probabilities, and those probabilities with log-odds multiplied by `sharpness`."""
    rng = np.random.default_rng(seed)
    k = 2 if task is Task.BINARY else k
    scores = rng.normal(size=(n, k)) * 1.5
    if task is Task.MULTI_LABEL:
        truth = 1 / (1 + np.exp(-scores))
        return 1 / (1 + np.exp(-scores * sharpness)), rng.random((n, k)) < truth
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    targets = (truth.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    given = np.exp(scores * sharpness)
    return given / given.sum(axis=1, keepdims=True), targets


def _log_loss(probabilities, targets, task):
    if task is Task.MULTI_LABEL:
        return -np.log(np.where(targets, probabilities, 1 - probabilities)).mean()
    return -np.log(probabilities[np.arange(len(targets)), targets]).mean()


def _check_probabilities(probabilities, task):
    assert probabilities.dtype == np.float64
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if task is not Task.MULTI_LABEL:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_gives_probabilities(self, method, task):
        probabilities, targets = _example(task)
        calibrator = fit_calibrator(method, probabilities, targets, task)
        assert calibrator.method == method
        _check_probabilities(calibrator.apply(probabilities), task)

    def test_survives_extremes(self, method, task):
        probabilities, targets = _example(task)
        hard = np.where(probabilities >= probabilities.max(axis=1, keepdims=True), 1.0, 0.0)
        for fitted_on in (hard, probabilities):
            calibrator = fit_calibrator(method, fitted_on, targets, task)
            _check_probabilities(calibrator.apply(hard), task)
            if method != "none":
                assert calibrator.apply(hard).min() > 0
                assert calibrator.apply(hard).max() < 1

    def test_survives_separated_data(self, method, task):
        probabilities, _ = _example(task)
        targets = probabilities > 0.5 if task is Task.MULTI_LABEL else probabilities.argmax(axis=1)
        _check_probabilities(fit_calibrator(method, probabilities, targets, task).apply(probabilities), task)

    def test_rows_are_independent(self, method, task):
        probabilities, targets = _example(task)
        calibrator = fit_calibrator(method, probabilities, targets, task)
        whole = calibrator.apply(probabilities)
        alone = np.vstack([calibrator.apply(row[None]) for row in probabilities])
        np.testing.assert_allclose(alone, whole, rtol=1e-12)
        order = np.random.default_rng(0).permutation(len(probabilities))
        np.testing.assert_allclose(calibrator.apply(probabilities[order]), whole[order], rtol=1e-12)

    def test_no_rows(self, method, task):
        probabilities, targets = _example(task)
        calibrator = fit_calibrator(method, probabilities, targets, task)
        assert calibrator.apply(probabilities[:0]).shape == (0, probabilities.shape[1])

    def test_round_trip_is_exact(self, method, task):
        probabilities, targets = _example(task)
        calibrator = fit_calibrator(method, probabilities, targets, task)
        restored = Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict())))
        assert restored == calibrator
        np.testing.assert_array_equal(restored.apply(probabilities), calibrator.apply(probabilities))

    def test_does_not_mutate(self, method, task):
        probabilities, targets = _example(task)
        before = probabilities.copy(), targets.copy()
        calibrator = fit_calibrator(method, probabilities, targets, task)
        calibrator.apply(probabilities)[:] = 0
        np.testing.assert_array_equal(probabilities, before[0])
        np.testing.assert_array_equal(targets, before[1])

    def test_changes_calibrated_probabilities_little(self, method, task):
        probabilities, targets = _example(task, n=6000)
        change = np.abs(fit_calibrator(method, probabilities, targets, task).apply(probabilities) - probabilities)
        assert change.mean() < (0.03 if method == "isotonic" else 0.01)  # a free curve learns more slowly

    def test_few_and_no_examples(self, method, task):
        probabilities, targets = _example(task)
        for n in (0, 1, 2, 3):
            calibrator = fit_calibrator(method, probabilities[:n], targets[:n], task)
            _check_probabilities(calibrator.apply(probabilities), task)
            assert (
                n
                or (calibrator.method == "none" and calibrator.reason == "no validation examples")
                or (method == "none")
            )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_repairs_over_and_underconfidence(method, task, sharpness):
    probabilities, targets = _example(task, n=3000, sharpness=sharpness)
    calibrator = fit_calibrator(method, probabilities, targets, task)
    fresh, truth = _example(task, seed=1, n=3000, sharpness=sharpness)
    ideal, _ = _example(task, seed=1, n=3000)
    repaired = _log_loss(calibrator.apply(fresh), truth, task)
    best, raw = _log_loss(ideal, truth, task), _log_loss(fresh, truth, task)
    assert repaired - best < 0.35 * (raw - best)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_is_the_factor_that_was_put_in(task, sharpness):
    probabilities, targets = _example(task, n=6000, sharpness=sharpness)
    assert fit_calibrator("temperature", probabilities, targets, task).temperature == pytest.approx(sharpness, rel=0.08)


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.05, 100), k=st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_temperature_keeps_the_order(seed, temperature, k):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(k), 20)
    clear = np.diff(np.sort(probabilities, axis=1)[:, -2:]).ravel() > 1e-9
    applied = Calibrator("temperature", Task.MULTI_CLASS, temperature=temperature).apply(probabilities)
    np.testing.assert_array_equal(applied.argmax(axis=1)[clear], probabilities.argmax(axis=1)[clear])
    labels = Calibrator("temperature", Task.MULTI_LABEL, temperature=temperature).apply(probabilities)
    np.testing.assert_array_equal(labels > 0.5, probabilities > 0.5)


def test_temperature_of_separated_data_stays_moderate():
    probabilities = np.tile([[0.7, 0.3], [0.3, 0.7]], (15, 1))
    calibrator = fit_calibrator("temperature", probabilities, np.tile([0, 1], 15), Task.BINARY)
    assert 0.15 < calibrator.temperature < 0.6


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_curves_never_fall(method):
    probabilities, targets = _example(Task.MULTI_LABEL, n=200)
    calibrator = fit_calibrator(method, 1 - probabilities, targets, Task.MULTI_LABEL)  # worse than chance
    grid = np.tile(np.linspace(0, 1, 101)[:, None], 4)
    assert (np.diff(calibrator.apply(grid), axis=0) >= -1e-15).all()


def test_sigmoid_finds_slope_and_intercept():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000) * 2
    targets = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(int)
    p = 1 / (1 + np.exp(-logits))
    ((slope, intercept),) = fit_calibrator("sigmoid", np.column_stack([1 - p, p]), targets, Task.BINARY).lines
    assert slope == pytest.approx(0.5, abs=0.03)
    assert intercept == pytest.approx(-1, abs=0.06)


def test_sigmoid_minimises_platts_loss():
    probabilities, targets = _example(Task.BINARY, n=60, sharpness=2)
    ((slope, intercept),) = fit_calibrator("sigmoid", probabilities, targets, Task.BINARY).lines
    logits = np.log(probabilities[:, 1]) - np.log(probabilities[:, 0])
    positives = targets.sum()
    wanted = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (60 - positives + 2))

    def loss(a, b):
        p = 1 / (1 + np.exp(-(a * logits + b)))
        return -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).sum()

    least = loss(slope, intercept)
    steps = [(da, db) for da in (-1e-3, 0, 1e-3) for db in (-1e-3, 0, 1e-3) if (da, db) != (0, 0)]
    assert all(loss(slope + da, intercept + db) > least for da, db in steps)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_binary_does_not_care_which_label_is_first(method):
    probabilities, targets = _example(Task.BINARY, n=200, sharpness=2)
    one = fit_calibrator(method, probabilities, targets, Task.BINARY).apply(probabilities)
    mirrored = fit_calibrator(method, probabilities[:, ::-1], 1 - targets, Task.BINARY).apply(probabilities[:, ::-1])
    np.testing.assert_allclose(one, mirrored[:, ::-1], atol=1e-5)


def test_isotonic_stays_off_zero_and_one():
    probabilities = np.array([[0.9, 0.1]] * 30 + [[0.2, 0.8]] * 20)
    targets = np.array([0] * 30 + [1] * 20)
    calibrated = fit_calibrator("isotonic", probabilities, targets, Task.BINARY).apply(probabilities)
    assert calibrated[0, 1] == pytest.approx(1 / 32)
    assert calibrated[-1, 1] == pytest.approx(21 / 22)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_labels_without_evidence_keep_their_probabilities(method):
    probabilities, targets = _example(Task.MULTI_LABEL, n=100, sharpness=3)
    targets[:, 1] = False
    targets[0, 1] = True
    targets[:, 2] = True
    calibrated = fit_calibrator(method, probabilities, targets, Task.MULTI_LABEL).apply(probabilities)
    np.testing.assert_allclose(calibrated[:, [1, 2]], probabilities[:, [1, 2]], atol=1e-12)
    assert np.abs(calibrated[:, 0] - probabilities[:, 0]).max() > 0.05


class TestAuto:
    @given(
        seed=st.integers(0, 10**6),
        n=st.integers(20, 80),
        sharpness=st.floats(0.3, 4),
        task=st.sampled_from(TASKS),
    )
    @settings(max_examples=15, deadline=None)
    def test_is_never_worse_than_none_in_cross_validation(self, seed, n, sharpness, task):
        probabilities, targets = _example(task, seed, n, 3, sharpness=sharpness)
        calibrator = fit_calibrator("auto", probabilities, targets, task, seed=1)
        assert calibrator.reason
        if calibrator.log_losses:
            assert calibrator.log_losses[calibrator.method] <= calibrator.log_losses["none"]
            assert calibrator.log_losses[calibrator.method] <= min(calibrator.log_losses.values()) + 1e-8
        _check_probabilities(calibrator.apply(probabilities), task)

    @pytest.mark.parametrize("task", TASKS)
    def test_takes_temperature_where_that_is_the_fault(self, task):
        probabilities, targets = _example(task, n=1500, sharpness=3)
        calibrator = fit_calibrator("auto", probabilities, targets, task)
        assert calibrator.method == "temperature"
        assert list(calibrator.log_losses) == list(METHODS)
        assert calibrator.reason == "lowest log loss in 5-fold cross-validation"
        assert Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict()))) == calibrator

    def test_takes_a_curve_where_temperature_cannot_help(self):
        rng = np.random.default_rng(0)
        p = rng.random(1500)
        targets = (rng.random(1500) < np.where(p > 0.8, 0.9, 0.1)).astype(int)
        assert fit_calibrator("auto", np.column_stack([1 - p, p]), targets, Task.BINARY).method == "isotonic"

    def test_leaves_what_cannot_be_improved(self):
        probabilities = np.full((40, 2), 0.5)
        calibrator = fit_calibrator("auto", probabilities, np.tile([0, 1], 20), Task.BINARY)
        assert calibrator.method == "none"
        assert calibrator.log_losses["none"] == pytest.approx(np.log(2))

    def test_same_seed_same_choice(self):
        probabilities, targets = _example(Task.MULTI_CLASS, n=100)
        one, same, other = (
            fit_calibrator("auto", probabilities, targets, Task.MULTI_CLASS, seed=seed) for seed in (0, 0, 1)
        )
        assert one == same
        assert one.log_losses != other.log_losses

    @pytest.mark.parametrize("n", [0, 1, 19])
    @pytest.mark.parametrize("task", TASKS)
    def test_few_examples(self, n, task):
        probabilities, targets = _example(task, n=n)
        calibrator = fit_calibrator("auto", probabilities, targets, task)
        assert calibrator.method == "none"
        assert calibrator.reason == f"{n} validation examples; comparing methods needs 20"

    def test_one_label_only(self):
        probabilities, targets = _example(Task.BINARY, n=50)
        calibrator = fit_calibrator("auto", probabilities, np.zeros_like(targets), Task.BINARY)
        assert (calibrator.method, calibrator.reason) == ("none", "only one label in validation data")
        probabilities, targets = _example(Task.MULTI_LABEL, n=50)
        calibrator = fit_calibrator("auto", probabilities, np.zeros_like(targets), Task.MULTI_LABEL)
        assert (calibrator.method, calibrator.reason) == ("none", "only one outcome in validation data")

    @pytest.mark.parametrize("left", [0, 1])
    def test_a_label_with_fewer_than_two_examples(self, left):
        probabilities, targets = _example(Task.MULTI_CLASS, n=400, sharpness=3)
        drop = np.flatnonzero(targets == 1)[left:]
        probabilities, targets = np.delete(probabilities, drop, axis=0), np.delete(targets, drop)
        calibrator = fit_calibrator("auto", probabilities, targets, Task.MULTI_CLASS)
        assert list(calibrator.log_losses) == ["none", "temperature"]
        assert calibrator.method == "temperature"
        assert "1 of 4 labels with fewer than 2 validation examples" in calibrator.reason

    def test_small_labels_take_fewer_folds(self):
        probabilities, targets = _example(Task.MULTI_CLASS, n=400)
        drop = np.flatnonzero(targets == 2)[3:]
        probabilities, targets = np.delete(probabilities, drop, axis=0), np.delete(targets, drop)
        assert "3-fold" in fit_calibrator("auto", probabilities, targets, Task.MULTI_CLASS).reason


@pytest.mark.parametrize(
    ("task", "probabilities", "targets", "words"),
    [
        (Task.BINARY, np.ones((2, 3)) / 3, [0, 1], r"expected \(n, 2\)"),
        (Task.MULTI_CLASS, np.ones(3), [0], "shape"),
        (Task.MULTI_CLASS, np.ones((2, 3)) / 3, [0, 3], "0 to 3, allowed: 0 to 2"),
        (Task.MULTI_CLASS, np.ones((2, 3)) / 3, [0], "expected integer"),
        (Task.MULTI_CLASS, np.ones((2, 3)) / 3, [0.0, 1.0], "expected integer"),
        (Task.MULTI_LABEL, np.ones((2, 3)) / 3, [[0, 1, 1], [0, 0, 1]], "expected bool"),
        (Task.BINARY, np.full((2, 2), np.nan), [0, 1], "finite"),
    ],
)
def test_wrong_examples_are_refused(task, probabilities, targets, words):
    with pytest.raises(DataError, match=words):
        fit_calibrator("temperature", probabilities, np.array(targets), task)


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'isotonic'"):
        fit_calibrator("isotonik", np.ones((1, 2)) / 2, np.array([0]), Task.BINARY)


def test_other_number_of_labels_is_refused():
    probabilities, targets = _example(Task.MULTI_CLASS)
    calibrator = fit_calibrator("sigmoid", probabilities, targets, Task.MULTI_CLASS)
    with pytest.raises(DataError, match="fitted on 4 labels, given 3"):
        calibrator.apply(probabilities[:, :3])


@pytest.mark.parametrize(
    "change",
    [
        {"method": "auto"},
        {"method": None},
        {"task": "regression"},
        {"temperature": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"lines": [[1]]},
        {"knots": [[[0.5, 0.1], [0, 1]]]},
        {"knots": [[[0, 1], [0, 2]]]},
        {"knots": [[[0, 1], [0]]]},
        {"knots": [[[], []]]},
        {"more": 1},
    ],
)
def test_damaged_dictionaries_are_refused(change):
    with pytest.raises(PackageError, match="calibration of the model package"):
        Calibrator.from_dict({"method": "temperature", "task": "binary", "temperature": 2.0, **change})


def test_empty_dictionary_is_refused():
    with pytest.raises(PackageError, match="method"):
        Calibrator.from_dict({})


def test_applying_needs_numpy_alone():
    code = (
        "import sys, numpy as np; from tamiz.decision import Calibrator, DecisionRule\n"
        "p = np.array([[.2, .8]])\n"
        "for d in ({'method': 'temperature', 'temperature': 2}, {'method': 'sigmoid', 'lines': [[1, 0]]},"
        " {'method': 'isotonic', 'knots': [[[0, 1], [0, 1]]]}):\n"
        "    p = Calibrator.from_dict({'task': 'binary', **d}).apply(p)\n"
        "DecisionRule.from_dict({'task': 'binary'}).decide(p)\n"
        "print([m for m in ('sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
