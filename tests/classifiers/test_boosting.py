"""What is particular to boosted trees."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tamiz.classifiers import check_params
from tamiz.classifiers.boosting import BoostingClassifier
from tamiz.classifiers.checks import examples
from tamiz.errors import ConfigError, LabelError, PackageError
from tamiz.types import Task, Validation

QUICK = {"rounds": 30, "num_threads": 1}


def fitted(task=Task.BINARY, **params):
    texts, targets, labels = examples(task)
    return BoostingClassifier(labels, task, **{**QUICK, **params}).fit(texts, targets), texts, targets


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_it_learns(task, class_weight):
    model, texts, targets = fitted(task, class_weight=class_weight)
    p = model.predict_proba(texts)
    answers = p >= 0.5 if task is Task.MULTI_LABEL else p.argmax(axis=1)
    assert (answers == targets).mean() > 0.95


def noisy(seed, n=200):
    texts, targets, labels = examples(Task.BINARY, n=n, seed=seed)
    flipped = np.random.default_rng(seed).random(n) < 0.3
    return texts, np.where(flipped, 1 - targets, targets), labels


def test_early_stopping_stops_and_keeps_the_best_round():
    texts, targets, labels = noisy(0)
    held_out = noisy(1)
    about = {"rounds": 200, "num_threads": 1, "learning_rate": 0.3, "early_stopping": 10}
    grown = []
    model = BoostingClassifier(labels, Task.BINARY, **about).fit(
        texts,
        targets,
        validation=Validation(*held_out[:2]),
        progress=lambda m, done=0, total=0: grown.append(done) if m == "growing trees" else None,
    )
    kept = model.rounds_[0]
    assert kept + 10 == grown[-1] < 200

    def loss(rounds):
        fixed = BoostingClassifier(labels, Task.BINARY, **{**about, "rounds": rounds}).fit(texts, targets)
        assert fixed.rounds_ == {0: rounds}
        p = fixed.predict_proba(held_out[0])
        return -np.log(p[np.arange(len(p)), held_out[1]]).mean()

    losses = [loss(rounds) for rounds in range(1, kept + 6)]
    assert int(np.argmin(losses)) + 1 == kept
    p = model.predict_proba(held_out[0])
    assert -np.log(p[np.arange(len(p)), held_out[1]]).mean() == pytest.approx(min(losses), abs=1e-12)


def test_without_early_stopping_all_rounds_are_grown():
    texts, targets, labels = noisy(0)
    validation = Validation(*noisy(1)[:2])
    for about, held in (({"early_stopping": None}, validation), ({}, None)):
        model = BoostingClassifier(labels, Task.BINARY, rounds=60, num_threads=1, **about)
        assert model.fit(texts, targets, validation=held).rounds_ == {0: 60}


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_each_task_stops_early(task):
    texts, targets, labels = examples(task)
    wrong = ~targets if task is Task.MULTI_LABEL else (targets + 1) % 3
    model = BoostingClassifier(labels, task, early_stopping=3, **QUICK)
    model.fit(texts, targets, validation=Validation(texts, wrong))
    assert set(model.rounds_.values()) == {1}


def test_the_number_of_threads_changes_nothing():
    texts, targets, labels = examples(Task.MULTI_CLASS, n=300)
    first, second = (
        BoostingClassifier(labels, Task.MULTI_CLASS, rounds=20, num_threads=n).fit(texts, targets).predict_proba(texts)
        for n in (1, 2)
    )
    assert np.array_equal(first, second)


def test_another_seed_draws_other_features():
    texts, targets, labels = noisy(0)
    first, second = (
        BoostingClassifier(labels, Task.BINARY, seed=seed, feature_share=0.3, **QUICK).fit(texts, targets)
        for seed in (0, 1)
    )
    assert not np.array_equal(first.predict_proba(texts), second.predict_proba(texts))


def test_labels_without_examples_get_almost_no_probability():
    texts, targets, labels = examples(Task.MULTI_CLASS)
    labels = (labels[0], "never", *labels[1:])
    there = targets + (targets > 0)
    model = BoostingClassifier(labels, Task.MULTI_CLASS, **QUICK)
    # A validation text of the label that training has not is left aside.
    model.fit(texts, there, validation=Validation([*texts, "odd"], np.append(there, 1)))
    p = model.predict_proba(texts)
    assert p[:, 1].max() < 1e-6
    assert (p.argmax(axis=1) == there).all()
    has = np.stack([targets == 0, np.zeros(len(texts), bool), np.ones(len(texts), bool)], axis=1)
    p = BoostingClassifier(("a", "never", "ever"), Task.MULTI_LABEL, **QUICK).fit(texts, has).predict_proba(texts)
    assert p[:, 1].max() < 1e-6
    assert p[:, 2].min() > 1 - 1e-6
    assert ((p[:, 0] > 0.5) == has[:, 0]).all()


def test_very_few_texts():
    for n in (1, 2, 3):
        for task in (Task.BINARY, Task.MULTI_CLASS):
            model = BoostingClassifier(("a", "b"), task, min_df=1, **QUICK)
            model.fit(["x y", "y z", "z x"][:n], np.array([0, 1, 0])[:n])
            assert np.isfinite(model.predict_proba(["x", "q"])).all()


def test_balanced_weights_help_the_rare_label():
    rng = np.random.default_rng(0)
    targets = (rng.random(400) < 0.05).astype(np.int64)
    texts = [f"{'rare' if (t and rng.random() < 0.7) else 'common'} word {rng.integers(9)}" for t in targets]
    plain, balanced = (
        BoostingClassifier(("no", "yes"), Task.BINARY, class_weight=w, **QUICK)
        .fit(texts, targets)
        .predict_proba(texts)[:, 1]
        for w in (None, "balanced")
    )
    assert balanced[targets == 1].mean() > plain[targets == 1].mean()


@pytest.mark.parametrize("task", Task)
def test_explanations_name_the_words_that_matter(task):
    model, *_ = fitted(task)
    text = "the bread unheard the loan the soup"
    label = model.labels.index("food")
    found = model.explain(text, label)
    by_word = {text[c.start : c.end]: c.value for c in found.contributions}
    assert max(by_word, key=by_word.get) in ("bread", "soup")
    assert "unheard" not in by_word
    p = model.predict_proba([text])[0, label]
    if task is not Task.MULTI_CLASS:
        assert found.score == pytest.approx(np.log(p / (1 - p)))


def test_a_label_without_examples_is_explained_by_nothing():
    texts, targets, labels = examples(Task.MULTI_CLASS)
    model = BoostingClassifier((*labels, "never"), Task.MULTI_CLASS, **QUICK).fit(texts, targets)
    assert model.explain(texts[0], 3).contributions == ()


def test_boosters_are_text(tmp_path):
    model, *_ = fitted(Task.MULTI_LABEL)
    model.save(tmp_path)
    for label in range(3):
        text = (tmp_path / f"booster_{label}.txt").read_text(encoding="utf-8")
        assert text.startswith("tree\n")
        assert "[objective: binary]" in text


def test_damaged_files_are_refused(tmp_path):
    model, *_ = fitted()
    model.save(tmp_path)
    (tmp_path / "booster_0.txt").write_text("no trees")
    with pytest.raises(PackageError, match="incomplete"):
        BoostingClassifier.load(tmp_path)
    (tmp_path / "booster_0.txt").unlink()
    with pytest.raises(PackageError, match="incomplete"):
        BoostingClassifier.load(tmp_path)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"rounds": 0}, "rounds"),
        ({"early_stopping": 0}, "early_stopping"),
        ({"learning_rate": 2}, "learning_rate"),
        ({"min_data_in_leaf": "some"}, "min_data_in_leaf"),
        ({"leafs": 3}, "did you mean 'leaves'"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ConfigError, match=said):
        check_params("boosting", params)


def test_no_feature_left_is_an_error_that_says_what_to_do():
    with pytest.raises(LabelError, match="lower min_df"):
        BoostingClassifier(("a", "b"), Task.BINARY).fit(["x", "y"], np.array([0, 1]))


def test_without_lightgbm_the_error_says_what_to_install(tmp_path):
    model, *_ = fitted()
    model.save(tmp_path)
    code = (
        "import sys, json\n"
        "sys.modules['lightgbm'] = None\n"
        "from pathlib import Path\n"
        "from tamiz.classifiers import check_params, classifier_class\n"
        "from tamiz.errors import MissingExtraError\n"
        "check_params('boosting', {})\n"
        "try:\n"
        f"    classifier_class('boosting').load(Path({str(tmp_path)!r}))\n"
        "except MissingExtraError as error:\n"
        "    print(json.dumps(str(error)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tamiz[train]'" in json.loads(out.stdout)


@pytest.mark.parametrize("task", Task)
def test_a_refit_keeps_the_rounds_that_validation_chose(task, tmp_path):
    texts, targets, labels = examples(task, n=120)
    held, answers, _ = examples(task, n=60, seed=1)
    wrong = np.random.default_rng(0).random(answers.shape) < 0.3  # else more rounds would always be better
    answers = np.where(wrong, ~answers if task is Task.MULTI_LABEL else (answers + 1) % len(labels), answers)
    about = {"rounds": 60, "num_threads": 1, "learning_rate": 0.5, "early_stopping": 3}
    model = BoostingClassifier(labels, task, seed=7, **about)
    model.fit(texts, targets, validation=Validation(held, answers))
    assert max(model.rounds_.values()) < 60
    model.save(tmp_path)
    again = BoostingClassifier.load(tmp_path).refit(texts, targets, seed=7)
    assert again is not model
    assert again.rounds_ == model.rounds_
    np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))
