"""What is particular to the family without training: parity with Transformers, prompts, windows, the prior."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tamiz.classifiers.checks import CHECKS, _Case, examples
from tamiz.classifiers.zero_shot import ZeroShotClassifier
from tamiz.classifiers.zero_shot_adapt import adapted
from tamiz.classifiers.zero_shot_prior import expected_shares, shifts
from tamiz.classifiers.zero_shot_scores import nli_labels
from tamiz.classifiers.zero_shot_templates import LANGUAGES, TEMPLATES, prompts
from tamiz.encoders.embedding import Embedder
from tamiz.encoders.runtime import OnnxModel
from tamiz.errors import ConfigError, DataError, LabelError, PackageError, RequestError
from tamiz.types import Promptable, Task

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

ROOT = Path(__file__).parents[2]
NLI = ("contradiction", "neutral", "entailment")
LABELS = ("food", "money", "sport")
TEXTS = ["the goal of the team", "bread and butter, very good", "a loan of the bank for the price of a stadium", "not"]


@pytest.fixture(scope="module", autouse=True)
def cached(tmp_path_factory):
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TAMIZ_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    from tests.tiny_bert import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="module")
def nli_models(tmp_path_factory):
    """Return tiny models of natural language inference by the order of their labels."""
    from tests.tiny_bert import tiny_bert

    folder = tmp_path_factory.mktemp("nli")
    made = {}

    def model(labels=NLI, **shape) -> str:
        key = json.dumps([labels, shape])
        if key not in made:
            made[key] = str(tiny_bert(folder / str(len(made)), labels=labels, seed=3, **shape))
        return made[key]

    return model


@pytest.fixture(scope="module")
def nli(nli_models) -> str:
    return nli_models()


def about(method, encoder, nli, **params):
    return {"method": method, "model": nli if method == "entailment" else encoder, "num_threads": 1, **params}


def ready(labels=LABELS, task=Task.MULTI_CLASS, **params) -> ZeroShotClassifier:
    return ZeroShotClassifier(labels, task, **{"num_threads": 1, **params}).prepare()


# --- the contract


@pytest.mark.parametrize(
    "params", [{}, {"prior": "unlabelled", "form": "int8", "descriptions": {"food": "bread, soup and cheese"}}]
)
@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("method", ["embedding", "entailment"])
def test_contract(encoder, nli, method, task, params):
    given = about(method, encoder, nli, **params)
    case = _Case(lambda labels, task, seed: ZeroShotClassifier(labels, task, seed=seed, **given), task)
    assert isinstance(case.classifier, Promptable)
    for check in CHECKS:
        check(case)


@pytest.mark.parametrize("task", Task)
def test_contract_with_adapted_labels(encoder, task):
    given = {"model": encoder, "num_threads": 1, "adapt": "unlabelled"}
    case = _Case(lambda labels, task, seed: ZeroShotClassifier(labels, task, seed=seed, **given), task)
    for check in CHECKS:
        check(case)


# --- parity with the pipeline of Transformers


def pipeline_of(folder: str):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.pipeline("zero-shot-classification", model=folder, tokenizer=folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(nli):
    return pipeline_of(nli)


def assert_same(pipeline, classifier, texts, labels, template=None, **asked):
    more = {} if template is None else {"hypothesis_template": template}
    expected = pipeline(list(texts), candidate_labels=list(labels), **more, **asked)
    given = classifier.with_labels(labels, template=template, **asked)
    p = given.predict_proba(texts)
    found = [[one["scores"][one["labels"].index(label)] for label in labels] for one in expected]
    np.testing.assert_allclose(p, found, atol=1e-5, rtol=0)
    assert np.ptp(p) > 1e-3


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, ("very good, not bad", "a"), ("sport",)])
@pytest.mark.parametrize("template", [None, "the text is about {}"])
def test_scores_are_those_of_transformers(theirs, nli, labels, template, multi_label):
    ours = ready(method="entailment", model=nli)
    assert_same(theirs, ours, TEXTS, labels, template, multi_label=multi_label)


def test_a_long_text_is_cut_as_transformers_cuts_it(theirs, nli):
    long = " ".join(["goal match team ball coach", "bread soup cheese"] * 20)
    ours = ready(method="entailment", model=nli)
    assert_same(theirs, ours, [long, "not"], ("food", "the price of the very good stadium"))


@pytest.mark.parametrize(
    "order", [("entailment", "neutral", "contradiction"), ("ENTAILMENT", "not_entailment"), ("no", "Entailed")]
)
def test_the_order_of_the_models_labels_is_respected(nli_models, order):
    folder = nli_models(order)
    for multi_label in (False, True):
        ours = ready(method="entailment", model=folder)
        assert_same(pipeline_of(folder), ours, TEXTS, LABELS, multi_label=multi_label)


def test_a_contradiction_is_taken_by_its_name():
    order = {"neutral": 0, "entailment": 1, "contradiction": 2}
    found = nli_labels({"label2id": order}, "m")
    assert (found.entailment, found.contradiction) == (1, 2)
    assert nli_labels({"id2label": {"0": "entailment", "1": "other"}}, "m").contradiction == 1


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": ["contradiction", "entailment"]},
        {"label2id": {"entailment": None}},
        {"id2label": {"first": "entailment"}},
    ],
)
def test_labels_in_another_layout_are_refused(config):
    with pytest.raises(ConfigError, match=r"config\.json of 'm'"):
        nli_labels(config, "m")


def test_a_model_without_entailment_is_refused(nli_models, encoder):
    for folder in (nli_models(("bad", "good")), encoder):
        with pytest.raises(ConfigError, match="no model of natural language inference"):
            ready(method="entailment", model=folder)


def test_entailment_needs_a_named_model():
    with pytest.raises(ConfigError, match="give model"):
        ready(method="entailment")


# --- prompts


def test_braces_in_a_label_are_taken_literally(nli, encoder):
    said = prompts(["{x.y}", "{}"], ["It is {}."], descriptions={}, languages=["en"])
    assert said.sentences == (("It is {x.y}.",), ("It is {}.",))
    for params in ({"method": "entailment", "model": nli}, {"model": encoder}):
        answered = ready(**params).with_labels(["{x.y}", "{0}", "%s"]).predict_proba(TEXTS)
        np.testing.assert_allclose(answered.sum(1), 1)


@pytest.mark.parametrize("template", ["no place", "a {x}", "", ["about {}", "none"], []])
def test_a_template_without_a_place_is_refused(encoder, template):
    with pytest.raises(RequestError, match="template"):
        ready(model=encoder).with_labels(LABELS, template=template)


def test_a_template_without_a_place_is_refused_in_parameters():
    from tamiz.classifiers import check_params

    with pytest.raises(ConfigError, match="where the label goes"):
        check_params("zero_shot", {"templates": ["about it"]})


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["a", " "], ["a", 3]])
def test_labels_that_cannot_be_answered_are_refused(encoder, labels):
    with pytest.raises(RequestError, match="label"):
        ready(model=encoder).with_labels(labels)


def test_a_label_that_leaves_no_room_is_refused(nli):
    for template in (None, ["a {}", "the text is {}"]):
        with pytest.raises(RequestError, match=r"labels\[1\].*shorten"):
            ready(method="entailment", model=nli).with_labels(["food", "bread " * 70], template=template)


def test_descriptions_stand_in_the_labels_place(encoder):
    plain = ready(("bread soup", "bank loan"), model=encoder).predict_proba(TEXTS)
    described = ready(("f", "m"), model=encoder, descriptions={"f": "bread soup", "m": "bank loan"})
    np.testing.assert_array_equal(described.predict_proba(TEXTS), plain)
    with pytest.raises(ConfigError, match="did you mean 'food'"):
        ready(model=encoder, descriptions={"foot": "bread"})


@pytest.mark.parametrize("method", ["embedding", "entailment"])
def test_several_templates_are_averaged(encoder, nli, method):
    ours = ready(**about(method, encoder, nli))
    first, second = (ours.with_labels(LABELS, template=one).predict_proba(TEXTS) for one in ("a {}", "the text is {}"))
    both = ours.with_labels(LABELS, template=["a {}", "the text is {}"]).predict_proba(TEXTS)
    swapped = ours.with_labels(LABELS, template=["the text is {}", "a {}"]).predict_proba(TEXTS)
    np.testing.assert_allclose(both, swapped, atol=1e-6)
    assert np.abs(both - first).max() > 1e-4
    assert np.abs(both - second).max() > 1e-4
    if method == "entailment":  # the mean of logits is the geometric mean of probabilities
        mean = np.sqrt(first * second)
        np.testing.assert_allclose(both, mean / mean.sum(1, keepdims=True), atol=1e-6)


def test_a_label_by_itself_is_compared_with_nothing_in_particular(encoder):
    """Cosines with the mean of a label's sentences less those with the mean of the neutral ones, computed apart."""
    templates = ("a {}", "this text is very about {} of the market")
    ours = ready(task=Task.MULTI_LABEL, model=encoder, templates=templates, temperature=0.1)
    embed = Embedder(ours._folder, prefix="", max_length=64, threads=1)

    def direction(word):
        mean = embed([template.replace("{}", word) for template in templates]).astype(np.float64).mean(0)
        return mean / np.sqrt(mean @ mean)

    texts = embed(TEXTS).astype(np.float64)
    expected = np.stack([texts @ (direction(label) - direction("something")) for label in LABELS], axis=1)
    np.testing.assert_allclose(ours.predict_proba(TEXTS), 1 / (1 + np.exp(-expected / 0.1)), atol=1e-5)


