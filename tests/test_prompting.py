"""Models that are told their labels, and answers in the shape of zero-shot pipelines."""

from __future__ import annotations

import numpy as np
import pytest

from tamiz.errors import ConfigError, RequestError, TooLargeError
from tamiz.model import Model
from tamiz.prompting import PromptLimits, split_labels
from tamiz.prompting import prompted_model as make_model
from tamiz.rankings import sequence_answer
from tamiz.types import Task
from tests.models import answers_for_labels, linear_model

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)


def prompted_model(labels, **params) -> Model:
    return make_model(labels, num_threads=1, **params)


TEXTS = ["the goal of the team", "bread and butter, very good", "a loan of the bank"]
LABELS = ("food", "money", "sport")


@pytest.fixture(scope="module", autouse=True)
def cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAMIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    from tests.tiny_bert import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="module")
def nli(tmp_path_factory) -> str:
    from tests.tiny_bert import tiny_bert

    labels = ("contradiction", "neutral", "entailment")
    return str(tiny_bert(tmp_path_factory.mktemp("nli") / "tiny", labels=labels, seed=3))


@pytest.fixture(scope="module")
def model(encoder) -> Model:
    return prompted_model(LABELS, model=encoder)


def test_the_method_is_the_one_that_suits_the_model(encoder, nli):
    assert prompted_model(LABELS, model=encoder).manifest.params["method"] == "embedding"
    assert prompted_model(LABELS, model=nli).manifest.params["method"] == "entailment"
    with pytest.raises(ConfigError, match="natural language inference"):
        prompted_model(LABELS, model=encoder, method="entailment")


@pytest.mark.parametrize("multi_label", [False, True])
def test_answers_have_the_shape_of_pipelines(model, multi_label):
    answers = answers_for_labels(model, TEXTS, ["oven", "ball"], multi_label=multi_label)
    assert [answer["sequence"] for answer in answers] == TEXTS
    for answer in answers:
        assert list(answer) == ["sequence", "labels", "scores"]
        assert sorted(answer["labels"]) == ["ball", "oven"]
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert multi_label or abs(sum(answer["scores"]) - 1) < 1e-9


def test_one_label_may_stand_alone(model):
    (answer,) = answers_for_labels(model, TEXTS[:1], ["sport"])
    assert answer["labels"] == ["sport"]
    assert 0 < answer["scores"][0] < 1


def test_equal_scores_keep_the_order_of_labels():
    answer = sequence_answer("t", ("b", "a", "c"), np.array([0.2, 0.2, 0.6]))
    assert answer == {"sequence": "t", "labels": ["c", "b", "a"], "scores": [0.6, 0.2, 0.2]}


def test_labels_may_be_one_string():
    assert split_labels(" sport,food, ,fine arts ") == ("sport", "food", "fine arts")
    assert split_labels(["a, b"]) == ("a, b",)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (PromptLimits(labels=2), "3 labels; at most 2"),
        (PromptLimits(pairs=8), "9 pairs; at most 8"),
        (PromptLimits(characters=20), r"texts\[1\] has 27 characters"),
    ],
)
def test_limits_are_kept(limits, said):
    with pytest.raises(TooLargeError, match=said) as caught:
        limits.check(TEXTS, LABELS)
    assert "butter" not in str(caught.value)


def test_fixed_labels_are_refused():
    with pytest.raises(RequestError, match="labels are fixed"):
        linear_model().with_labels(["a", "b"])


def test_descriptions_of_labels(encoder, model):
    described = prompted_model(("f", "m"), model=encoder, descriptions={"f": "food", "m": "money"})
    plain = model.with_labels(("food", "money"))
    np.testing.assert_allclose(described.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-6)
    with pytest.raises(RequestError, match="is no label"):
        prompted_model(("f", "m"), model=encoder, descriptions={"x": "food"})


def test_texts_settle_the_prior(encoder):
    texts = [f"{one} {number}" for number in range(10) for one in TEXTS]
    corrected = prompted_model(LABELS, model=encoder, texts=texts, prior="unlabelled", prior_strength=1)
    np.testing.assert_allclose(corrected.predict_proba(texts).mean(0), 1 / 3, atol=1e-6)
    assert set(corrected.manifest.facts["prior"]) == set(LABELS)


def test_expected_shares_settle_the_prior_and_stay_with_their_labels(encoder):
    texts = [f"{one} {number}" for number in range(10) for one in TEXTS]
    about = {"model": encoder, "texts": texts, "prior": "unlabelled", "prior_strength": 1}
    shares = {"food": 0.5, "money": 0.3, "sport": 0.2}
    corrected = prompted_model(LABELS, shares=shares, **about)
    np.testing.assert_allclose(corrected.predict_proba(texts).mean(0), [0.5, 0.3, 0.2], atol=1e-6)
    other = corrected.with_labels((*LABELS, "weather"))
    plain = prompted_model(LABELS, model=encoder).with_labels((*LABELS, "weather"))
    np.testing.assert_allclose(other.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-6)
    with pytest.raises(RequestError, match="'foot' is no label"):
        prompted_model(LABELS, shares={"foot": 0.5}, **about)


def test_passes_are_what_an_answer_costs(encoder, nli):
    assert (
        prompted_model(LABELS, model=encoder).with_labels(["a", "b"], template=["x {}", "y {}"]).classifier.passes == 1
    )
    told = prompted_model(LABELS, model=nli)
    assert told.classifier.passes == 3
    assert told.with_labels([str(n) for n in range(50)], template=["x {}", "y {}"]).classifier.passes == 100


@pytest.mark.parametrize("multi_label", [False, True])
def test_it_is_an_ordinary_package(encoder, tmp_path, multi_label):
    texts = [f"{one} {number}" for number in range(10) for one in TEXTS]
    about = {"descriptions": {"food": "bread and soup"}, "templates": ("a {}", "the text is {}")}
    about |= {"prior": "unlabelled", "adapt": "unlabelled"}
    made = prompted_model(LABELS, model=encoder, multi_label=multi_label, texts=texts, **about)
    made.save(tmp_path / "package")
    loaded = Model.load(tmp_path / "package")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), made.predict_proba(TEXTS))
    assert loaded.manifest.facts["adapted"] is True
    again = loaded.with_labels(["oven", "ball"], template="about {}")
    again.save(tmp_path / "other")
    other = Model.load(tmp_path / "other")
    assert other.labels == ("oven", "ball")
    assert other.task is Task.MULTI_CLASS
    np.testing.assert_array_equal(other.predict_proba(TEXTS), again.predict_proba(TEXTS))
