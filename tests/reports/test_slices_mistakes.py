"""Figures of parts of the examples, and the mistakes that people read."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tamiz.reports.mistakes import mistakes, write_mistakes
from tamiz.reports.sample import Sample
from tamiz.reports.slices import left_out, slice_figures
from tamiz.types import Task
from tests.reports.pages import sample_of


def column(sample, name):
    return {part.value: part for part in slice_figures(sample) if part.column == name}


@pytest.mark.parametrize("task", list(Task))
def test_slices_by_a_column_agree_with_scikit_learn(task):
    sample = sample_of(task)
    kinds = ["mail" if i % 3 else "call" for i in range(len(sample))]
    found = column(replace(sample, columns={"kind": kinds}), "kind")
    assert list(found) == ["call", "mail"]
    rows = np.array(kinds) == "mail"
    part = found["mail"]
    assert part.examples == rows.sum()
    share = part.figures["subset_accuracy" if task is Task.MULTI_LABEL else "accuracy"]
    assert share == sample.right[rows].mean()
    assert part.interval[0] < share < part.interval[1]
    assert part.figures["f1_macro"] == pytest.approx(
        f1_score(sample.targets[rows], sample.decided[rows], average="macro")
    )


def test_the_interval_is_wilsons():
    sample = sample_of(Task.BINARY, n=10)
    decided = sample.targets.copy()
    decided[:2] = 1 - decided[:2]
    assert column(replace(sample, decided=decided, columns={"c": ["x"] * 10}), "c") == {}  # no division
    part = column(replace(sample, decided=decided, columns={"c": ["x"] * 9 + ["y"]}), "c")["x"]
    assert part.figures["accuracy"] == pytest.approx(7 / 9)
    assert part.interval == pytest.approx((0.4526, 0.9368), abs=1e-4)


def test_every_text_is_in_one_quarter_by_length():
    sample = replace(sample_of(Task.BINARY, n=8), texts=["a" * n for n in (1, 1, 2, 3, 4, 5, 6, 9)])
    found = column(sample, "length of the text")
    assert {name: part.examples for name, part in found.items()} == {
        "1 to 1 characters": 2,
        "2 to 3 characters": 2,
        "4 to 5 characters": 2,
        "6 to 9 characters": 2,
    }
    same = column(replace(sample, texts=["a"] * 8), "length of the text")
    assert [part.examples for part in same.values()] == [8]


def test_columns_of_many_values_are_left_out_and_times_go_by_year():
    n = 60
    columns = {
        "id": [str(i) for i in range(n)],
        "time": [datetime(2020 + i % 3, 5, 1, tzinfo=UTC) for i in range(n)],
        "region": [None if i < 20 else "north" for i in range(n)],
    }
    found = slice_figures(replace(sample_of(Task.BINARY, n=n), columns=columns))
    assert {part.column for part in found} == {"length of the text", "time", "region"}
    assert [(part.value, part.examples) for part in found if part.column == "time"] == [
        ("2020", 20),
        ("2021", 20),
        ("2022", 20),
    ]
    assert {part.value for part in found if part.column == "region"} == {"(none)", "north"}


def test_a_slice_knows_labels_that_are_never_right_and_labels_without_decisions():
    """Three texts: one right, one confused, one without an answer; then several labels, two of three found."""
    p = np.eye(3)[[0, 0, 1]]
    one = Sample(["x"] * 3, ["r"] * 3, np.array([0, 1, 2]), p, p, np.array([0, 0, -1]), Task.MULTI_CLASS, tuple("abc"))
    (part,) = slice_figures(one)
    assert part.figures["f1_macro"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    targets = np.array([[True, True, False], [False, True, False]])
    decided = np.array([[True, False, False], [False, True, False]])
    p = targets * 0.9
    several = Sample(["x"] * 2, ["r"] * 2, targets, p, p, decided, Task.MULTI_LABEL, tuple("abc"))
    (part,) = slice_figures(several)
    wanted = [f1_score(targets, decided, average="micro"), f1_score(targets[:, :2], decided[:, :2], average="macro")]
    assert [part.figures["f1_micro"], part.figures["f1_macro"]] == pytest.approx(wanted)


@pytest.mark.parametrize(("values", "shown"), [(20, 20), (21, 0)])
def test_a_column_divides_by_twenty_values_at_most(values, shown):
    sample = replace(sample_of(Task.BINARY, n=42), columns={"kind": [str(i % values) for i in range(42)]})
    assert len(column(sample, "kind")) == shown
    assert bool(left_out(sample)) == (not shown)


def wrong(labels=("a", "b", "c"), texts=("one", "two", "three", "four")):
    p = np.array([[0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.1, 0.0, 0.9], [0.9, 0.1, 0.0]])
    decided, targets = np.array([1, 0, 2, -1]), np.array([0, 1, 2, 1])
    ids = [f"r{i}" for i in range(4)]
    return Sample(texts, ids, targets, p, p, decided, Task.MULTI_CLASS, labels)


def test_mistakes_are_wrong_answers_most_confident_first():
    found = mistakes(wrong())
    assert [(m.row_id, m.truth, m.decided, m.confidence, m.text) for m in found] == [
        ("r0", "a", "b", 0.8, "one"),
        ("r1", "b", "a", 0.6, "two"),
    ]
    assert len(mistakes(wrong(), 1)) == 1


def test_mistakes_of_several_labels_are_about_one_each():
    p = np.array([[0.9, 0.2], [0.3, 0.6]])
    sample = Sample(
        ["one", "two"],
        ["r0", "r1"],
        np.array([[False, True], [False, True]]),
        p,
        p,
        p >= 0.5,
        Task.MULTI_LABEL,
        ("a", "b"),
    )
    assert [(m.row_id, m.truth, m.decided, m.confidence) for m in mistakes(sample)] == [
        ("r0", "not a", "a", 0.9),
        ("r0", "b", "not b", 0.8),
    ]


def test_the_file_of_mistakes_holds_no_formula_and_no_long_text(tmp_path):
    texts = ('=HYPERLINK("x")', "long " * 500, "three", "four")
    write_mistakes(tmp_path / "m.csv", mistakes(wrong(labels=("+a", "b", "c"), texts=texts)))
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "row_id": "r0",
        "truth": "'+a",
        "decided": "b",
        "confidence": "0.800000",
        "text": '\'=HYPERLINK("x")',
    }
    assert len(second["text"]) == 300
    assert second["text"].endswith("…")