def test_the_neutral_word_is_of_the_language():
    assert prompts(["a"], ["De {}."], descriptions={}, languages=["es"]).neutral == ("De algo.",)


def test_every_language_has_templates_for_both_methods():
    for by_language in TEMPLATES.values():
        assert set(by_language) == set(LANGUAGES)
        assert all("{}" in one for templates in by_language.values() for one in templates)


def test_languages_choose_templates(encoder):
    spanish = ready(model=encoder, language="es")
    assert spanish.facts()["templates"] == list(TEMPLATES["embedding"]["es"])
    both = ready(model=encoder, language=("en", "fr"))
    assert both.facts()["templates"] == [*TEMPLATES["embedding"]["en"], *TEMPLATES["embedding"]["fr"]]


# --- other labels


@pytest.mark.parametrize("method", ["embedding", "entailment"])
def test_other_labels_change_nothing_for_the_classifier_itself(encoder, nli, method):
    ours = ready(**about(method, encoder, nli))
    before = ours.predict_proba(TEXTS)
    other = ours.with_labels(["oven", "ball"], multi_label=True)
    assert other.task is Task.MULTI_LABEL
    assert other.labels == ("oven", "ball")
    assert other.predict_proba(TEXTS).shape == (4, 2)
    np.testing.assert_array_equal(ours.predict_proba(TEXTS), before)
    assert ours.labels == LABELS
    fresh = ready(("oven", "ball"), Task.MULTI_LABEL, **about(method, encoder, nli))
    np.testing.assert_allclose(other.predict_proba(TEXTS), fresh.predict_proba(TEXTS), atol=1e-6)


