import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from tamiz.errors import ConfigError
from tamiz.metrics import bootstrap, score, share_interval
from tamiz.metrics import intervals as module
from tamiz.types import Task


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _labels(k):
    return tuple(f"label {j}" for j in range(k))


def _example(task, seed, n, k, *, digits=2):
    """Predictions that are fairly right, with tied scores."""
    rng = np.random.default_rng(seed)
    if task is Task.MULTI_LABEL:
        probabilities = rng.random((n, k)).round(digits)
        return rng.random((n, k)) < probabilities, probabilities, probabilities >= 0.5
    probabilities = rng.dirichlet(np.ones(k), n).round(digits)
    targets = (probabilities.cumsum(axis=1) > rng.random((n, 1)) * probabilities.sum(axis=1, keepdims=True)).argmax(1)
    return targets, probabilities, probabilities.argmax(axis=1)


def _shares_of(task):
    if task is Task.MULTI_LABEL:
        return ["subset_accuracy"]
    return ["accuracy", "f1_micro", "precision_micro", "recall_micro", "recall_weighted"]


def _resampled_scores(targets, probabilities, decided, task, k, resamples, seed):
    """What `score` says of the same resamples, written out."""
    values = {}
    for weights in module.drawn_weights(len(targets), resamples, seed):
        for column in weights.T.astype(int):
            rows = np.repeat(np.arange(len(targets)), column)
            got = score(targets[rows], probabilities[rows], decided[rows], task=task, labels=_labels(k))
            for name, value in got.items():
                values.setdefault(name, []).append(value)
    return values


@pytest.mark.parametrize("task", list(Task))
def test_equals_scoring_every_resample(task):
    k = 2 if task is Task.BINARY else 4
    targets, probabilities, decided = _example(task, 1, 30, k)
    got = bootstrap(targets, probabilities, decided, task=task, labels=_labels(k), resamples=25, seed=4)
    wanted = _resampled_scores(targets, probabilities, decided, task, k, 25, 4)
    observed = score(targets, probabilities, decided, task=task, labels=_labels(k))
    assert set(got) == set(wanted) - {"ece"}
    shares = _shares_of(task)
    for name, (low, high) in got.items():
        if name in shares:
            continue
        shift = np.mean(wanted[name]) - observed[name]
        ends = np.quantile(wanted[name], [0.025, 0.975]) - shift
        ends = np.clip(ends, 0, None if name in ("log_loss", "brier") else 1)
        assert (low, high) == pytest.approx(tuple(ends), abs=1e-9), name


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_CLASS])
def test_abstentions(task):
    k = 2 if task is Task.BINARY else 3
    targets, probabilities, decided = _example(task, 2, 40, k)
    decided = np.where(probabilities.max(axis=1) < 0.6, -1, decided)
    got = bootstrap(targets, probabilities, decided, task=task, labels=_labels(k), resamples=20, seed=4)
    wanted = _resampled_scores(targets, probabilities, decided, task, k, 20, 4)
    observed = score(targets, probabilities, decided, task=task, labels=_labels(k))
    for name in ("f1_micro", "f1_macro"):
        shift = np.mean(wanted[name]) - observed[name]
        assert got[name] == pytest.approx(tuple(np.quantile(wanted[name], [0.025, 0.975]) - shift)), name
    right, answered = int((decided == targets).sum()), int((decided >= 0).sum())
    assert got["accuracy"] == got["recall_micro"] == share_interval(right, 40)
    assert got["coverage"] == share_interval(answered, 40)
    assert got["selective_accuracy"] == got["precision_micro"] == share_interval(right, answered)
    nobody = np.full(40, -1)
    got = bootstrap(targets, probabilities, nobody, task=task, labels=_labels(k), resamples=20)
    assert got["coverage"] == share_interval(0, 40)
    assert not {"selective_accuracy", "precision_micro", "f1_macro"} & set(got)


@pytest.mark.parametrize("task", list(Task))
def test_shares_have_wilsons_interval_at_the_level(task):
    k = 2 if task is Task.BINARY else 4
    targets, probabilities, decided = _example(task, 1, 30, k)
    got = bootstrap(targets, probabilities, decided, task=task, labels=_labels(k), resamples=25, level=0.8)
    right = targets == decided
    right = int((right.all(axis=1) if task is Task.MULTI_LABEL else right).sum())
    z, share = norm.ppf(0.9), right / 30
    middle, room = share + z**2 / 60, z * np.sqrt(share * (1 - share) / 30 + z**2 / 3600)
    ends = (middle - room) / (1 + z**2 / 30), (middle + room) / (1 + z**2 / 30)
    for name in _shares_of(task):
        assert got[name] == pytest.approx(ends), name


@pytest.mark.parametrize("task", list(Task))
def test_perfect_figures_have_no_interval_without_width(task):
    k = 2 if task is Task.BINARY else 3
    targets = np.arange(30) % k
    targets = np.eye(k, dtype=bool)[targets] if task is Task.MULTI_LABEL else targets
    probabilities = np.where(targets, 0.9, 0.2) if targets.ndim > 1 else np.eye(k)[targets] * 0.7 + 0.3 / k
    got = bootstrap(targets, probabilities, targets, task=task, labels=_labels(k), resamples=50)
    assert all(high > low for low, high in got.values())
    assert set(got) == set(_shares_of(task))


def test_covers_a_truth_near_one_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        decided = np.zeros(100, dtype=int)
        targets = (rng.random(100) >= 0.99).astype(int)
        got = bootstrap(targets, np.full((100, 2), 0.5), decided, task=Task.BINARY, labels=_labels(2), resamples=20)
        low, high = got["accuracy"]
        inside += low <= 0.99 <= high
    assert inside / 200 >= 0.88


