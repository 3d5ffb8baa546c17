"""What is particular to stacked naive Bayes."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.naive_bayes import ComplementNB, MultinomialNB

from tamiz.classifiers import check_params
from tamiz.classifiers.base import softmax
from tamiz.classifiers.checks import examples
from tamiz.classifiers.nb_features import SURFACE, BayesFeatureParams, BayesFeatures, surface
from tamiz.classifiers.nb_fit import Stacking, complement, multinomial
from tamiz.classifiers.nb_stack import NbStackClassifier
from tamiz.errors import ConfigError, LabelError, PackageError
from tamiz.types import Task

PUBLISHED = {"tf": "count", "scale": "joined", "alpha": 1, "stack": "probabilities", "stack_labels": "own", "C": 1}


def fitted(task=Task.BINARY, **params):
    texts, targets, labels = examples(task)
    return NbStackClassifier(labels, task, **params).fit(texts, targets), texts, targets


def some_counts(n=40, features=12, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return csr_matrix(rng.poisson(0.7, (n, features)).astype(float)), np.arange(n) % k


def log_proba(x, model):
    return np.log(softmax(x @ model.coef + model.intercept))


def test_by_hand():
    # Two words; class 1 has counts (3, 1), class 0 has (0, 2); smoothing 1.
    x, has = csr_matrix([[3.0, 1.0], [0.0, 2.0]]), np.array([[True], [False]])
    model = multinomial(x, has, alpha=1.0, one_vs_rest=True)
    assert model.coef[:, 0] == pytest.approx([np.log((4 / 6) / (1 / 4)), np.log((2 / 6) / (3 / 4))])
    assert model.intercept == pytest.approx([0.0])


@pytest.mark.parametrize("alpha", [1.0, 0.1, 1e-3])
def test_equals_scikit_learn_over_all_classes(alpha):
    x, y = some_counts()
    has = y[:, None] == np.arange(3)
    peer = MultinomialNB(alpha=alpha).fit(x, y)
    ours = multinomial(x, has, alpha=alpha, one_vs_rest=False)
    assert np.allclose(log_proba(x, ours), peer.predict_log_proba(x), atol=1e-9)
    for norm in (False, True):
        peer = ComplementNB(alpha=alpha, norm=norm).fit(x, y)
        ours = complement(x, has, alpha=alpha, one_vs_rest=False, weight_norm=norm)
        assert np.allclose(log_proba(x, ours), peer.predict_log_proba(x), atol=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_equals_scikit_learn_for_each_label_against_the_rest(alpha):
    x, y = some_counts(seed=1)
    has = np.stack([y == 0, (y == 1) | (np.arange(len(y)) < 7)], axis=1)
    for j in range(2):
        pairs = [(MultinomialNB(alpha=alpha), multinomial(x, has, alpha=alpha, one_vs_rest=True))]
        for norm in (False, True):
            ours = complement(x, has, alpha=alpha, one_vs_rest=True, weight_norm=norm)
            pairs.append((ComplementNB(alpha=alpha, norm=norm), ours))
        for peer, ours in pairs:
            log_p = peer.fit(x, has[:, j]).predict_log_proba(x)
            assert np.allclose((x @ ours.coef + ours.intercept)[:, j], log_p[:, 1] - log_p[:, 0], atol=1e-9)


def test_two_classes_make_complement_and_multinomial_the_same_but_for_the_prior():
    x, y = some_counts(seed=2)
    has = (y == 0)[:, None]
    first, second = (f(x, has, alpha=0.5, one_vs_rest=True) for f in (multinomial, complement))
    assert np.allclose(first.coef, second.coef)
    assert first.intercept[0] == pytest.approx(np.log(has.sum() / (~has).sum()))


def test_features_equal_scikit_learn():
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer

    texts = examples(Task.MULTI_CLASS)[0]
    about = {"token_pattern": r"\w+", "ngram_range": (1, 2)}
    peer = make_pipeline(make_union(CountVectorizer(**about), TfidfVectorizer(**about)), Normalizer())
    expected = peer.fit_transform(texts).toarray()
    limits = {"count_features": None, "tfidf_features": None}
    options = BayesFeatureParams(words=(1, 2), surface=False, tf="count", scale="joined", **limits)
    ours = BayesFeatures(options).fit_values(texts, lambda n: None).toarray()
    # Columns stand in another order: scalar products of all pairs of texts do not depend on it.
    assert ours.shape == expected.shape
    assert np.allclose(ours @ ours.T, expected @ expected.T, atol=1e-12)
    assert np.allclose(np.sort(ours, axis=1), np.sort(expected, axis=1), atol=1e-12)


def test_each_block_has_its_own_limit_and_training_rows_equal_serving_rows():
    texts = examples(Task.MULTI_CLASS)[0]
    features = BayesFeatures(BayesFeatureParams(words=(1, 2), count_features=5, tfidf_features=9))
    x = features.fit_values(texts, lambda n: None)
    assert (x.shape, features.ngrams) == ((len(texts), 5 + 9 + len(SURFACE)), 14)
    assert np.allclose(np.sqrt(x.multiply(x).sum(axis=1)), 1)
    for number, row in enumerate(features.rows(texts)):
        assert np.array_equal(row.values, x[number].data)
        assert np.array_equal(row.indices, x[number].indices)


def test_surface_features_by_hand():
    found = dict(zip(SURFACE, surface("AB cd 12!\n"), strict=True))
    assert [found[name] for name in ("upper", "digits", "marks", "line_breaks")] == [0.2, 0.2, 0.1, 0.1]
    assert found["length"] == pytest.approx(np.log(11) / 10)
    assert not surface("").any()


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("params", [{}, PUBLISHED])
def test_it_learns(task, params):
    model, texts, targets = fitted(task, **params)
    p = model.predict_proba(texts)
    answers = p >= 0.5 if task is Task.MULTI_LABEL else p.argmax(axis=1)
    assert (answers == targets).mean() > 0.95


def test_held_out_scores_come_from_models_that_did_not_see_the_text():
    x, y = some_counts(n=30)
    has = y[:, None] == np.arange(3)
    stacking = Stacking(1.0, False, False, False, 1.0, None, 5, 0)
    scores = stacking.held_out(x, has, None)
    for fit_on, held in stacking._folds(has, np.arange(len(has))):
        assert sorted([*fit_on, *held]) == list(range(30))
        assert has[held].sum(axis=0).tolist() == [2, 2, 2]
        model = multinomial(x[fit_on], has[fit_on], alpha=1.0, one_vs_rest=False)
        assert np.allclose(scores[held, :3], x[held] @ model.coef + model.intercept)


def test_copies_of_a_text_are_held_out_together():
    x, y = some_counts(n=30)
    copied = np.tile(np.arange(30), 4)
    has = y[copied, None] == np.arange(3)
    stacking = Stacking(1.0, False, False, False, 1.0, None, 5, 0)
    scores = stacking.held_out(x[copied], has, None)
    assert all(np.allclose(part, scores[:30]) for part in np.split(scores, 4))  # by one model that saw none of them
    for fit_on, held in stacking._folds(has, copied):
        assert not set(copied[fit_on]) & set(copied[held])
        model = stacking.bayes(x[copied][fit_on], has[fit_on])
        assert np.allclose(scores[held], x[copied][held] @ model.coef + model.intercept)


def test_the_defaults_rank_rare_labels_better_than_the_published_recipe():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    common, shares = [f"c{i}" for i in range(4000)], 1 / np.arange(1, 4001)
    targets = np.stack([rng.random(1600) < 0.03, rng.random(1600) < 0.5], axis=1)
    texts = []
    for rare, often in targets:
        words = rng.choice(common, 40, p=shares / shares.sum()).tolist() + [f"o{rng.integers(60)}"] * bool(often)
        texts.append(" ".join(words + [f"r{rng.integers(30)}" for _ in range(2)] * bool(rare)))
    half = slice(0, 800)
    ours, published = (
        NbStackClassifier(("rare", "often"), Task.MULTI_LABEL, **params)
        .fit(texts[half], targets[half])
        .predict_proba(texts[800:])[:, 0]
        for params in ({}, PUBLISHED)
    )
    ours, published = (roc_auc_score(targets[800:, 0], p) for p in (ours, published))
    assert ours > published + 0.05


@pytest.mark.parametrize("params", [{}, PUBLISHED])
def test_labels_without_examples_get_almost_no_probability(params):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    model = NbStackClassifier((*labels, "never"), Task.MULTI_CLASS, **params).fit(texts, targets)
    assert model.predict_proba(texts)[:, -1].max() < 1e-6
    both = np.hstack([targets[:, None] == np.arange(3), np.zeros((len(texts), 1), bool)])
    model = NbStackClassifier((*labels, "never"), Task.MULTI_LABEL, **params).fit(texts, both)
    assert model.predict_proba(texts)[:, -1].max() < 1e-6


def test_very_few_texts():
    for n in (1, 2, 3):
        model = NbStackClassifier(("a", "b"), Task.MULTI_CLASS).fit(["x y", "y z", "z x"][:n], np.array([0, 1, 0])[:n])
        assert np.isfinite(model.predict_proba(["x", "q"])).all()


def test_explanations_over_log_odds_name_the_words_that_matter():
    model, *_ = fitted()
    text = "the bread unheard the loan"
    found = model.explain(text, 1)
    by_word = {text[c.start : c.end]: c.value for c in found.contributions}
    assert by_word["loan"] > 0 > by_word["bread"]
    assert "unheard" not in by_word
    assert found.score == pytest.approx(model.scores([text])[0, 0])


@pytest.mark.parametrize("task", Task)
def test_explanations_over_probabilities_leave_little_to_the_base(task):
    model, texts, _ = fitted(task, **PUBLISHED, surface=False)
    for label in range(len(model.labels)):
        # Without words and surface features, only the intercepts remain.
        empty = model.explain("", label)
        assert model.explain(texts[0], label).base == pytest.approx(empty.score, abs=1e-3)


def test_no_feature_left_is_an_error_that_says_what_to_do():
    with pytest.raises(LabelError, match="lower min_df"):
        NbStackClassifier(("a", "b"), Task.BINARY, min_df=2).fit(["x", "y"], np.array([0, 1]))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"alpha": 0}, "alpha"),
        ({"count_features": 0, "tfidf_features": 0}, "must be more"),
        ({"words": [2, 1]}, "shortest to longest"),
        ({"stack": "logits"}, "log_odds"),
        ({"folds": 1}, "folds"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ConfigError, match=said):
        check_params("nb_stack", params)


def test_damaged_files_are_refused(tmp_path):
    model, *_ = fitted(**PUBLISHED)
    model.save(tmp_path)
    (tmp_path / "words.txt").unlink()
    with pytest.raises(PackageError, match="incomplete"):
        NbStackClassifier.load(tmp_path)
    (tmp_path / "nb_stack.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(PackageError, match=r"nb_stack\.npz"):
        NbStackClassifier.load(tmp_path)


def test_progress_is_reported():
    told = []
    texts, targets, labels = examples(Task.BINARY)
    NbStackClassifier(labels, Task.BINARY).fit(texts, targets, progress=lambda *about: told.append(about))
    assert told[-1] == ("fitting folds", 5, 5)
    assert ("counting n-grams", 180, 180) in told


@pytest.mark.parametrize("stack", ["log_odds", "probabilities"])
def test_serving_loads_numpy_only_of_the_numeric_libraries(tmp_path, stack):
    from tests.models import model_of

    model_of("nb_stack", stack=stack).save(tmp_path / "package")
    code = (
        "import sys, tamiz\n"
        f"model = tamiz.load({str(tmp_path / 'package')!r})\n"
        "model.predict(['bread and butter']); model.explain('bread and butter')\n"
        "heavy = {'scipy', 'sklearn', 'lightgbm', 'pandas', 'polars', 'pyarrow', 'deltalake', 'mlflow', 'boto3'}\n"
        "print(sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] True"