def test_label_vectors_are_computed_once(encoder):
    ours = ready(model=encoder)
    ours.predict_proba(TEXTS)
    known = dict(ours._scorer._known)
    again = ours.with_labels(["sport", "oven", "food"])
    again.predict_proba(TEXTS)
    ours.predict_proba(TEXTS)
    added = set(ours._scorer._known) - set(known)
    assert added == {"This text is about oven."}
    assert all(ours._scorer._known[one] is known[one] for one in known)


def test_vectors_that_are_kept_have_a_limit(encoder, monkeypatch):
    from tamiz.classifiers import zero_shot_scores

    monkeypatch.setattr(zero_shot_scores, "_REMEMBERED", 3)
    ours = ready(model=encoder)
    many = ["oven", "ball", "soup", "bank", "team"]
    p = ours.with_labels(many).predict_proba(TEXTS)
    assert len(ours._scorer._known) == 3
    kept = ours._scorer.label_vectors(ours.with_labels(many).prompts)
    np.testing.assert_array_equal(ours.with_labels(many).predict_proba(TEXTS), p)
    assert ours._scorer.label_vectors(ours.with_labels(many).prompts) is kept  # not computed again for every batch
    for number in range(20):
        ours.with_labels([f"{number} team", f"{number} ball"]).predict_proba(TEXTS[:1])
    assert len(ours._scorer._matrices) == zero_shot_scores._LABEL_SETS
    last = ours.with_labels(["19 team", "19 ball"]).prompts
    assert last in ours._scorer._matrices
    np.testing.assert_allclose(ours.with_labels(many).predict_proba(TEXTS), p, atol=1e-6)


