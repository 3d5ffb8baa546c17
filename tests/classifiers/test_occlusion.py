"""Explanations by leaving words out."""

from __future__ import annotations

import numpy as np
import pytest

from tamiz.classifiers.checks import examples
from tamiz.classifiers.ensemble import EnsembleClassifier
from tamiz.classifiers.occlusion import occlude
from tamiz.model import Model
from tamiz.types import Explains, Task
from tests.models import model_of

LONG_MS = 600_000.0


class Counted:
    """A classifier whose log-odds of the second label are the weights of the words that stand in a text, added up."""

    labels = ("no", "yes")

    def __init__(self, weights, task=Task.BINARY):
        self.weights, self.task, self.asked = weights, task, []

    def predict_proba(self, texts):
        self.asked += texts
        scores = np.array([sum(self.weights.get(word.strip(".!?"), 0) for word in text.split()) for text in texts])
        p = 1 / (1 + np.exp(-scores))
        return np.stack([p, p] if self.task is Task.MULTI_LABEL else [1 - p, p], axis=1)


def values(found, text):
    assert found.base + sum(c.value for c in found.contributions) == pytest.approx(found.score, abs=1e-12)
    return {text[c.start : c.end]: pytest.approx(c.value, abs=1e-6) for c in found.contributions}


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_LABEL])
def test_words_of_an_additive_classifier_get_their_weights(task):
    text = "A good film, not a dull one."
    classifier = Counted({"good": 2.0, "dull": -1.0}, task)
    found = occlude(classifier, text, 1, budget_ms=LONG_MS)
    assert values(found, text) == {"good": 2.0, "dull": -1.0}
    assert found.base == pytest.approx(0, abs=1e-9)
    assert found.label == "yes"


def test_the_other_label_has_the_opposite_values():
    text = "good and dull"
    found = occlude(Counted({"good": 2.0, "dull": -1.0}), text, 0, budget_ms=LONG_MS)
    assert values(found, text) == {"good": -2.0, "dull": 1.0}
    assert found.score == pytest.approx(-1)


def test_what_two_words_say_alike_is_in_the_base():
    class Either(Counted):
        def predict_proba(self, texts):
            p = np.array([0.9 if "good" in text or "fine" in text else 0.1 for text in texts])
            return np.stack([1 - p, p], axis=1)

    found = occlude(Either({}), "good and fine", 1, budget_ms=LONG_MS)
    assert found.contributions == ()
    assert found.base == found.score == pytest.approx(np.log(9))


def test_a_long_text_is_explained_by_the_words_of_its_strongest_sentences():
    words = [f"w{n}" for n in range(200)]
    text = ". ".join(" ".join(words[start : start + 10]) for start in range(0, 200, 10)) + "."
    classifier = Counted({"w42": 3.0, "w187": -2.0})
    found = occlude(classifier, text, 1, budget_ms=LONG_MS, passes=60)
    said = values(found, text)
    assert said["w42"] == 3.0
    assert said["w187"] == -2.0
    assert len(classifier.asked) <= 61


def test_no_more_passes_than_allowed_and_no_word_of_its_own_where_there_is_none_to_spare():
    text = " ".join(f"w{n}" for n in range(100))
    for passes in (0, 1, 2, 7):
        classifier = Counted({"w42": 3.0})
        found = occlude(classifier, text, 1, budget_ms=LONG_MS, passes=passes)
        assert len(classifier.asked) <= passes + 1
        values(found, text)
        if passes:
            (part,) = found.contributions
            assert part.start <= text.index("w42") < part.end
        else:
            assert found.base == found.score


def test_without_time_the_score_alone_is_told():
    found = occlude(Counted({"good": 2.0}), "good", 1, budget_ms=0)
    assert (found.contributions, found.score) == ((), pytest.approx(2))
    assert found.base == found.score


def test_a_slow_classifier_ends_with_its_time():
    import time

    class Slow(Counted):
        def predict_proba(self, texts):
            time.sleep(0.01 * len(texts))
            return super().predict_proba(texts)

    text = " ".join(f"w{n}" for n in range(1000))
    classifier = Slow({"w42": 3.0})
    found = occlude(classifier, text, 1, budget_ms=100)
    assert len(classifier.asked) <= 12  # what 100 ms pay for, and the whole text
    values(found, text)


def test_what_the_first_answer_has_to_load_costs_no_word_its_value():
    import time

    class Cold(Counted):
        def predict_proba(self, texts):
            time.sleep(0 if self.asked else 0.5)
            return super().predict_proba(texts)

    text = " ".join(f"w{n}" for n in range(20))
    found = occlude(Cold({"w7": 3.0}), text, 1, budget_ms=400)
    assert values(found, text) == {"w7": 3.0}


def test_scripts_without_spaces_are_explained_by_characters():
    class Han(Counted):
        def predict_proba(self, texts):
            p = np.array([0.9 if "\u597d" in text else 0.2 for text in texts])
            return np.stack([1 - p, p], axis=1)

    text = "\u8fd9\u90e8\u7535\u5f71\u5f88\u597d\u3002"
    found = occlude(Han({}), text, 1, budget_ms=LONG_MS)
    assert list(values(found, text)) == ["\u597d"]


def test_a_sure_classifier_gives_finite_values():
    class Sure(Counted):
        def predict_proba(self, texts):
            return np.array([[0.0, 1.0] if "good" in text else [1.0, 0.0] for text in texts])

    found = occlude(Sure({}), "good film", 1, budget_ms=LONG_MS)
    assert np.isfinite([found.base, found.score, *(c.value for c in found.contributions)]).all()


# --- families


@pytest.mark.parametrize("task", Task)
def test_an_ensemble_is_explained_as_a_whole(task):
    members = [
        {"family": "linear", "prepare": [{"stem": "english"}]},
        {"family": "boosting", "params": {"rounds": 5, "num_threads": 1}},
    ]
    texts, targets, labels = examples(task)
    classifier = EnsembleClassifier(labels, task, members=members).fit(texts, targets)
    assert not isinstance(classifier, Explains)
    text = "the bread and the soups of a kitchen"
    said = values(occlude(classifier, text, labels.index("food"), budget_ms=LONG_MS), text)
    assert said["bread"].expected > 0
    p, without = classifier.predict_proba([text, text.replace("bread", "")])[:, labels.index("food")]
    assert said["bread"] == np.log(p / (1 - p)) - np.log(without / (1 - without))


def test_a_model_explains_by_spans_of_the_original_text():
    model: Model = model_of("ensemble", Task.MULTI_CLASS)
    text = "<p>Fresh&nbsp;<b>BREAD</b> &amp; Cheese</p>, no LOAN"
    found = model.explain(text, "food", budget_ms=LONG_MS)
    said = values(found, text)
    assert said["BREAD"].expected > 0 > said["LOAN"].expected
    assert not any("<" in part for part in said)
    assert model.explain(text, "food", budget_ms=0).contributions == ()
