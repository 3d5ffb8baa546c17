"""What is particular to the linear family."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from tamiz.classifiers import base, check_params
from tamiz.classifiers.checks import examples
from tamiz.classifiers.linear import LinearClassifier
from tamiz.classifiers.regression import Regression
from tamiz.errors import ConfigError, LabelError, PackageError
from tamiz.types import Task


def fitted(task=Task.BINARY, **params):
    texts, targets, labels = examples(task)
    return LinearClassifier(labels, task, **params).fit(texts, targets), texts, targets


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("nb_weighting", [False, True])
def test_it_learns(task, nb_weighting):
    model, texts, targets = fitted(task, nb_weighting=nb_weighting)
    p = model.predict_proba(texts)
    answers = p >= 0.5 if task is Task.MULTI_LABEL else p.argmax(axis=1)
    assert (answers == targets).mean() > 0.95


def test_a_label_without_examples_gets_almost_no_probability():
    texts, targets, labels = examples(Task.MULTI_CLASS)
    for nb in (False, True):
        model = LinearClassifier((*labels, "never"), Task.MULTI_CLASS, nb_weighting=nb).fit(texts, targets)
        assert model.predict_proba(texts)[:, -1].max() < 1e-6
    both = np.hstack([targets[:, None] == np.arange(3), np.zeros((len(texts), 1), bool)])
    model = LinearClassifier((*labels, "never"), Task.MULTI_LABEL).fit(texts, both)
    assert model.predict_proba(texts)[:, -1].max() < 1e-6


def test_two_of_three_labels_with_examples():
    texts, targets, labels = examples(Task.BINARY)
    model = LinearClassifier(("aaa", *labels), Task.MULTI_CLASS).fit(texts, targets + 1)
    assert (model.predict_proba(texts).argmax(axis=1) == targets + 1).all()


def test_equals_scikit_learn_on_the_same_features():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, targets, labels = examples(Task.MULTI_CLASS, n=300)
    ours = LinearClassifier(
        labels, Task.MULTI_CLASS, tokens="words", min_df=1, C=1.0, tol=1e-8, max_iter=1000, nb_weighting=False
    ).fit(texts, targets)
    peer = make_pipeline(
        TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=1.0, tol=1e-8, max_iter=1000),
    ).fit(texts, targets)
    assert np.allclose(ours.predict_proba(texts), peer.predict_proba(texts), atol=1e-4)


def test_no_feature_left_is_an_error_that_says_what_to_do():
    with pytest.raises(LabelError, match="lower min_df"):
        LinearClassifier(("a", "b"), Task.BINARY).fit(["x", "y"], np.array([0, 1]))


def test_balanced_weights_help_the_rare_label():
    rng = np.random.default_rng(0)
    targets = (rng.random(400) < 0.05).astype(np.int64)
    texts = [f"{'rare' if (t and rng.random() < 0.7) else 'common'} word {rng.integers(9)}" for t in targets]
    plain, balanced = (
        LinearClassifier(("no", "yes"), Task.BINARY, C=0.1, class_weight=w)
        .fit(texts, targets)
        .predict_proba(texts)[:, 1]
        for w in (None, "balanced")
    )
    assert balanced[targets == 1].mean() > plain[targets == 1].mean()


def test_balanced_weights_reach_both_stages_of_label_mixing():
    """The answer for a rare label is as near to one half as for a label that half of the texts have."""
    rng = np.random.default_rng(0)
    has = rng.random((600, 3)) < [0.05, 0.5, 0.5]
    x = csr_matrix(has + rng.normal(0, 1.0, has.shape))
    about = {"C": 1.0, "nb_alpha": None, "norm": False, "solver": "lbfgs", "tol": None, "max_iter": 300, "seed": 0}
    plain, balanced = (
        base.sigmoid(x @ weights.coef + weights.intercept).mean(axis=0)
        for weights in (Regression(class_weight=w, **about).mixed_labels(x, has) for w in (None, "balanced"))
    )
    assert plain[0] < 0.1
    assert balanced[0] > 0.3


def test_label_mixing_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="set nb_weighting or label_mixing to false"):
        check_params("linear", {"nb_weighting": True, "label_mixing": True})
    texts, targets, labels = examples(Task.MULTI_CLASS)
    with pytest.raises(ConfigError, match="multi-class task has no labels to mix"):
        LinearClassifier(labels, Task.MULTI_CLASS, label_mixing=True).fit(texts, targets)
    texts, targets, labels = examples(Task.MULTI_LABEL)
    LinearClassifier(labels, Task.MULTI_LABEL, label_mixing=True).fit(texts, targets)


def test_copies_of_a_text_do_not_make_held_out_scores_telling():
    """Labels without rhyme or reason: scores of texts held out say nothing, those of texts learnt from say all."""
    rng = np.random.default_rng(0)
    x = csr_matrix(rng.random((60, 200)))
    has = rng.random((60, 3)) < 0.5
    how = Regression(C=4.0, class_weight=None, nb_alpha=None, norm=True, solver="auto", tol=None, max_iter=300, seed=0)

    def strength(copies: int) -> float:
        """Return how much of the first stage stands in the whole; half of it if the second adds nothing."""
        rows = np.tile(np.arange(60), copies)
        first, mixed = how.one_vs_rest(x[rows], has[rows]), how.mixed_labels(x[rows], has[rows])
        return float(np.linalg.norm(mixed.coef) / np.linalg.norm(first.coef))

    assert strength(1) == pytest.approx(0.5, abs=0.1)
    assert strength(4) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("task", Task)
def test_explanations_equal_the_change_of_score(task):
    model, texts, _ = fitted(task, characters=(2, 4))
    text = texts[0]
    for label in range(len(model.labels)):
        found = model.explain(text, label)
        column, sign = (0, 2 * label - 1) if task is Task.BINARY else (label, 1)
        assert found.score == pytest.approx(sign * model.scores([text])[0, column], abs=1e-9)
        assert found.base == pytest.approx(sign * model.scores([""])[0, column], abs=1e-9)


def test_explanations_name_the_words_that_matter():
    model, *_ = fitted()
    text = "the bread unheard the loan"
    found = model.explain(text, 1)
    by_word = {text[c.start : c.end]: c.value for c in found.contributions}
    assert by_word["loan"] > 0 > by_word["bread"]
    assert "unheard" not in by_word


def test_words_with_odd_characters_survive_saving(tmp_path):
    texts = ["naïve \ud800 日本", "naïve \ud800 кино"] * 3
    model = LinearClassifier(("a", "b"), Task.BINARY, characters=(2, 3)).fit(texts, np.array([0, 1] * 3))
    model.save(tmp_path)
    assert np.array_equal(LinearClassifier.load(tmp_path).predict_proba(texts), model.predict_proba(texts))


def test_damaged_files_are_refused(tmp_path):
    model, *_ = fitted()
    model.save(tmp_path)
    (tmp_path / "words.txt").unlink()
    with pytest.raises(PackageError, match="incomplete"):
        LinearClassifier.load(tmp_path)
    (tmp_path / "linear.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(PackageError, match=r"linear\.npz"):
        LinearClassifier.load(tmp_path)
    (tmp_path / "classifier.json").write_text("{")
    with pytest.raises(PackageError, match=r"classifier\.json"):
        LinearClassifier.load(tmp_path)


def test_pickled_arrays_are_refused(tmp_path):
    model, *_ = fitted()
    model.save(tmp_path)
    np.savez(tmp_path / "linear.npz", coef=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PackageError, match=r"linear\.npz"):
        LinearClassifier.load(tmp_path)


def test_five_megabytes_of_text():
    model, *_ = fitted(characters=(2, 3))
    text = "bread goal " * 450_000
    alone, beside = model.predict_proba([text]), model.predict_proba(["goal", text])[1:]
    assert np.allclose(alone, beside, atol=1e-9)


def test_serving_loads_numpy_only_of_the_numeric_libraries(tmp_path):
    from tests.models import linear_model

    linear_model().save(tmp_path / "package")
    code = (
        "import sys, tamiz\n"
        f"model = tamiz.load({str(tmp_path / 'package')!r})\n"
        "model.predict(['bread and butter']); model.explain('bread and butter')\n"
        "heavy = {'scipy', 'sklearn', 'pandas', 'polars', 'pyarrow', 'deltalake', 'mlflow', 'torch', 'boto3', 'ftfy'}\n"
        "print(sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] True"