# --- long texts


@pytest.mark.parametrize("method", ["embedding", "entailment"])
@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_windows_read_the_end_of_a_long_text(encoder, nli, method, task):
    given = about(method, encoder, nli, max_length=16)
    start = "goal match team ball coach league score stadium " * 2
    texts = [start + "bread soup cheese butter " * 6, start + "bank loan credit debt " * 6]
    head = ready(task=task, long_texts="head", **given).predict_proba(texts)
    windows = ready(task=task, long_texts="windows", **given).predict_proba(texts)
    np.testing.assert_allclose(head[0], head[1], atol=1e-6)
    assert np.abs(windows[0] - windows[1]).max() > 2e-4


@pytest.mark.parametrize("method", ["embedding", "entailment"])
def test_a_text_that_fits_is_read_alike_by_all_policies(encoder, nli, method):
    answers = [
        ready(long_texts=policy, **about(method, encoder, nli)).predict_proba(TEXTS)
        for policy in ("head", "tail", "head_tail", "windows")
    ]
    for one in answers[1:]:
        np.testing.assert_allclose(one, answers[0], atol=1e-6)


# --- the prior correction


@pytest.mark.parametrize("method", ["embedding", "entailment"])
@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_the_prior_correction_gives_labels_their_expected_shares(encoder, nli, method, task):
    texts, targets, labels = examples(task)
    given = about(method, encoder, nli, prior="unlabelled", shares={"food": 0.5})
    corrected = ZeroShotClassifier(labels, task, **given).fit(texts, targets)
    expected = [0.5, 1 / 3, 1 / 3] if task is Task.MULTI_LABEL else [0.5, 0.25, 0.25]
    np.testing.assert_allclose(corrected.predict_proba(texts).mean(0), expected, atol=1e-6)
    raw = ready(labels, task, **about(method, encoder, nli)).predict_proba(texts).mean(0)
    assert np.abs(raw - expected).max() > 0.01
    assert set(corrected.facts()["prior"]) == set(labels)


def test_targets_are_not_looked_at(encoder):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    given = {"model": encoder, "num_threads": 1, "prior": "unlabelled", "adapt": "unlabelled"}
    first = ZeroShotClassifier(labels, Task.MULTI_CLASS, **given).fit(texts, targets)
    second = ZeroShotClassifier(labels, Task.MULTI_CLASS, **given).fit(texts, targets[::-1].copy())
    np.testing.assert_array_equal(first.predict_proba(texts), second.predict_proba(texts))