@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), digits=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_weighted_ranking_equals_sklearn(seed, n, digits):
    rng = np.random.default_rng(seed)
    scores, outcomes = rng.random(n).round(digits), rng.random(n) < 0.4
    outcomes[:2] = True, False
    weights = rng.integers(0, 3, (n, 4)).astype(float)
    weights[:2] += 1
    ranking = module._ranking(outcomes, scores)
    auc, precision, defined = module._weighted_ranking(ranking, weights, np.zeros((n + 1, 4)))
    assert defined.all()
    for j in range(4):
        kept = weights[:, j] > 0
        arguments = {"y_true": outcomes[kept], "y_score": scores[kept], "sample_weight": weights[kept, j]}
        assert auc[j] == pytest.approx(roc_auc_score(**arguments))
        assert precision[j] == pytest.approx(average_precision_score(**arguments))


def test_chunks_do_not_change_the_result(monkeypatch):
    targets, probabilities, decided = _example(Task.MULTI_CLASS, 0, 50, 3)
    arguments = {"task": Task.MULTI_CLASS, "labels": _labels(3), "resamples": 40, "seed": 1}
    whole = bootstrap(targets, probabilities, decided, **arguments)
    monkeypatch.setattr(module, "_CHUNK_CELLS", 350)
    chunked = bootstrap(targets, probabilities, decided, **arguments)
    assert whole.keys() == chunked.keys()
    for name, ends in whole.items():
        assert ends == pytest.approx(chunked[name], abs=1e-12)


def test_ranking_metrics_take_fewer_resamples_where_work_is_large(monkeypatch):
    targets, probabilities, decided = _example(Task.MULTI_CLASS, 0, 50, 3)
    arguments = {"task": Task.MULTI_CLASS, "labels": _labels(3), "seed": 1}
    few = bootstrap(targets, probabilities, decided, resamples=7, **arguments)
    monkeypatch.setattr(module, "_RANKING_CELLS", 0)
    monkeypatch.setattr(module, "_FEWEST_RANKING_RESAMPLES", 7)
    monkeypatch.setattr(module, "_CHUNK_CELLS", 250)
    many = bootstrap(targets, probabilities, decided, resamples=60, **arguments)
    assert many["roc_auc_macro"] == pytest.approx(few["roc_auc_macro"])
    assert many["f1_macro"] != pytest.approx(few["f1_macro"])


@pytest.mark.parametrize("task", list(Task))
def test_intervals_hold_the_estimate_and_shrink(task):
    k = 2 if task is Task.BINARY else 5
    widths = []
    for n in (150, 2400):
        targets, probabilities, decided = _example(task, n, n, k, digits=6)
        observed = score(targets, probabilities, decided, task=task, labels=_labels(k))
        got = bootstrap(targets, probabilities, decided, task=task, labels=_labels(k), resamples=200, seed=0)
        assert all(low <= observed[name] <= high for name, (low, high) in got.items())
        widths.append({name: high - low for name, (low, high) in got.items()})
    small, large = widths
    assert all(2 * large[name] < small[name] for name in small)


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        decided = np.zeros(120, dtype=int)
        targets = (rng.random(120) >= 0.7).astype(int)
        got = bootstrap(
            targets, np.full((120, 2), 0.5), decided, task=Task.BINARY, labels=_labels(2), resamples=200, seed=seed
        )
        low, high = got["accuracy"]
        inside += low <= 0.7 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_bias_of_average_precision_with_rare_labels_is_removed():
    targets, probabilities, decided = _example(Task.MULTI_CLASS, 0, 300, 60, digits=6)
    arguments = {"task": Task.MULTI_CLASS, "labels": _labels(60)}
    observed = score(targets, probabilities, decided, **arguments)["average_precision_macro"]
    low, high = bootstrap(targets, probabilities, decided, resamples=200, seed=0, **arguments)[
        "average_precision_macro"
    ]
    assert low < observed < high


def test_same_seed_same_intervals():
    targets, probabilities, decided = _example(Task.BINARY, 0, 80, 2)
    arguments = {"task": Task.BINARY, "labels": _labels(2), "resamples": 50}
    one, same, other = (bootstrap(targets, probabilities, decided, seed=seed, **arguments) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_undefined_metrics_are_left_out():
    targets = np.ones(12, dtype=int)
    got = bootstrap(targets, np.full((12, 2), 0.5), targets, task=Task.BINARY, labels=_labels(2), resamples=10)
    assert "roc_auc_macro" not in got
    assert got["accuracy"] == share_interval(12, 12)
    nothing = np.zeros((5, 3), dtype=bool)
    got = bootstrap(nothing, np.zeros((5, 3)), nothing, task=Task.MULTI_LABEL, labels=_labels(3), resamples=10)
    assert set(got) == {"subset_accuracy"}


def test_one_example():
    got = bootstrap(np.array([1]), np.array([[0.2, 0.8]]), np.array([1]), task=Task.BINARY, labels=_labels(2))
    assert got["accuracy"] == share_interval(1, 1)


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_wrong_plans_are_refused(resamples, level):
    targets, probabilities, decided = _example(Task.BINARY, 0, 10, 2)
    with pytest.raises(ConfigError, match="allowed"):
        bootstrap(
            targets, probabilities, decided, task=Task.BINARY, labels=_labels(2), resamples=resamples, level=level
        )
