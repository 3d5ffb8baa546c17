"""What is particular to ensembles."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tamiz.classifiers import check_params
from tamiz.classifiers.checks import examples
from tamiz.classifiers.ensemble import EnsembleClassifier, _best_temperature, _best_weights, _likelihoods, _tempered
from tamiz.classifiers.linear import LinearClassifier
from tamiz.classifiers.nb_stack import NbStackClassifier
from tamiz.errors import ConfigError, LabelError, PackageError
from tamiz.types import Task, Validation

LINEAR, PRIOR, BAYES = {"family": "linear"}, {"family": "prior"}, {"family": "nb_stack"}


def data(task=Task.BINARY, seed=0, n=90):
    """Texts with one answer in ten wrong, so that no member can be sure."""
    texts, targets, labels = examples(task, n=n, seed=seed)
    wrong = np.random.default_rng(seed).random(targets.shape) < 0.1
    return (
        texts,
        np.where(wrong, ~targets if task is Task.MULTI_LABEL else (targets + 1) % len(labels), targets),
        labels,
    )


def fitted(task=Task.BINARY, *, held_out=True, **params):
    texts, targets, labels = data(task)
    validation = Validation(*data(task, seed=1)[:2]) if held_out else None
    return EnsembleClassifier(labels, task, **params).fit(texts, targets, validation=validation), texts, targets


@pytest.mark.parametrize("task", Task)
def test_the_better_member_counts_more(task):
    model, *_ = fitted(task, members=[PRIOR, LINEAR])
    assert model.weights_[1] > 0.8
    assert model.weights_.sum() == pytest.approx(1)


@pytest.mark.parametrize("task", Task)
def test_on_validation_it_is_no_worse_than_its_members(task):
    members = [LINEAR, BAYES, PRIOR]
    model, *_ = fitted(task, members=members)
    texts, targets, labels = data(task, seed=1)
    has = targets if task is Task.MULTI_LABEL else targets[:, None] == np.arange(len(labels))

    def loss(p):
        return -np.log(_likelihoods(p, has, task)).mean()

    losses = []
    for place, made in model.members_.items():
        p = made.predict_proba(texts)
        losses += [loss(p), loss(_tempered(p, model.temperatures_[place], task))]
    assert loss(model.predict_proba(texts)) <= min(losses) + 1e-3


def test_without_validation_weights_are_equal_and_answers_the_mean():
    model, texts, targets = fitted(held_out=False)
    assert model.weights_.tolist() == [0.5, 0.5]
    assert model.temperatures_.tolist() == [1.0, 1.0]
    members = [cls(model.labels, Task.BINARY).fit(texts, targets) for cls in (LinearClassifier, NbStackClassifier)]
    assert np.allclose(model.predict_proba(texts), sum(m.predict_proba(texts) for m in members) / 2, atol=1e-12)


def test_a_handful_of_validation_texts_decides_nothing():
    texts, targets, labels = data()
    model = EnsembleClassifier(labels, Task.BINARY).fit(texts, targets, validation=Validation(texts[:9], targets[:9]))
    assert model.weights_.tolist() == [0.5, 0.5]


def test_fixed_weights_are_kept_in_proportion():
    model, *_ = fitted(weights=[3, 1], temperatures=False)
    assert model.weights_.tolist() == [0.75, 0.25]
    assert model.temperatures_.tolist() == [1.0, 1.0]


def test_best_weights_equal_those_of_a_general_optimiser():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    likelihoods = np.stack([rng.beta(4, 2, 500), rng.beta(3, 2, 500), rng.beta(1, 3, 500)], axis=1)
    ours = _best_weights(likelihoods)
    peer = minimize(
        lambda w: -np.log(likelihoods @ w).mean(),
        np.full(3, 1 / 3),
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    ).x
    assert np.allclose(ours, peer, atol=1e-3)


def test_temperatures_undo_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-logits))
    sure = 1 / (1 + np.exp(-3 * logits))
    has = np.stack([~truth, truth], axis=1)
    assert _best_temperature(np.stack([1 - sure, sure], axis=1), has, Task.BINARY) == pytest.approx(3, rel=0.1)
    assert _best_temperature(sure[:, None], truth[:, None], Task.MULTI_LABEL) == pytest.approx(3, rel=0.1)


def test_a_member_that_does_not_count_is_not_saved(tmp_path):
    model, texts, _ = fitted(members=[LINEAR, PRIOR, BAYES], weights=[1, 0, 1])
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["member_0", "member_2"]
    loaded = EnsembleClassifier.load(tmp_path)
    assert np.array_equal(loaded.predict_proba(texts), model.predict_proba(texts))


def test_members_prepare_their_texts_themselves():
    stemmed = {**LINEAR, "prepare": ["case", {"stem": "english"}]}
    model, *_ = fitted(members=[stemmed, PRIOR], weights=[1, 0])
    assert np.array_equal(model.predict_proba(["the LOANS"]), model.predict_proba(["the loan"]))
    model, *_ = fitted(members=[LINEAR, PRIOR], weights=[1, 0])
    assert not np.array_equal(model.predict_proba(["the LOANS"]), model.predict_proba(["the loan"]))


def test_validation_reaches_the_members():
    boosting = {"family": "boosting", "params": {"rounds": 30, "early_stopping": 2, "num_threads": 1}}
    texts, targets, labels = examples(Task.BINARY)
    model = EnsembleClassifier(labels, Task.BINARY, members=[boosting, LINEAR], weights=[1, 1])
    model.fit(texts, targets, validation=Validation(texts, 1 - targets))
    assert model.members_[0].rounds_ == {0: 1}


def test_progress_names_the_member():
    texts, targets, labels = examples(Task.BINARY)
    told = []
    EnsembleClassifier(labels, Task.BINARY).fit(texts, targets, progress=lambda *about: told.append(about))
    assert ("member 1 of 2, linear: counting n-grams", 180, 180) in told
    assert ("member 2 of 2, nb_stack: fitting folds", 5, 5) in told


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"members": [LINEAR]}, "at least 2"),
        ({"members": [LINEAR, {"family": "liner"}]}, "did you mean 'linear'"),
        ({"members": [LINEAR, {"family": "linear", "params": {"mindf": 1}}]}, "did you mean 'min_df'"),
        ({"members": [LINEAR, {"family": "linear", "prepare": ["stems"]}]}, "no cleaning step"),
        ({"members": [LINEAR, {"family": "ensemble"}]}, "list its members instead"),
        ({"weights": [1]}, "1 weights for 2 members"),
        ({"weights": [0, 0]}, "all weights are 0"),
        ({"weights": [1, -1]}, "greater than or equal to 0"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ConfigError, match=said):
        check_params("ensemble", params)


def test_a_member_without_features_says_what_to_do():
    with pytest.raises(LabelError, match="lower min_df"):
        EnsembleClassifier(("a", "b"), Task.BINARY).fit(["x", "y"], np.array([0, 1]))


def test_damaged_files_are_refused(tmp_path):
    model, *_ = fitted(weights=[1, 1])
    model.save(tmp_path)
    (tmp_path / "member_1" / "words.txt").unlink()
    with pytest.raises(PackageError, match="incomplete"):
        EnsembleClassifier.load(tmp_path)
    (tmp_path / "ensemble.json").write_text(json.dumps({"weights": [1.0], "temperatures": [1.0]}))
    with pytest.raises(PackageError, match="for 2 members"):
        EnsembleClassifier.load(tmp_path)
    (tmp_path / "ensemble.json").write_text("{")
    with pytest.raises(PackageError, match="missing or damaged"):
        EnsembleClassifier.load(tmp_path)


def test_serving_loads_numpy_only_where_the_members_do(tmp_path):
    from tests.models import model_of

    model_of("ensemble").save(tmp_path / "package")
    code = (
        "import sys, tamiz\n"
        f"model = tamiz.load({str(tmp_path / 'package')!r})\n"
        "model.predict(['bread and butter'])\n"
        "heavy = {'scipy', 'sklearn', 'lightgbm', 'pandas', 'polars', 'pyarrow', 'deltalake', 'mlflow', 'boto3'}\n"
        "print(sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] True"


@pytest.mark.parametrize("task", Task)
def test_a_refit_keeps_weights_and_temperatures(task):
    texts, targets, labels = examples(task)
    held_out = examples(task, n=60, seed=1)
    members = [LINEAR, {"family": "boosting", "params": {"rounds": 40, "num_threads": 1, "early_stopping": 3}}]
    model = EnsembleClassifier(labels, task, members=members).fit(texts, targets, validation=Validation(*held_out[:2]))
    again = model.refit(texts, targets, seed=0)
    assert set(again.members_) == set(model.members_)
    np.testing.assert_array_equal(again.weights_, model.weights_)
    np.testing.assert_array_equal(again.temperatures_, model.temperatures_)
    np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))