def test_the_correction_stays_with_the_labels_it_was_settled_for(encoder):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    ours = ZeroShotClassifier(
        labels, Task.MULTI_CLASS, model=encoder, num_threads=1, prior="unlabelled", prior_strength=1
    ).fit(texts, targets)
    raw = ready(labels, model=encoder)
    turned = ours.with_labels(labels[::-1])
    np.testing.assert_allclose(turned.predict_proba(texts)[:, ::-1], ours.predict_proba(texts), atol=1e-9)
    for other in (
        {"labels": [*labels, "oven"]},
        {"labels": labels, "multi_label": True},
        {"labels": labels, "template": "{}"},
    ):
        names = other.pop("labels")
        same = raw.with_labels(names, **other).predict_proba(texts)
        np.testing.assert_array_equal(ours.with_labels(names, **other).predict_proba(texts), same)
    settled = ours.with_labels([*labels, "oven"]).settle(texts)
    np.testing.assert_allclose(settled.predict_proba(texts).mean(0), 0.25, atol=1e-6)


@pytest.mark.parametrize("asked", ["prior", "adapt"])
def test_too_few_texts_settle_nothing(encoder, asked):
    texts, targets, labels = examples(Task.MULTI_CLASS, n=12)
    with pytest.raises(DataError, match=f"{asked}: 20 texts are needed .* there are 12;"):
        ZeroShotClassifier(labels, Task.MULTI_CLASS, model=encoder, num_threads=1, **{asked: "unlabelled"}).fit(
            texts, targets
        )


def test_shifts_meet_the_shares_wherever_the_scores_lie():
    rng = np.random.default_rng(0)
    scores = rng.normal([0, 5, -300], [1, 0.01, 20], (200, 3))
    for multi_label in (False, True):
        shares = np.array([0.2, 0.3, 0.5])
        shift = shifts(scores, shares, temperature=0.7, multi_label=multi_label)
        z = (scores - shift) / 0.7
        p = 1 / (1 + np.exp(-z)) if multi_label else np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(p.mean(0), shares, atol=1e-6)


def test_a_weaker_correction_keeps_a_part_of_the_differences():
    scores = np.random.default_rng(0).normal([0, 1, 3], 1, (200, 3))
    for multi_label in (False, True):
        about = {"temperature": 1, "multi_label": multi_label}
        full = shifts(scores, np.full(3, 1 / 3), **about)
        half = shifts(scores, np.full(3, 1 / 3), strength=0.5, **about)
        np.testing.assert_allclose(half - half.mean(), (full - full.mean()) / 2)
        np.testing.assert_allclose(half.mean(), full.mean())


def test_without_shares_a_quarter_of_the_differences_is_corrected(encoder):
    texts, *_ = examples(Task.MULTI_CLASS)
    full, usual = (
        np.array(list(ready(model=encoder, prior="unlabelled", **more).settle(texts).facts()["prior"].values()))
        for more in ({"prior_strength": 1}, {})
    )
    np.testing.assert_allclose(usual - full.mean(), (full - full.mean()) / 4, atol=1e-12)


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'food'"):
        expected_shares(LABELS, {"foot": 0.2}, multi_label=False)
    with pytest.raises(ConfigError, match="leave nothing"):
        expected_shares(LABELS, {"food": 0.6, "sport": 0.6}, multi_label=False)
    with pytest.raises(ConfigError, match="leave nothing"):
        expected_shares(LABELS, {"food": 0.5, "sport": 0.5}, multi_label=False)
    assert [expected_shares(LABELS[:k], {}, multi_label=True)[0] for k in (1, 2, 3)] == [1 / 2, 1 / 2, 1 / 3]
    np.testing.assert_allclose(expected_shares(["a", "b"], {"a": 0.2, "b": 0.6}, multi_label=False), [0.25, 0.75])


# --- adapted labels


