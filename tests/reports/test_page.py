"""The pages: whole, self-contained, escaped, readable with many labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from tamiz.reports import charts
from tamiz.reports.findings import Contender
from tamiz.reports.measures import Bin, Reliability
from tamiz.reports.page import compare_page, report_page
from tamiz.types import Task
from tests.reports.pages import Page, findings_of, sample_of

EVIL = "<script>alert(1)</script>"


def page_of(findings):
    page = Page(report_page(findings))
    page.check()
    return page


def cells(page, name):
    """Return the rows of a table by their first cell."""
    return {row[0]: row[1:] for row in page.by_id[name][1:]}


@pytest.mark.parametrize(
    ("task", "more"),
    [
        (Task.BINARY, {"Answers by truth", "Threshold: label 1"}),
        (Task.MULTI_CLASS, {"Answers by truth"}),
        (Task.MULTI_LABEL, {f"Threshold: {name}" for name in ("all labels together", "label 0", "label 1", "label 2")}),
    ],
    ids=["binary", "multi-class", "multi-label"],
)
def test_a_page_shows_what_its_task_has(task, more):
    sample = sample_of(task)
    findings = findings_of(sample, learning=[(30, 0.25), (60, 0.5)], words={"label 0": [("soup", 1.5)]})
    page = page_of(findings)
    usual = {"ROC", "Precision and recall", "Reliability", "Speed against quality", "Learning curve"}
    assert page.charts.keys() == usual | more
    assert "topics, version 7" in page.text
    assert cells(page, "figures-test")["f1_macro"][:2] == [
        f"{findings.manifest.metrics['test_f1_macro']:.4f}",
        "0.2500 – 0.7500",
    ]
    assert cells(page, "figures-validation")["f1_macro"][0] == "0.5000"
    assert cells(page, "by-label")["label 0"][0] == str(sample.outcomes[:, 0].sum())
    assert cells(page, "counts")["label 1"] == [str(sample.outcomes[:, 1].sum())]
    assert "soup 1.50" in page.text
    assert findings.mistakes[0].text in page.text


def test_the_error_of_right_probabilities_is_told_where_it_is_known():
    sample = sample_of(Task.BINARY)
    assert (
        "right probabilities would show one of up to 0.0625" in page_of(findings_of(sample, ece_by_chance=0.0625)).text
    )
    assert "by chance" not in page_of(findings_of(sample)).text


def test_each_label_of_several_has_its_threshold():
    findings = findings_of(sample_of(Task.MULTI_LABEL))
    rows = page_of(findings).by_id["by-label"]
    place = rows[0].index("threshold")
    values = {row[0]: float(row[place]) for row in rows[1:]}
    thresholds = findings.manifest.rule.get("thresholds") or [0.5] * 3
    assert values == pytest.approx(dict(zip(findings.manifest.labels, thresholds, strict=True)), abs=1e-4)


def test_it_says_what_is_missing_and_why():
    columns = {"state": [f"s{i}" for i in range(len(sample_of(Task.BINARY)))]}
    page = page_of(findings_of(sample_of(Task.BINARY, columns=columns)))
    assert f"Not divided by: state ({len(columns['state'])} values, at most 20)." in page.text
    assert "The family linear does not weigh single words" in page.text


def test_the_ticks_of_a_logarithmic_axis_are_whole_numbers():
    figure = go.Figure(charts.speed_chart([("a", 0.02, 0.5, None), ("b", 0.49, 0.75, 1.0)], "val_f1_macro"))
    assert list(figure.layout.xaxis.ticktext)[:4] == ["0.01", "0.02", "0.05", "0.1"]
    assert figure.data[0].cliponaxis is False


def test_names_that_would_cover_one_another_are_left_to_the_pointer():
    near = [(f"c{i}", 0.2 + i / 1e4, 0.5 + i / 1e5, None) for i in range(4)]
    trace = go.Figure(charts.speed_chart([*near, ("far", 2.0, 0.25, None)], "val_f1_macro")).data[0]
    assert list(trace.text) == ["c0", "c1", "", "", "far"]
    assert list(trace.textposition)[:2] == ["top center", "bottom center"]
    assert list(trace.hovertext) == ["c0", "c1", "c2", "c3", "far"]


def test_a_confusion_matrix_is_of_shares_with_counts():
    sample = sample_of(Task.MULTI_CLASS)
    trace = page_of(findings_of(sample)).charts["Answers by truth"]["data"][0]
    counts = trace["customdata"]
    hits = (sample.targets == 0) & (sample.decided == 0)
    assert counts[0][0] == hits.sum()
    assert trace["z"][0][0] == pytest.approx(counts[0][0] / (sample.targets == 0).sum())


def test_shares_are_of_all_examples_of_a_label_the_unanswered_ones_too():
    figure = go.Figure(charts.confusion_chart(np.array([[10, 0], [5, 5]]), ["a", "b"], np.array([100, 10])))
    assert list(map(list, figure.data[0].z)) == [[0.1, 0.0], [0.5, 0.5]]


def test_each_label_of_several_has_its_four_cells():
    sample = sample_of(Task.MULTI_LABEL)
    row = cells(page_of(findings_of(sample)), "by-label")["label 1"]
    true, given = sample.targets[:, 1], sample.decided[:, 1]
    expected = [(~true & ~given), (~true & given), (true & ~given), (true & given)]
    assert row[-4:] == [str(cell.sum()) for cell in expected]


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL], ids=str)
def test_150_labels_stay_readable_and_small(task):
    html = report_page(findings_of(sample_of(task, 150, 1000)))
    page = Page(html)
    page.check()
    assert "Answers by truth" not in page.charts
    assert [len(page.charts[name]["data"]) for name in ("ROC", "Precision and recall")] == [3, 2]
    assert sum(len(script) for script in page.scripts if "plotly.js v" not in script) < 100_000
    assert len(page.by_id["by-label"]) == 151
    if task is Task.MULTI_CLASS:
        assert len(page.by_id["confusions"]) == 31


def test_abstentions_are_told():
    sample = sample_of(Task.MULTI_CLASS)
    decided = sample.decided.copy()
    decided[:17] = -1
    assert "No answer for 17 examples" in page_of(findings_of(replace(sample, decided=decided))).text


@pytest.mark.parametrize("task", list(Task), ids=str)
def test_nothing_of_the_users_becomes_markup(task):
    sample = sample_of(task)
    labels = (EVIL, "a & b", "c")[: len(sample.labels)]
    sample = replace(
        sample,
        labels=labels,
        texts=[f"{EVIL} <img src=x onerror=alert(2)> {i}" for i in range(300)],
        row_ids=[f"<b>{i}" for i in range(300)],
        columns={f"<i>{EVIL}": ["</td><script>"] * 150 + ["x"] * 150},
    )
    findings = findings_of(sample, words={EVIL: [("</table><script>", 1.0)]})
    board = [Contender(EVIL, findings.manifest.metrics, note="<b>")]
    page = page_of(replace(findings, leaderboard=board))
    assert EVIL in page.text
    assert "<img src=x onerror=alert(2)>" in page.text
    assert not [tag for tag, _ in page.elements if tag in ("b", "i", "img")]
    assert not any(
        "alert(" in script for script in page.scripts if "\\u0026lt;" not in script and "plotly" not in script
    )


def test_without_unseen_examples_the_page_says_so():
    page = page_of(replace(findings_of(sample_of(Task.BINARY)), sample=None, slices=(), mistakes=()))
    assert "no side of the split that the model has not seen" in page.text
    assert page.charts.keys() == {"Speed against quality"}


def test_labels_whose_beginnings_are_alike_stay_apart():
    labels = ["x" * 100 + "1", "x" * 100 + "2"]
    figure = go.Figure(charts.confusion_chart(sample_of(Task.BINARY).targets[:4].reshape(2, 2), labels))
    assert list(figure.layout.xaxis.tickvals) == [0, 1]
    assert figure.layout.xaxis.ticktext[0] == "x" * 39 + "…"


def test_a_threshold_without_decisions_is_a_gap_and_the_one_in_use_is_marked():
    sample = sample_of(Task.BINARY)
    figure = page_of(findings_of(sample)).charts["Threshold: label 1"]
    (precision,) = [trace["y"] for trace in figure["data"] if trace["name"] == "precision"]
    assert None in precision or sample.probabilities[:, 1].max() >= 1
    assert figure["layout"]["shapes"][0]["x0"] == 0.5


def test_a_comparison_shows_figures_with_intervals_best_first():
    contenders = [
        Contender("linear", {"val_f1_macro": 0.75, "latency_p50_ms": 0.5}, {"val_f1_macro": (0.5, 0.875)}, version="2"),
        Contender(EVIL, {"val_f1_macro": 0.25, "latency_p50_ms": 0.1}),
    ]
    curves = {"linear, version 2": Reliability((Bin(0.9, 1.0, 8, 0.95, 0.9),), 0.05)}
    page = Page(compare_page("topics", contenders, "val_f1_macro", curves))
    page.check()
    (table,) = page.tables
    assert table[0][:3] == ["candidate", "version", "val_f1_macro"]
    assert table[1][:3] == ["linear", "2", "0.75000.5000 – 0.8750"]
    assert table[2][:3] == [EVIL, "–", "0.2500"]
    assert page.charts["Speed against quality"]["data"][0]["y"] == [0.75, 0.25]
    assert page.charts["Reliability"]["data"][1]["name"] == "linear, version 2, ECE 0.0500"
    charts_told = [about for _, about in page.elements if about.get("class") == "chart"]
    assert [about["aria-label"] for about in charts_told] == list(page.charts)
    assert {about["role"] for about in charts_told} == {"figure"}


def test_nothing_to_compare_is_a_page_too():
    page = Page(compare_page("topics", [], "val_f1_macro"))
    page.check()
    assert page.charts == {}
