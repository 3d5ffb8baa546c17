"""The words that speak most for a label, and what loading the pipeline costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tamiz.classifiers.checks import examples
from tamiz.classifiers.linear import LinearClassifier
from tamiz.classifiers.prior import PriorClassifier
from tamiz.reports.findings import top_words
from tamiz.types import Task


@pytest.mark.parametrize("task", list(Task), ids=str)
@pytest.mark.parametrize("idf", [True, False])
def test_a_strength_is_what_the_word_alone_adds_to_the_score(task, idf):
    texts, targets, labels = examples(task)
    classifier = LinearClassifier(labels, task, norm=False, idf=idf, words=(1, 1)).fit(texts, targets)
    for j, label in enumerate(labels):
        found = classifier.top_features(j, 4)
        assert len(found) == 4
        for word, strength in found:
            explained = classifier.explain(word, j)
            assert explained.label == label
            assert explained.score - explained.base == pytest.approx(strength, rel=1e-5)
        every = dict(classifier.top_features(j, 10**6))
        assert all(strength > 0 for strength in every.values())
        assert [value for _, value in found] == sorted(every.values(), reverse=True)[:4]


def test_longer_n_grams_and_characters_are_spelled_out():
    texts, targets, labels = examples(Task.BINARY)
    words = LinearClassifier(labels, Task.BINARY, words=(2, 2)).fit(texts, targets).top_features(0, 3)
    assert all(len(word.split(" ")) == 2 and any(word in text for text in texts) for word, _ in words)
    made = LinearClassifier(labels, Task.BINARY, words=None, characters=(3, 3)).fit(texts, targets)
    characters = made.top_features(1, 3)
    assert characters
    assert all(len(part) == 3 and any(part in f" {text} " for text in texts) for part, _ in characters)


def test_words_survive_saving(tmp_path):
    texts, targets, labels = examples(Task.MULTI_CLASS)
    made = LinearClassifier(labels, Task.MULTI_CLASS).fit(texts, targets)
    made.save(tmp_path)
    assert LinearClassifier.load(tmp_path).top_features(1, 5) == made.top_features(1, 5)


def test_a_family_without_words_has_none():
    texts, targets, labels = examples(Task.BINARY)
    assert top_words(PriorClassifier(labels, Task.BINARY).fit(texts, targets)) == {}


def test_plotly_is_loaded_only_where_a_page_is_made():
    program = "import sys, tamiz.cli.main, tamiz.pipeline.report; print('plotly' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