def clusters(n=600, k=4, d=32, seed=0):
    """Return vectors of texts around a centre a label, of labels, elsewhere and vaguer, and the texts' targets."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d))
    targets = rng.integers(k, size=n)
    texts = 2 * rng.normal(size=d) + centres[targets] + rng.normal(size=(n, d))
    labels = 2 * rng.normal(size=d) + 0.3 * centres + 0.3 * rng.normal(size=(k, d))
    return *(one / np.linalg.norm(one, axis=1, keepdims=True) for one in (texts, labels)), targets


@pytest.mark.parametrize("seed", range(5))
def test_labels_move_towards_their_texts(seed):
    texts, labels, targets = clusters(seed=seed)
    moved = adapted(labels, texts[:300], temperature=0.05)
    before, after = (((texts[300:] @ one.T).argmax(1) == targets[300:]).mean() for one in (labels, moved))
    assert after > before + 0.03
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1)
    spread = [np.linalg.norm(one - one.mean(0), axis=1).mean() for one in (labels, moved)]
    assert spread[1] == pytest.approx(spread[0], rel=0.15)  # a temperature suits both


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_labels_move_half_way_to_the_mean_of_the_texts_nearest_to_them(temperature):
    """Computed label by label, by logarithms: no text is near the last label, whose share of each is tiny."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(4, 32))
    texts = labels[rng.integers(3, size=60)] + 0.5 * rng.normal(size=(60, 32))
    labels, texts = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (labels, texts))
    near = texts @ labels.T / temperature
    middle = sum(labels) / 4
    for label, moved in enumerate(adapted(labels, texts, temperature=temperature)):
        log = near[:, label] - np.logaddexp.reduce(near, axis=1)
        weights = np.exp(log - np.logaddexp.reduce(log))
        own, there = labels[label] - middle, weights @ texts - texts.mean(0)
        half = own / np.linalg.norm(own) + there / np.linalg.norm(there)
        expected = middle + np.linalg.norm(own) * half / np.linalg.norm(half)
        np.testing.assert_allclose(moved, expected / np.linalg.norm(expected), atol=1e-9)


def test_adapting_depends_on_no_order_and_leaves_one_label_alone():
    texts, labels, _ = clusters()
    moved = adapted(labels, texts, temperature=0.05)
    turned = adapted(labels[::-1], texts[::-1], temperature=0.05)
    np.testing.assert_allclose(turned[::-1], moved, atol=1e-12)
    np.testing.assert_allclose(adapted(labels[:1], texts, temperature=0.05), labels[:1], atol=1e-12)


def test_adapted_labels_stay_with_what_was_said_of_them(encoder):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    about = {"model": encoder, "num_threads": 1}
    raw = ready(labels, **about)
    ours = ZeroShotClassifier(labels, Task.MULTI_CLASS, adapt="unlabelled", **about).fit(texts, targets)
    before = ours.predict_proba(texts)
    assert np.abs(before - raw.predict_proba(texts)).max() > 1e-3
    assert (ours.facts()["adapted"], raw.facts()["adapted"]) == (True, False)
    turned = ours.with_labels(labels[::-1])
    np.testing.assert_allclose(turned.predict_proba(texts)[:, ::-1], before, atol=1e-9)
    for names, template in (([*labels, "oven"], None), (labels, "{}")):
        same = raw.with_labels(names, template=template).predict_proba(texts)
        other = ours.with_labels(names, template=template)
        np.testing.assert_array_equal(other.predict_proba(texts), same)
        assert other.facts()["adapted"] is False
    again = ours.with_labels([*labels, "oven"]).settle(texts[:40])
    assert np.abs(again.predict_proba(texts) - raw.with_labels(again.labels).predict_proba(texts)).max() > 1e-3
    np.testing.assert_array_equal(ours.predict_proba(texts), before)


