"""`Model`: raw texts in, answers out; the same alone and in a batch, before and after saving."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamiz.classifiers.checks import examples
from tamiz.decision import Conformal
from tamiz.errors import PackageError, RequestError
from tamiz.model import Model, library_versions
from tamiz.package import MANIFEST_NAME, read_manifest
from tamiz.types import Task
from tests.models import linear_model, model_of

TASKS = list(Task)
# What cleaning changes: markup, entities, case, addresses, forms of letters, broken encoding, nothing at all.
ODD_TEXTS = [
    "<p>The <b>bread</b> &amp; SOUP</p> at https://example.org/menu",
    "ＢＡＮＫ loan\u00a0of 3\u2009%",
    "CafÃ© and cheese &lt;salt&gt;",
    "write to a.b@example.org about the MATCH",
    "",
    " \n\t",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \U0001f35e\U0001f9c0",
    "goal " * 3000,
]


@pytest.fixture(scope="module", params=TASKS, ids=str)
def model(request) -> Model:
    return linear_model(request.param, calibrate="temperature")


# --- answers


def test_probabilities_are_one_row_a_text(model):
    texts = examples(model.task)[0][:7]
    found = model.predict_proba(texts)
    assert found.shape == (7, len(model.labels))
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()
    if model.task is not Task.MULTI_LABEL:
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_no_text_gives_no_answer(model):
    assert model.predict_proba([]).shape == (0, len(model.labels))
    assert model.predict([]) == []


def test_answers_have_the_form_of_their_task(model):
    texts = examples(model.task)[0][:9]
    probabilities = model.predict_proba(texts)
    for answer, row in zip(model.predict(texts), probabilities, strict=True):
        np.testing.assert_array_equal(answer.probabilities, row)
        if model.task is Task.MULTI_LABEL:
            chosen = np.flatnonzero(row >= 0.5)
            assert answer.label == tuple(model.labels[j] for j in chosen)
            assert answer.probability == tuple(row[chosen].tolist())
        else:
            assert answer.label == model.labels[row.argmax()]
            assert answer.probability == row.max()


def test_it_has_learnt_its_topics(model):
    texts, targets, labels = examples(model.task)
    answers = [answer.label for answer in model.predict(texts)]
    if model.task is Task.MULTI_LABEL:
        truth = [tuple(np.array(labels)[row]) for row in targets]
    else:
        truth = [labels[t] for t in targets]
    assert np.mean([a == t for a, t in zip(answers, truth, strict=True)]) > 0.95


def test_a_batch_answers_like_single_texts(model):
    texts = [*ODD_TEXTS, *examples(model.task)[0][:10]]
    alone = np.vstack([model.predict_proba([text]) for text in texts])
    np.testing.assert_allclose(model.predict_proba(texts), alone, rtol=0, atol=1e-12)


def test_texts_go_through_cleaning_and_preparation():
    model = linear_model()
    plain, dressed = "bread soup cheese", "<p>BREAD&nbsp;soup</p>\u200b <i>Cheese</i> "
    np.testing.assert_array_equal(model.predict_proba([plain]), model.predict_proba([dressed]))
    unprepared = linear_model(prepare=())
    assert not np.array_equal(unprepared.predict_proba([plain]), unprepared.predict_proba([plain.upper()]))


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_CLASS])
def test_an_unsure_model_abstains(task):
    model = linear_model(task, abstain_below=0.6)
    unsure, sure = model.predict(["zzz qqq", "bread soup cheese apple salt butter kitchen dinner taste oven"])
    assert unsure.probabilities.max() < 0.6
    assert (unsure.label, unsure.probability) == (None, None)
    assert sure.label == "food"
    assert sure.probability >= 0.6


@pytest.mark.parametrize("task", list(Task))
def test_a_conformal_rule_gives_the_set_of_labels_that_may_be_true(task):
    model = linear_model(task)
    assert [one.prediction_set for one in model.predict(["bread"])] == [None]
    sure, unsure = "bread soup cheese apple salt butter kitchen dinner taste oven", "zzz qqq"
    quantiles = (0.6,) * (len(model.labels) if task is Task.MULTI_LABEL else 1)
    model = replace(model, rule=replace(model.rule, conformal=Conformal(0.9, quantiles, abstain=False)))
    for one in model.predict([sure, unsure]):
        assert one.prediction_set == tuple(
            label for label, p in zip(model.labels, one.probabilities, strict=True) if p >= 0.4
        )
    assert model.predict([sure])[0].prediction_set == ("food",)


def test_no_label_at_all_is_an_empty_tuple():
    model = linear_model(Task.MULTI_LABEL)
    answer = next(a for a in model.predict(["the of", "zzz", *examples(Task.MULTI_LABEL)[0]]) if a.label == ())
    assert answer.probability == ()
    assert answer.probabilities.max() < 0.5


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_one_string_is_refused_in_place_of_a_list(model, method):
    with pytest.raises(RequestError, match=r"write \[text\]"):
        getattr(model, method)("bread")


@pytest.mark.parametrize("wrong", [None, 3, b"bread", ["bread"]])
def test_an_item_that_is_no_text_is_refused_by_its_place(model, wrong):
    with pytest.raises(RequestError, match=rf"texts\[1\]: a text is expected, not {type(wrong).__name__}"):
        model.predict(["bread", wrong])


def test_about_itself():
    model = linear_model(text_column="body")
    assert (model.name, model.task, model.version, model.text_column) == ("topics", Task.BINARY, None, "body")
    assert model.labels == ("food", "money")
    assert model.positive == "money"
    assert linear_model(Task.MULTI_CLASS).positive is None


# --- explanations


def explained(model: Model, text: str, label: str | None = None) -> dict[str, float]:
    """Return the value of each stretch of the original text, as it stands there."""
    found = model.explain(text, label)
    assert found.base + sum(c.value for c in found.contributions) == pytest.approx(found.score, abs=1e-6)
    spans = [(c.start, c.end) for c in found.contributions]
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    return {text[c.start : c.end]: c.value for c in found.contributions}


def test_an_explanation_points_into_the_original_text():
    model = linear_model(Task.MULTI_CLASS)
    text = "<p>Fresh&nbsp;<b>BREAD</b> &amp; Cheese</p> from https://example.org/bread?x=1, no LOAN"
    found = explained(model, text, "food")
    assert found["BREAD"] > 0
    assert found["Cheese"] > 0
    assert found["LOAN"] < 0
    assert not any("http" in part or "<" in part for part in found)


def test_an_explanation_covers_what_became_one_character():
    found = explained(linear_model(Task.MULTI_CLASS), "&#98;read \uff43heese s\u0301alt &lt;b&gt;soup", "food")
    assert found["&#98;read"] > 0
    assert found["\uff43heese"] > 0
    assert found["soup"] > 0


def test_the_most_probable_label_is_explained_by_default(model):
    text = "bread soup cheese"
    expected = model.labels[int(model.predict_proba([text])[0].argmax())]
    assert model.explain(text).label == expected == "food"
    assert {model.explain(text, label).label for label in model.labels} == set(model.labels)


def test_the_answer_is_explained_where_the_rule_gives_another_than_the_most_probable_one():
    model = linear_model(Task.BINARY)
    text = "bread soup cheese"
    (p,) = model.predict_proba([text])
    positive = model.rule.positive
    assert p[positive] < 0.5
    model = replace(model, rule=replace(model.rule, thresholds=(float(p[positive]) / 2,)))
    assert model.predict([text])[0].label == model.explain(text).label == model.labels[positive]


def test_an_unknown_label_cannot_be_explained(model):
    with pytest.raises(RequestError, match=r"unknown 'foood'; allowed: food, .*did you mean 'food'"):
        model.explain("bread", "foood")


def test_an_odd_text_can_be_explained(model):
    for text in ODD_TEXTS:
        explained(model, text)


# --- packages


def test_a_saved_model_answers_the_same(model, tmp_path):
    texts = [*ODD_TEXTS, *examples(model.task)[0][:20]]
    manifest = model.save(tmp_path / "package")
    loaded = Model.load(tmp_path / "package")
    np.testing.assert_array_equal(loaded.predict_proba(texts), model.predict_proba(texts))
    assert [a.label for a in loaded.predict(texts)] == [a.label for a in model.predict(texts)]
    assert loaded.explain(texts[0]) == model.explain(texts[0])
    assert loaded.manifest == manifest
    assert (loaded.labels, loaded.task, loaded.positive) == (model.labels, model.task, model.positive)


def test_every_family_can_be_saved(tmp_path):
    model = model_of("prior", Task.MULTI_CLASS)
    model.save(tmp_path / "package")
    np.testing.assert_array_equal(Model.load(tmp_path / "package").predict_proba(["a"]), model.predict_proba(["a"]))


def test_calibration_rule_and_abstention_are_saved(tmp_path):
    model = linear_model(Task.MULTI_CLASS, calibrate="temperature", abstain_below=0.7)
    model.save(tmp_path / "package")
    loaded = Model.load(tmp_path / "package")
    assert loaded.calibrator.to_dict() == model.calibrator.to_dict()
    assert loaded.predict(["zzz"])[0].label is None


def test_the_manifest_says_how_it_was_made(tmp_path):
    manifest = linear_model().save(tmp_path / "package")
    assert manifest.libraries == library_versions()
    assert {"python", "numpy", "scikit-learn"} <= manifest.libraries.keys()
    assert manifest.family == "linear"
    assert manifest.files
    assert manifest == read_manifest(tmp_path / "package")


def test_something_that_stands_there_is_not_overwritten(tmp_path):
    linear_model().save(tmp_path / "package")
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "package").iterdir())
    with pytest.raises(PackageError):
        model_of("prior").save(tmp_path / "package")
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "package").iterdir()) == before


@pytest.fixture
def package(tmp_path) -> Path:
    linear_model().save(tmp_path / "package")
    return tmp_path / "package"


def change_manifest(package: Path, **changes: object) -> None:
    path = package / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_flipped_bit_is_found(package):
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p.name != MANIFEST_NAME):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(PackageError, match=path.name):
            Model.load(package)
        path.write_bytes(whole)
    Model.load(package)


def test_a_missing_or_an_added_file_is_found(package):
    (package / "more.txt").write_text("x")
    with pytest.raises(PackageError, match=r"more\.txt"):
        Model.load(package)
    (package / "more.txt").unlink()
    next(p for p in package.iterdir() if p.name != MANIFEST_NAME).unlink()
    with pytest.raises(PackageError):
        Model.load(package)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other-model"}, "not 'tamiz-model'"),
        ({"format_version": 2}, "format"),
        ({"family": "lineer"}, "lineer"),
        ({"labels": ["food", "other"]}, "other labels"),
        ({"task": "multi-label"}, "labels or another task"),
    ],
)
def test_a_foreign_or_future_package_is_refused(package, changes, said):
    change_manifest(package, **changes)
    with pytest.raises(PackageError) as caught:
        Model.load(package)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe\x00"])
def test_a_manifest_that_is_none_is_refused(package, content):
    (package / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(PackageError):
        Model.load(package)


def test_no_package_is_refused(tmp_path):
    with pytest.raises(PackageError):
        Model.load(tmp_path / "nothing")
    with pytest.raises(PackageError):
        Model.load(tmp_path)