def rows_read(monkeypatch) -> list[int]:
    """Return a list that grows by the number of rows whenever a network reads some."""
    read, answer = [], OnnxModel._answer

    def counting(self, feed):
        read.append(len(feed["input_ids"]))
        return answer(self, feed)

    monkeypatch.setattr(OnnxModel, "_answer", counting)
    return read


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_texts_to_learn_from_are_read_once_and_answers_stay_the_same(encoder, monkeypatch, tmp_path, task):
    """Long ones, of several windows, too; texts that are only predicted are read each time, and not kept."""
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path))
    texts = [*examples(Task.MULTI_CLASS, n=60)[0], *(f"bread and butter of the bank {n} " * 40 for n in range(3))]
    given = {"model": encoder, "max_length": 32, "adapt": "unlabelled", "prior": "unlabelled"}
    unaware = ready(task=task, **given, remember=False).settle(texts)
    assert not list(tmp_path.rglob("*.sqlite"))
    settled = ready(task=task, **given).settle(texts)
    first = settled.remembering().predict_proba(texts)
    read = rows_read(monkeypatch)
    again = ready(task=task, **given).settle(texts)
    sentences, read[:] = sum(read), []
    about = again.prompts.flat() if task is Task.MULTI_CLASS else [*again.prompts.flat(), *again.prompts.neutral]
    assert sentences == len(about)
    for model in (settled, again):
        np.testing.assert_array_equal(model.remembering().predict_proba(texts), first)
        np.testing.assert_allclose(model.remembering().predict_proba(texts[::-1]), first[::-1], atol=1e-12)
        assert read == []
    np.testing.assert_allclose(unaware.remembering().predict_proba(texts), first, atol=1e-6)
    np.testing.assert_allclose(settled.predict_proba(texts), first, atol=1e-6)
    assert sum(read) > 2 * len(texts)


def test_entailment_has_no_labels_to_adapt():
    from tamiz.classifiers import check_params

    with pytest.raises(ConfigError, match="no vectors of labels"):
        check_params("zero_shot", {"method": "entailment", "adapt": "unlabelled"})


# --- the package


@pytest.mark.parametrize("method", ["embedding", "entailment"])
def test_the_package_is_whole_and_serving_loads_no_training_library(encoder, nli, tmp_path, method):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    given = about(method, encoder, nli, prior="unlabelled")
    model = ZeroShotClassifier(labels, Task.MULTI_CLASS, **given).fit(texts, targets)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    vectors = {"label_vectors.npz"} if method == "embedding" else set()
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"classifier.json", "encoder.onnx", "tokenizer.json", "zero_shot.json"} | vectors
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom tamiz.classifiers import classifier_class\n"
        "model = classifier_class('zero_shot').load(Path(sys.argv[1]))\n"
        "texts = json.loads(sys.argv[2])\n"
        "p = [model.predict_proba(texts).tolist(), model.with_labels(['oven', 'ball']).predict_proba(texts).tolist()]\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'onnx', 'safetensors', 'huggingface_hub', 'sqlite3'}\n"
        "print(json.dumps([p, sorted(heavy & set(sys.modules))]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TAMIZ_CACHE": str(tmp_path / "none")}
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "kept"), json.dumps(texts[:5])],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (p, other), heavy = json.loads(out)
    assert heavy == []
    np.testing.assert_allclose(p, model.predict_proba(texts[:5]), atol=1e-5)
    np.testing.assert_allclose(other, model.with_labels(["oven", "ball"]).predict_proba(texts[:5]), atol=1e-5)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", "label_vectors.npz", "zero_shot.json"])
def test_a_damaged_package_is_refused(encoder, tmp_path, name):
    ready(model=encoder).save(tmp_path)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(PackageError):
        ZeroShotClassifier.load(tmp_path)


def test_targets_are_checked_before_a_model_is_looked_for():
    with pytest.raises(LabelError, match="no example"):
        ZeroShotClassifier(("a", "b"), Task.BINARY).fit([], np.zeros(0, np.int64))
